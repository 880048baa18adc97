"""Recognises a file as if it were live, with asyncio: words appear while the file plays.

    python examples/live_file.py [FILE] [--fast]

--fast: as fast as the computer can, not at the speed of the file.

Instead of a file, `astream` takes live sound and pictures: iterators of `avsr.streaming.source.LiveSound` and
`LivePicture`. `avsr.streaming.devices` makes them from a microphone and a camera.
"""

import asyncio
import sys
from pathlib import Path

import avsr

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"


async def main(path: str, real_time: bool) -> None:
    model = avsr.load("grid-tiny")
    async for event in model.astream(path, chunk_ms=320, real_time=real_time):
        if event.event == "partial":
            print(f"{event.emitted:6.2f} s  ... {event.text}")  # these words may still change
        elif event.event == "final":
            print(f"{event.emitted:6.2f} s  {event.text}")
        elif event.event == "mode":
            print(f"{event.emitted:6.2f} s  recognised from {event.text} ({event.reason})")


if __name__ == "__main__":
    paths = [argument for argument in sys.argv[1:] if argument != "--fast"]
    asyncio.run(main(paths[0] if paths else str(DEMO), "--fast" not in sys.argv))
