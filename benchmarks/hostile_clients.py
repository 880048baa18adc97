"""A client of `avsr serve` that misbehaves in one way, over and over: for servers of your own, to see that they hold.

    python benchmarks/hostile_clients.py pings --port 8765 --token TOKEN --seconds 10
    python benchmarks/hostile_clients.py --list

Two things keep it from being stronger than a stranger on a network. It runs at the lowest priority (nice 19), so that
it takes only processor time that the server leaves. It sends at most --mbit megabits a second. Prints a JSON object:
how often it connected and how much it sent. `serving_soak.py` runs it beside an honest client.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import time
from collections.abc import Callable

import cv2
import numpy as np

TEXT, BINARY, PING, PONG = 1, 2, 9, 10
MANY = 64
"""Sockets of the kinds that hold many open."""


def frame(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> bytes:
    """A frame of a WebSocket, masked with zeros."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = b"\xfe" + struct.pack(">H", size) if size < 65536 else b"\xff" + struct.pack(">Q", size)
    return bytes([0x80 * is_last | opcode]) + length + bytes(4) + payload


def media(kind: int, time_s: float, payload: bytes) -> bytes:
    """A frame with sound or a picture."""
    return frame(BINARY, struct.pack("<Bd", kind, time_s) + payload)


class Client:
    """Sockets to one server, slowed to the rate of a network. All calls end with TimeoutError when the time is over."""

    def __init__(self, port: int, token: str, address: str, seconds: float, mbit: float) -> None:
        self.port, self.token, self.address = port, token, address
        self.end_s = time.monotonic() + seconds
        self.connections = self.sent = 0
        self._bytes_per_s, self._free_s = mbit * 125_000, time.monotonic()

    def sleep(self, seconds: float) -> None:
        now_s = time.monotonic()
        if now_s >= self.end_s:
            raise TimeoutError
        time.sleep(min(seconds, self.end_s - now_s))

    def connect(self) -> socket.socket:
        self.sleep(0)
        self.connections += 1
        return socket.create_connection(("127.0.0.1", self.port), timeout=2, source_address=(self.address, 0))

    def send(self, to: socket.socket, data: bytes) -> None:
        self._free_s = max(self._free_s, time.monotonic()) + len(data) / self._bytes_per_s
        self.sleep(max(0.0, self._free_s - time.monotonic()))
        to.sendall(data)
        self.sent += len(data)

    def flood(self, to: socket.socket, data: bytes) -> None:
        """Send the same again and again, until the server ends the connection."""
        while True:
            self.send(to, data)

    def pace(self, to: socket.socket, data: Callable[[int], bytes], per_s: float) -> None:
        """Send data(0), data(1), ... at a rate, and read what comes, until the server ends the connection."""
        start_s, number = time.monotonic(), 0
        while True:
            self.send(to, data(number))
            number += 1
            self.sleep(max(0.0, start_s + number / per_s - time.monotonic()))
            read_all(to)

    def request(self, head: str, body: bytes = b"") -> None:
        """Send a request, and read the beginning of the answer."""
        with self.connect() as to:
            self.send(to, f"{head}\r\n\r\n".encode() + body)
            to.recv(65536)

    def upgrade(self, *, headers: str = "Host: localhost") -> socket.socket:
        """A WebSocket before its hello."""
        to = self.connect()
        self.send(
            to,
            f"GET /stream HTTP/1.1\r\n{headers}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode(),
        )
        to.recv(65536)
        return to

    def hello(self, *, token: str | None = None) -> socket.socket:
        """A WebSocket after its hello; token None: the right one."""
        to = self.upgrade()
        words = {"type": "hello", "protocol": 1, "token": self.token if token is None else token}
        self.send(to, frame(TEXT, json.dumps(words).encode()))
        to.recv(65536)
        return to

    def hold(self, first: bytes, more: bytes, every_s: float) -> None:
        """Hold many sockets, and send a little through each now and then."""
        held: list[socket.socket] = []
        try:
            while True:
                while len(held) < MANY:
                    held.append(self.connect())
                    self.send(held[-1], first)
                self.sleep(every_s)
                held = [to for to in held if self._is_open(to, more)]
        finally:
            for to in held:
                to.close()

    def _is_open(self, to: socket.socket, more: bytes) -> bool:
        to.setblocking(False)
        try:
            to.sendall(more)
            return to.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            to.close()
            return False


def read_all(to: socket.socket) -> None:
    """Read what has come. Raises ConnectionError if the server has ended the connection."""
    to.setblocking(False)
    try:
        while to.recv(65536):
            pass
        raise ConnectionResetError
    except BlockingIOError:
        to.settimeout(2)


def bomb() -> bytes:
    """A JPEG of the largest size that is allowed, of noise, in many passes: the dearest to decode."""
    noise = np.random.default_rng(1).integers(0, 255, (720, 1280, 3), np.uint8)
    for quality in range(40, 0, -5):
        flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, quality]
        data = cv2.imencode(".jpg", noise, flags)[1].tobytes()
        if len(data) < 250_000:
            return data
    raise AssertionError("a picture of noise has less than 250 kB at some quality")


def bombs(client: Client) -> None:
    data = bomb()
    with client.hello() as to:
        client.pace(to, lambda number: media(3, number / 50, data), 50)


def loud(client: Client) -> None:
    samples = np.random.default_rng(1).integers(-9000, 9000, 16000).astype("<i2").tobytes()
    with client.hello() as to:
        client.pace(to, lambda number: media(1, float(number), samples), 1.25)


def not_numbers(client: Client) -> None:
    samples = np.full(320, np.nan, "<f4").tobytes()
    with client.hello() as to:
        client.flood(to, media(2, 0.0, samples))


def half_closes(client: Client) -> None:
    with client.hello() as to:
        to.shutdown(socket.SHUT_WR)
        client.sleep(0.1)


def unread(client: Client) -> None:
    with client.hello() as to:
        start_s, number = time.monotonic(), 0
        while True:
            client.send(to, media(1, number / 50, bytes(640)))
            number += 1
            client.sleep(max(0.0, start_s + number / 50 - time.monotonic()))


def leaps(client: Client) -> None:
    with client.hello() as to:
        client.pace(to, lambda number: media(1, 9.5 * number, bytes(640)), 50)


def flooded(opcode: int, payload: bytes = b"", *, hello: bool, count: int = 1, is_last: bool = True) -> Hostile:
    """Floods with one frame, before or after the hello."""

    def attack(client: Client) -> None:
        with client.hello() if hello else client.upgrade() as to:
            client.flood(to, frame(opcode, payload, is_last=is_last) * count)

    return attack


def fragments(payload: bytes) -> Hostile:
    """One message in fragments without end."""

    def attack(client: Client) -> None:
        with client.hello() as to:
            client.send(to, frame(BINARY, b"\1", is_last=False))
            client.flood(to, frame(0, payload, is_last=False) * 500)

    return attack


def requested(head: str, body: bytes = b"") -> Hostile:
    return lambda client: client.request(head, body)


def said(data: bytes, *, hello: bool) -> Hostile:
    """Sends one thing and reads the answer."""

    def attack(client: Client) -> None:
        with client.hello() if hello else client.upgrade() as to:
            client.send(to, data)
            to.recv(65536)

    return attack


Hostile = Callable[[Client], object]

KINDS: dict[str, Hostile] = {
    "pongs-before-hello": flooded(PONG, hello=False, count=500),
    "pings": flooded(PING, hello=True, count=500),
    "pongs": flooded(PONG, hello=True, count=500),
    "empty-frames": flooded(BINARY, hello=True, count=500),
    "fragments-of-0": fragments(b""),
    "fragments-of-1": fragments(b"x"),
    "nested-json": flooded(TEXT, b"[" * 65536, hello=False),
    "wrong-token": lambda client: client.hello(token="wrong").close(),
    "silent-sockets": lambda client: client.hold(b"", b"", 0.5),
    "slow-headers": lambda client: client.hold(b"GET / HTTP/1.1\r\nX: ", b"x", 0.5),
    "chunked-after-405": requested(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", b"5\r\nabcde\r\n" * 500
    ),
    "text-ff": said(frame(TEXT, b"\xff"), hello=False),
    "foreign-host": requested("GET / HTTP/1.1\r\nHost: evil.example"),
    "foreign-origin": lambda client: client.upgrade(headers="Host: localhost\r\nOrigin: http://evil.example").close(),
    "huge-frame": said(b"\x82\xff" + struct.pack(">Q", 1 << 62) + bytes(4), hello=True),
    "jpeg-bombs": bombs,
    "loud-sound": loud,
    "clock-leaps": leaps,
    "nan-sound": not_numbers,
    "half-closes": half_closes,
    "churn": lambda client: client.hello().close(),
    "never-reads": unread,
    "get-page": requested("GET / HTTP/1.1\r\nHost: localhost"),
    "get-info": requested("GET /info HTTP/1.1\r\nHost: localhost"),
}
"""All kinds of misbehaviour, by name. Each does something until the server ends it, and is then started again."""


def attack(kind: Hostile, client: Client) -> None:
    """Repeat one kind until the time is over."""
    while time.monotonic() < client.end_s:
        try:
            kind(client)
        except OSError:  # the server has ended the connection; or it is full
            time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="?", choices=list(KINDS), metavar="KIND")
    parser.add_argument("--list", action="store_true", help="print the kinds")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--token", default="")
    parser.add_argument("--address", default="127.0.0.1", help="where the client seems to be; default %(default)s")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--mbit", type=float, default=100.0, help="megabits a second at most; default %(default)s")
    arguments = parser.parse_args()
    if arguments.list or arguments.kind is None:
        print("\n".join(KINDS))
        return
    os.nice(19)
    client = Client(arguments.port, arguments.token, arguments.address, arguments.seconds, arguments.mbit)
    attack(KINDS[arguments.kind], client)
    print(json.dumps({"connections": client.connections, "sent": client.sent}))


if __name__ == "__main__":
    main()
