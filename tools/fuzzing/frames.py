"""Hostile WebSocket and HTTP clients for `avsr serve`, and a server with a stand-in for the recogniser."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from random import Random
from typing import Any

from fuzzing.mutations import LONG_INTEGERS, json_text, mutate_bytes

HELLO = {"type": "hello", "protocol": 1}
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
HOSTILE_ADDRESSES, HONEST_ADDRESS = ("127.0.0.3", "127.0.0.4", "127.0.0.5"), "127.0.0.2"
"""Limits for each address must not hit the honest client for what the hostile ones do."""
PATIENCE_S = 15.0
"""The honest client is served by then; a place of a hostile client is free again by then."""
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
    "GBYUGBIUFRT/wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgB"
    "AQAAPwBT/9k="
)
"""A grey picture of 8 by 8 px."""


def make_script(random: Random) -> bytes:
    """Up to four connections, as JSON: each with its address, with or without a handshake, and with its chunks."""
    connections = [_connection(random) for _ in range(random.choice((1, 1, 2, 4)))]
    return json.dumps(connections).encode()


def _connection(random: Random) -> dict[str, Any]:
    is_websocket = random.random() < 0.7
    chunks = _messages(random) if is_websocket else [_request(random) for _ in range(random.choice((1, 1, 3)))]
    if random.random() < 0.2:
        chunks = [mutate_bytes(chunk, random) for chunk in chunks]
    return {
        "from": random.choice(HOSTILE_ADDRESSES),
        "handshake": is_websocket,
        "chunks": [base64.b64encode(chunk).decode() for chunk in chunks],
        "reset": random.random() < 0.3,
    }


def _messages(random: Random) -> list[bytes]:
    made = [frame(TEXT, json.dumps(HELLO).encode())] if random.random() < 0.7 else []
    for _ in range(random.choice((1, 3, 10, 60))):
        made.append(_message(random))
    if random.random() < 0.1:
        made = [random.choice(made)] * 2000
    return [b"".join(made)] if random.random() < 0.5 else made[:200]


def _message(random: Random) -> bytes:
    match random.randrange(9):
        case 0:
            return frame(
                TEXT, json_text(random.choice((HELLO, HELLO | {"video": True}, {"type": "stop"})), random)[:70_000]
            )
        case 1:
            return frame(TEXT, random.choice((b"\xff", b"", b"null", b"[]", b"{}", b"\xed\xa0\x80", b"{" * 5000)))
        case 2 | 3:
            sound = struct.pack("<Bd", random.choice((1, 1, 2)), _time(random)) + random.randbytes(
                random.choice((640, 3, 0, 64_000))
            )
            return frame(BINARY, sound)
        case 4:
            return frame(BINARY, struct.pack("<Bd", 3, _time(random)) + mutate_bytes(JPEG, random))
        case 5:
            return frame(BINARY, random.randbytes(random.choice((0, 1, 9, 1000))))
        case 6:
            return frame(random.choice((PING, PONG, CLOSE)), random.randbytes(random.choice((0, 1, 2, 125, 126))))
        case 7:
            return frame(
                random.randrange(16), b"x" * random.choice((0, 5)), first=random.choice((0x00, 0x40, 0x70, 0x80))
            )
        case _:
            length = random.choice(LONG_INTEGERS)
            return bytes((0x82, 0xFF)) + length.to_bytes(8, "big") + bytes(4) + bytes(random.choice((0, 100)))


def _time(random: Random) -> float:
    return random.choice((0.0, random.random(), random.random(), -1.0, 1e9, 1e300, float("nan"), float("inf"), 599.0))


def frame(kind: int, payload: bytes, *, first: int = 0x80) -> bytes:
    """A WebSocket frame of a client, with a mask of zeros (RFC 6455, section 5.2). first: the flags."""
    length = len(payload)
    if length < 126:
        size = bytes((0x80 | length,))
    elif length < 1 << 16:
        size = b"\xfe" + struct.pack(">H", length)
    else:
        size = b"\xff" + struct.pack(">Q", length)
    return bytes((first | kind,)) + size + bytes(4) + payload


def _request(random: Random) -> bytes:
    method = random.choice(("GET", "GET", "POST", "HEAD", "PUT", "OPTIONS", "X" * 9000, "G\x00T"))
    path = random.choice(
        ("/", "/info", "/page.js", "/stream", "/../../etc/passwd", "/%00", "/" + "a" * 70_000, "*", "/?token=%ff")
    )
    headers = ["Host: " + random.choice(("127.0.0.1", "127.0.0.1", "evil.example", "", "[::1", "127.0.0.1:x"))]
    headers += random.sample(
        (
            "Transfer-Encoding: chunked", "Content-Length: 99999999999", "Content-Length: -1", "Connection: Upgrade",
            "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: x",
            "Origin: http://evil.example", "Authorization: Bearer \xff", "X: " + "y" * 70_000, "Expect: 100-continue",
            "Sec-WebSocket-Extensions: permessage-deflate", ": x", "no colon", "A: b\r\n c",
        ),
        random.randrange(6),
    )  # fmt: skip
    headers += [f"H{number}: x" for number in range(random.choice((0, 0, 0, 2000)))]
    body = random.choice((b"", b"0\r\n\r\n", b"fffffffff\r\nx", b"x" * 1000, b"zz\r\n"))
    version = random.choice(("HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/9.9", ""))
    return f"{method} {path} {version}\r\n".encode("latin-1") + "\r\n".join([*headers, "", ""]).encode("latin-1") + body


def play(script: bytes, port: int) -> str:
    """Send what a script says to a server, and then be an honest client. Returns the fault, or ""."""
    held = [_send(connection, port) for connection in json.loads(script)]
    wrong = _served(port)
    for connection in held:
        connection.close()
    end_s = time.monotonic() + PATIENCE_S
    while not wrong and _sessions(port) and time.monotonic() < end_s:
        time.sleep(0.02)
    return wrong or (f"{_sessions(port)} sessions are left over" if _sessions(port) else "")


def _send(connection: dict[str, Any], port: int) -> socket.socket:
    """Send all chunks, as far as the server takes them. The socket stays open, unless the script says otherwise."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=2, source_address=(connection["from"], 0))
    if connection["reset"]:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        if connection["handshake"]:
            _shake_hands(opened, port)
        for chunk in connection["chunks"]:
            opened.sendall(base64.b64decode(chunk))
        opened.settimeout(0.1)
        opened.recv(1 << 16)
    return opened


def _shake_hands(opened: socket.socket, port: int) -> None:
    opened.sendall(
        f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        received = opened.recv(4096)
        if not received:
            raise ConnectionError("the server has closed the connection")
        answer += received


def _served(port: int) -> str:
    """Whether an honest client gets its word. It comes again while it is told that all places are taken."""
    end_s = time.monotonic() + PATIENCE_S
    answer = ""
    while time.monotonic() < end_s:
        answer = _honest_session(port)
        if '"final"' in answer and "word0" in answer:
            return ""
        time.sleep(0.5)
    return f"an honest client was not served: {answer[-300:]!r}"


def _honest_session(port: int) -> str:
    """A second of sound. Returns everything that the server says until it closes the connection."""
    messages = [frame(TEXT, json.dumps(HELLO | {"video": False}).encode())]
    messages += [frame(BINARY, struct.pack("<Bd", 1, number / 50) + bytes(640)) for number in range(55)]
    messages.append(frame(TEXT, b'{"type": "stop"}'))
    said = b""
    with contextlib.suppress(OSError):
        address = (HONEST_ADDRESS, 0)
        with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=address) as opened:
            _shake_hands(opened, port)
            opened.sendall(b"".join(messages))
            while received := opened.recv(1 << 16):
                said += received
                if b'"counters"' in said and b'"final"' in said:
                    break
    return said.decode("utf-8", "replace")


def _sessions(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(HONEST_ADDRESS, 0)) as opened:
        opened.sendall(f"GET /info HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while received := opened.recv(1 << 16):
            said += received
    found = re.search(rb'"sessions":\s*(\d+)', said)
    return int(found[1]) if found else -1


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """The port of a server in a thread, which ends with the block: it changes the log of the process while it runs."""
    from avsr.serving.limits import Limits
    from avsr.serving.server import Settings, prepare
    from tests.fake_live import FakeRecognizer

    prepared = prepare(FakeRecognizer(), Settings(port=0, limits=Limits(sessions_per_s=1000.0)))
    thread = threading.Thread(target=prepared.run, daemon=True)
    thread.start()
    try:
        yield prepared.listener.getsockname()[1]
    finally:
        prepared.server.should_exit = True
        thread.join(PATIENCE_S)
        if thread.is_alive():
            raise RuntimeError("the server does not end")
