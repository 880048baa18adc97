"""Sends the sound of a file to `avsr serve` as it would be spoken, and prints the words as they come back.

    avsr serve --no-open --model grid-tiny            # in another terminal; needs the extra "serve"
    python examples/websocket_client.py [FILE] [URL]

URL: ws://127.0.0.1:8765/stream if it is left out. The messages are described in docs/serve.md.

Two things must go on at the same time: sound is sent at the speed of the file, and events are read as they come. A
client that sends everything before it reads is disconnected, because the server keeps only a limited number of events.
A server ends each session after `--max-minutes`.
"""

import asyncio
import contextlib
import json
import struct
import sys
import time
from pathlib import Path

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed
except ImportError:
    sys.exit("websocket_client.py needs the package websockets: pip install '.[serve]'")

import avsr
from avsr.streaming.source import file_sound

DEMO = Path(avsr.__file__).parent / "assets/demo.mp4"
FLOAT32_SOUND = 2


async def send_sound(server: ClientConnection, path: str) -> None:
    """Send blocks of 20 ms, each when its last sample would have been spoken, then the stop."""
    start_s = time.monotonic()
    with contextlib.suppress(ConnectionClosed):  # the reader prints why the server closed the connection
        for block in file_sound(path):
            await asyncio.sleep(max(0.0, start_s + block.arrival_s - time.monotonic()))
            header = struct.pack("<Bd", FLOAT32_SOUND, block.time_s)
            await server.send(header + block.samples.astype("<f4").tobytes())
        await server.send(json.dumps({"type": "stop"}))


async def main(path: str = str(DEMO), url: str = "ws://127.0.0.1:8765/stream") -> None:
    async with connect(url, compression=None) as server:
        await server.send(json.dumps({"type": "hello", "protocol": 1, "video": False}))
        sending = asyncio.create_task(send_sound(server, path))
        with contextlib.suppress(ConnectionClosed):  # the last event before it is an error that says why
            async for message in server:
                event = json.loads(message)
                if event["event"] == "final" and event["text"]:  # empty for speech that the model does not know
                    print(f"{event['start']:6.2f} s  {event['text']}")
                elif event["event"] in ("hello", "error") and (line := event.get("notice") or event.get("message")):
                    print(line, file=sys.stderr)
        await sending


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
