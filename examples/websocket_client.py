"""Sends the sound of a file to `avsr serve` as it would be spoken, and prints the words as they come back.

    avsr serve --no-open --model grid-tiny            # in another terminal; needs the extra "serve"
    python examples/websocket_client.py [FILE] [URL] [TOKEN]

URL: as `avsr serve` prints it. The token stands in it (`?token=`) or is TOKEN. docs/serve.md describes the messages.
Sound is sent at the speed of the file while events are read: the server disconnects a client that does not read.
"""

import asyncio
import contextlib
import json
import struct
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
except ImportError:
    sys.exit("websocket_client.py needs the package websockets: pip install '.[serve]'")

import avsr
from avsr.streaming.source import file_sound

DEMO = str(Path(avsr.__file__).parent / "assets/demo.mp4")
FLOAT32_SOUND = 2


async def send_sound(server: ClientConnection, path: str) -> None:
    """Send blocks of 20 ms, each when its last sample would have been spoken, then the stop."""
    start_s = time.monotonic()
    with contextlib.suppress(ConnectionClosed):  # the reader says why the server closed the connection
        for block in file_sound(path):
            await asyncio.sleep(max(0.0, start_s + block.arrival_s - time.monotonic()))
            header = struct.pack("<Bd", FLOAT32_SOUND, block.time_s)
            await server.send(header + block.samples.astype("<f4").tobytes())
        await server.send(json.dumps({"type": "stop"}))


async def print_words(server: ClientConnection) -> str:
    """Print words until the server closes the connection. Returns why it did; empty after the stop."""
    why = ""
    try:
        async for message in server:
            event = json.loads(message)
            if event["event"] == "final" and event["text"]:  # empty for speech that the model does not know
                print(f"{event['start']:6.2f} s  {event['text']}")
            elif event["event"] == "hello" and event.get("notice"):
                print(event["notice"], file=sys.stderr)
            elif event["event"] == "error":
                why = event["message"]
    except ConnectionClosed as error:
        return why or f"the server closed the connection: {error}"
    return why


async def main(path: str = DEMO, url: str = "ws://127.0.0.1:8765", token: str = "") -> str:
    parts = urlsplit(url)
    address = f"{'wss' if parts.scheme in ('https', 'wss') else 'ws'}://{parts.netloc}/stream"
    hello = {"type": "hello", "protocol": 1, "token": token or parse_qs(parts.query).get("token", [""])[0]}
    try:
        async with connect(address, compression=None) as server:
            await server.send(json.dumps(hello | {"video": False}))
            return (await asyncio.gather(print_words(server), send_sound(server, path)))[0]
    except (OSError, asyncio.TimeoutError, InvalidHandshake, InvalidURI) as error:
        return f"no server at {address}: start it with avsr serve ({error})"
    except avsr.AvsrError as error:
        return str(error)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        sys.exit("expected at most FILE, URL and TOKEN")
    sys.exit(asyncio.run(main(*sys.argv[1:])) or None)  # a text is printed, and makes the exit code 1
