"""`avsr serve` over real sockets, with a stand-in for the recogniser: what page and server say to each other, and that
nobody who misbehaves hurts anybody else."""

from __future__ import annotations

import base64
import json
import random
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import avsr
from avsr.cli.main import main
from avsr.serving import places, transport
from avsr.serving import server as server_module
from avsr.serving.limits import Limits
from avsr.serving.server import Prepared, Settings, prepare
from tests.fake_live import FakeRecognizer

pytestmark = pytest.mark.usefixtures("grid_tiny")

TOKEN = "a-token-of-some-length"
HELLO = json.dumps({"type": "hello", "protocol": 1})
STOP = json.dumps({"type": "stop"})
PICTURE = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

Serve = Callable[..., Prepared]


@contextmanager
def running(
    recognizer: FakeRecognizer | None = None, *, token: str | None = None, **limits: float
) -> Iterator[Prepared]:
    """A server in a thread, at a free port."""
    limits.setdefault("sessions_per_s", 1000.0)  # tests open and close them faster than people
    settings = Settings(port=0, token=token, limits=Limits(**limits))  # type: ignore[arg-type]
    prepared = prepare(recognizer or FakeRecognizer(), settings)
    thread = threading.Thread(target=prepared.run)
    thread.start()
    try:
        wait_until(lambda: prepared.server.started)
        yield prepared
    finally:
        prepared.server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "not in time"
        time.sleep(0.01)


def port_of(served: Prepared) -> int:
    return int(re.search(r":(\d+)/", served.url)[1])  # type: ignore[index]


@contextmanager
def open_socket(served: Prepared, *, hello: str | None = HELLO, **options: Any) -> Iterator[ClientConnection]:
    """A client that has said hello."""
    url = f"ws://127.0.0.1:{port_of(served)}/stream"
    with connect(url, compression=None, close_timeout=1, **options) as client:
        if hello is not None:
            client.send(hello)
        yield client


def sound(time_s: float, seconds: float = 0.02, value: float = 0.0) -> bytes:
    samples = np.full(round(seconds * 16000), round(value * 32768), "<i2")
    return struct.pack("<Bd", 1, time_s) + samples.tobytes()


def picture(time_s: float, data: bytes = PICTURE) -> bytes:
    return struct.pack("<Bd", 3, time_s) + data


def events_until_closed(client: ClientConnection, seconds: float = 15.0) -> list[dict[str, Any]]:
    """All that comes; `client.close_code` is why it ended."""
    events = []
    end_s = time.monotonic() + seconds
    try:
        while True:
            events.append(json.loads(client.recv(timeout=max(0.01, end_s - time.monotonic()))))
    except ConnectionClosed:
        return events


def refusal(client: ClientConnection) -> tuple[int | None, str]:
    """The close code, and the message of the error that came with it."""
    events = events_until_closed(client)
    assert events[-1]["event"] == "error", events[-3:]
    assert (client.close_reason or "?") in events[-1]["message"]
    return client.close_code, events[-1]["message"]


def get(served: Prepared, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    url = f"http://127.0.0.1:{port_of(served)}{path}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def sessions(served: Prepared, token: str = "") -> int:
    return json.loads(get(served, "/info", Authorization=f"Bearer {token}")[2])["sessions"]


def works(served: Prepared) -> None:
    """A session from beginning to end."""
    with open_socket(served) as client:
        for number in range(55):
            client.send(sound(number / 50))
        client.send(STOP)
        events = events_until_closed(client)
        assert client.close_code == 1000, (client.close_code, client.close_reason)
        assert [event["text"] for event in events if event["event"] == "final"] == ["word0"]


@pytest.fixture(scope="module")
def served() -> Iterator[Prepared]:
    """One server for all tests that leave it as it was."""
    with running(max_sessions=8) as prepared:
        yield prepared


class TestSession:
    def test_from_hello_to_stop(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(110):
                client.send(sound(7 + number / 50))
                if number % 2 == 0:
                    client.send(picture(7 + number / 50))
                if number % 10 == 0:
                    time.sleep(0.02)
            client.send(STOP)
            events = events_until_closed(client)
            assert (client.close_code, client.close_reason) == (1000, "stopped")
        kinds = [event["event"] for event in events]
        assert kinds[0] == "hello"
        assert events[0] | {"model": "fake", "protocol": 1, "chunk_ms": 320, "latency_ms": 360.0} == events[0]
        assert kinds.count("partial") == 2
        assert {"mode", "status", "lips"} <= set(kinds)
        final = next(event for event in events if event["event"] == "final")
        assert final["text"] == "word0 word1"
        assert {"start", "end", "confidence", "modality", "face", "word"} == set(final["words"][0])
        counters = next(event for event in events if event["event"] == "counters")["counters"]
        assert counters["samples"] == 110 * 320

    @pytest.mark.parametrize("domain", ["open", "the six words of a test"])
    def test_the_limits_of_the_model_are_said_before_and_at_the_start(self, domain: str) -> None:
        recognizer = FakeRecognizer(domain=domain)
        words = "model fake knows only the six words of a test: other speech comes out as these"
        notice = None if domain == "open" else words
        with running(recognizer) as served:
            assert json.loads(get(served, "/info")[2])["notice"] == notice
            with open_socket(served) as client:
                assert json.loads(client.recv(timeout=10))["notice"] == notice

    def test_lips_are_what_the_model_got(self, served: Prepared) -> None:
        with open_socket(served) as client:
            client.send(picture(0.0))
            while (event := json.loads(client.recv(timeout=10)))["event"] != "lips":
                pass
        assert (event["present"], event["reason"], event["face"]) == (True, "ok", 0)
        crop = cv2.imdecode(np.frombuffer(base64.b64decode(event["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert crop.shape == (96, 96)
        assert (crop == 7).all()

    def test_client_without_a_camera_says_so(self) -> None:
        recognizer = FakeRecognizer()
        with running(recognizer) as served:
            with open_socket(served, hello=json.dumps({"type": "hello", "protocol": 1, "video": False})) as client:
                assert json.loads(client.recv(timeout=10))["video"] is False
            assert [session.video for session in recognizer.sessions] == [True, False]  # the first is the server's own

    def test_failure_is_told_and_concerns_nobody_else(self, served: Prepared, caplog: pytest.LogCaptureFixture) -> None:
        with open_socket(served) as other:
            for value, message in ((0.5, "failed on the server"), (0.25, "this cannot be; do something else")):
                with open_socket(served) as client:
                    client.send(sound(0.0, value=value))
                    code, told = refusal(client)
                    assert code == 4500
                    assert message in told
            assert [record.message for record in caplog.records] == [
                "a session failed: unexpected RuntimeError: two and two is five"
            ]
            other.send(sound(0.0, 1.0))
            other.send(STOP)
            assert events_until_closed(other)[-1]["event"] in ("counters", "status")
            assert other.close_code == 1000

    def test_pictures_that_cannot_be_read_end_it(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(10):
                client.send(picture(number / 25, b"nonsense"))
                time.sleep(0.02)
            assert refusal(client) == (4400, "pictures that cannot be read: not a JPEG file")

    def test_stopping_the_server_ends_sessions(self) -> None:
        with running() as served, open_socket(served) as client:
            client.recv(timeout=10)
            served.server.should_exit = True
            events_until_closed(client)
            assert client.close_code in (1001, 1012)


class TestAccess:
    def test_token(self) -> None:
        with running(token=TOKEN) as served:
            assert served.url.endswith(f"/?token={TOKEN}")
            for token in ("", TOKEN[:-1], "wrong", 5):
                with open_socket(served, hello=json.dumps({"type": "hello", "protocol": 1, "token": token})) as client:
                    code, _ = refusal(client)
                    assert code in (4401, 4400)
            with open_socket(served, hello=json.dumps({"type": "hello", "protocol": 1, "token": TOKEN})) as client:
                assert json.loads(client.recv(timeout=10))["event"] == "hello"

            assert get(served)[0] == get(served, "/?token=wrong")[0] == get(served, "/info")[0] == 403
            assert get(served, f"/?token={TOKEN}")[0] == 200
            assert get(served, "/info", Authorization="Bearer wrong")[0] == 403
            assert get(served, "/info", Authorization=f"Bearer {TOKEN}")[0] == 200

    def test_web_pages_from_elsewhere_cannot_connect(self, served: Prepared) -> None:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:3000"):
            with pytest.raises(InvalidStatus) as error, open_socket(served, origin=origin):
                pass
            assert error.value.response.status_code == 403
        with open_socket(served, origin=served.url.rstrip("/")) as client:
            assert json.loads(client.recv(timeout=10))["event"] == "hello"

    def test_names_that_were_pointed_here_are_not_answered(self, served: Prepared) -> None:
        for path in ("/", "/info", "/page.js", "/nothing"):
            assert get(served, path, Host="evil.example")[0] == 403
        with pytest.raises(InvalidStatus) as error:
            with open_socket(served, additional_headers={"Host": "evil.example"}):
                pass
        assert error.value.response.status_code in (400, 403)

    def test_page_comes_with_strict_rules_and_from_here_alone(self, served: Prepared) -> None:
        status, headers, page = get(served)
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
        nothing = get(served, "/nothing")
        assert nothing[1]["content-type"] == "text/plain; charset=utf-8" and nothing[2] == "Not Found\n"
        assert nothing[1]["content-security-policy"] == headers["content-security-policy"]
        assert get(served, "/nothing")[0] == get(served, "/docs")[0] == get(served, "/openapi.json")[0] == 404
        for path in ("/page.js", "/page.css", "/microphone.js"):
            assert get(served, path)[0] == 200
            page += get(served, path)[2]
        outside = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page)) - {"http://www.w3.org"}
        assert not outside
        assert not re.search(r"\son\w+=|<style|style=\"|innerHTML|eval\(", page)


class TestLimits:
    def refused(self, send: Callable[[ClientConnection], None], **limits: float) -> tuple[int | None, str]:
        with running(**limits) as served:
            with open_socket(served) as client:
                try:
                    send(client)
                except ConnectionClosed:
                    pass
                told = refusal(client)
            wait_until(lambda: sessions(served) == 0)
            works(served)
        return told

    def test_size_of_a_message(self, served: Prepared) -> None:
        for message, code in ((bytes(300_000), 4413), ("x" * 5000, 4413)):
            with open_socket(served) as client:
                client.send(message)
                assert refusal(client)[0] == code
        with open_socket(served) as client:  # not even read
            # Only the head of the frame is sent, for a server that closes with bytes unread resets the connection, and
            # the reset may overtake the code.
            client.socket.sendall(b"\x82\xff" + struct.pack(">Q", 2_000_000) + bytes(4))
            events_until_closed(client)
            assert client.close_code == 1009

    def test_rate_of_messages(self, served: Prepared) -> None:
        with open_socket(served) as client:
            with suppress(ConnectionClosed):  # the words come before the close, so that all may have been sent by then
                for _ in range(100_000):
                    client.send(sound(0.0, 1 / 16000))
            code, message = refusal(client)
            assert (code, message) == (4429, "more than 200 messages a second")

    def test_sound_faster_than_speech(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(60):
                client.send(sound(float(number), 1.0))
            assert refusal(client)[0] == 4429

    def test_times_that_leap_again_and_again(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(6):
                client.send(sound(9.0 * number))
            code, message = refusal(client)
            assert code == 4429
            assert "times" in message

    def test_number_of_sessions(self) -> None:
        with running(max_sessions=2) as served, open_socket(served) as first, open_socket(served) as second:
            for client in (first, second):
                assert json.loads(client.recv(timeout=10))["event"] == "hello"
            with open_socket(served) as third:
                assert refusal(third) == (4503, "all 2 sessions are in use: try again when one has ended")
            first.close()
            wait_until(lambda: sessions(served) == 1)
            works(served)

    def test_sessions_cannot_be_opened_without_end(self) -> None:
        with running(sessions_per_s=1.0, burst_s=3.0) as served:
            for _ in range(3):
                with open_socket(served) as client:
                    client.send(STOP)
                    events_until_closed(client)
                    assert client.close_code == 1000
            with open_socket(served) as client:
                assert refusal(client)[0] == 4503
            time.sleep(1.1)
            works(served)

    def test_length_of_a_session(self) -> None:
        def talk(client: ClientConnection) -> None:
            for number in range(500):
                client.send(sound(number / 50))
                time.sleep(0.02)

        code, message = self.refused(talk, max_minutes=1 / 60)
        assert (code, message) == (4410, "the session has lasted 0.0166667 minutes: start another")

    def test_nothing_sent_for_a_while(self) -> None:
        assert self.refused(lambda client: client.send(sound(0.0)), idle_s=0.3)[0] == 4409

    def test_no_hello(self) -> None:
        with running(hello_s=0.3) as served:
            with open_socket(served, hello=None) as client:
                assert refusal(client) == (4408, "no hello within 0.3 s")
            assert sessions(served) == 0

    def test_request_that_never_ends(self, served: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "REQUEST_S", 0.3)
        with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            assert closes(client)
        with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as client:
            client.sendall(b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n")  # answered, and then nothing
            assert closes(client)

    def test_number_of_connections(self, served: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(places, "MAX_CONNECTIONS", 5)
        clients = [socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) for _ in range(12)]
        try:
            assert sum(closes(client, seconds=0.5) for client in clients) >= 7
        finally:
            for client in clients:
                client.close()
        monkeypatch.undo()
        works(served)

    def test_pings_without_end(self, served: Prepared) -> None:
        with open_socket(served) as client:
            with pytest.raises((ConnectionClosed, OSError)):
                for _ in range(10_000):
                    client.ping()
                    time.sleep(0.0005)
        works(served)


def closes(client: socket.socket, seconds: float = 10.0) -> bool:
    """Whether the server ends the connection."""
    client.settimeout(seconds)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


class TestOthers:
    """Nobody is hurt by anybody."""

    def test_garbage(self, served: Prepared) -> None:
        draw = random.Random(3)

        def message() -> str | bytes:
            kind = draw.randrange(5)
            if kind == 0:
                return draw.randbytes(draw.randrange(60))
            if kind == 1:
                return struct.pack("<Bd", draw.randrange(5), draw.choice([0.0, 1.0, 1e18])) + draw.randbytes(50)
            if kind == 2:
                return draw.choice([HELLO, STOP, "", "{}", "[[[", '{"type": 1}', "\0", "\N{PILE OF POO}" * 50])
            if kind == 3:
                return picture(draw.random(), PICTURE[: draw.randrange(len(PICTURE))] + draw.randbytes(9))
            return sound(draw.random(), draw.choice([0.01, 0.3]))

        ends: dict[int | None, int] = {}
        for _ in range(150):
            with open_socket(served, hello=HELLO if draw.random() < 0.8 else None) as client:
                try:
                    for _ in range(draw.randrange(1, 6)):
                        client.send(message())
                    client.send(STOP)
                    events_until_closed(client)
                except ConnectionClosed:
                    pass
                ends[client.close_code] = ends.get(client.close_code, 0) + 1
        assert set(ends) <= {1000, 4400, 4429}
        assert ends[4400] > 20
        wait_until(lambda: sessions(served) == 0)
        works(served)

    def test_bytes_that_are_no_http(self, served: Prepared) -> None:
        draw = random.Random(4)
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as client:
                try:
                    client.sendall(draw.randbytes(draw.randrange(1, 400)) + b"\r\n\r\n")
                except OSError:
                    pass
        works(served)

    def test_frames_that_are_no_websocket(self, served: Prepared) -> None:
        draw = random.Random(5)
        for _ in range(40):
            with open_socket(served) as client:
                try:
                    client.socket.sendall(draw.randbytes(draw.randrange(2, 200)))
                except OSError:
                    pass
        wait_until(lambda: sessions(served) == 0)
        works(served)

    def test_flood_beside_a_healthy_session(self, served: Prepared) -> None:
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                try:
                    with open_socket(served) as client:
                        while not stop.is_set():
                            client.send(picture(0.0, bytes(60_000)))
                except (ConnectionClosed, OSError):
                    time.sleep(0.01)

        flooders = [threading.Thread(target=flood) for _ in range(3)]
        for thread in flooders:
            thread.start()
        try:
            with open_socket(served) as client:
                started, late = time.monotonic(), []
                for number in range(150):
                    client.send(sound(number / 50))
                    time.sleep(max(0.0, started + (number + 1) / 50 - time.monotonic()))
                    try:
                        while True:
                            event = json.loads(client.recv(timeout=0))
                            if event["event"] == "partial":
                                late.append(time.monotonic() - started - event["emitted"])
                    except TimeoutError:
                        pass
                client.send(STOP)
                events = events_until_closed(client)
                assert client.close_code == 1000
        finally:
            stop.set()
            for thread in flooders:
                thread.join(20)
        final = next(event for event in events if event["event"] == "final")
        assert final["text"] == "word0 word1 word2"
        assert sorted(late)[len(late) // 2] < 0.5

    @pytest.mark.parametrize(
        "limits",
        [{"outgoing": 64}, {"outgoing": 10**6, "write_s": 0.3}, {"outgoing": 10**6, "write_s": 100}],
        ids=["words", "time", "connection"],
    )
    def test_client_that_never_reads(self, limits: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "STALLED_S", 0.5)
        with running(FakeRecognizer(talk=200), **limits) as served:
            with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10) as client:
                client.sendall(
                    b"GET /stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
                )
                while not client.recv(1000).endswith(b"\r\n\r\n"):
                    pass
                send_frame(client, 1, HELLO.encode())
                wait_until(lambda: sessions(served) == 1)
                try:
                    for number in range(1000):
                        send_frame(client, 2, sound(number / 50))
                        time.sleep(0.005)
                        if number % 50 == 49 and sessions(served) == 0:
                            break
                except OSError:
                    pass  # cut
                wait_until(lambda: sessions(served) == 0)
            with open_socket(served) as other:
                assert json.loads(other.recv(timeout=10))["event"] == "hello"

    def test_clients_that_vanish(self, served: Prepared) -> None:
        for number in range(24):
            with open_socket(served) as client:
                client.send(sound(0.0))
                if number % 2:
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset
                client.socket.shutdown(socket.SHUT_RD if number % 3 == 0 else socket.SHUT_RDWR)
            wait_until(lambda: sessions(served) < 8)
        wait_until(lambda: sessions(served) == 0)
        works(served)

    def test_slow_session_beside_a_healthy_one(self) -> None:
        recognizer = FakeRecognizer(picture_s=0.2)
        with running(recognizer) as served:
            with open_socket(served) as slow:
                for number in range(60):
                    slow.send(picture(number / 25))
                works(served)
                slow.send(STOP)
                events = events_until_closed(slow)
        counters = next(event for event in events if event["event"] == "counters")["counters"]
        assert counters["pictures"] < 20


def send_frame(client: socket.socket, opcode: int, payload: bytes) -> None:
    """A frame of a WebSocket, sent by hand."""
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    client.sendall(bytes([0x80 | opcode]) + length + bytes(4) + payload)


class TestCommand:
    @pytest.fixture
    def recognizer(self, monkeypatch: pytest.MonkeyPatch) -> FakeRecognizer:
        """Takes the place of every model; the server ends as soon as it runs."""
        recognizer = FakeRecognizer()
        monkeypatch.setattr(avsr, "load", lambda name: recognizer)
        monkeypatch.setattr(server_module.Prepared, "run", lambda prepared: prepared.listener.close())
        return recognizer

    def test_prints_the_address_alone(self, recognizer: FakeRecognizer, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", "--port", "0", "--no-open"]) == 0
        out, err = capsys.readouterr()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", out)
        assert err == "avsr: Ctrl-C ends it\n"

    def test_other_addresses_get_a_token(self, recognizer: FakeRecognizer, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--no-open", "--quiet"]) == 0
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}\n", capsys.readouterr().out)
        assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--no-open", "--token", TOKEN]) == 0
        assert capsys.readouterr().out.endswith(f"/?token={TOKEN}\n")

    def test_all_addresses_have_one_for_other_machines(
        self, recognizer: FakeRecognizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for address in ("10.1.2.3", None):
            monkeypatch.setattr("avsr.serving.access.address_for_others", lambda address=address: address)
            assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--no-open", "--token", TOKEN]) == 0
            err = capsys.readouterr().err
            assert (re.search(rf"another machine: http://10\.1\.2\.3:\d+/\?token={TOKEN}\n", err) is None) == (
                not address
            )

    def test_shows_the_page_where_wanted(
        self, recognizer: FakeRecognizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown: list[str] = []
        monkeypatch.setattr("webbrowser.open", shown.append)
        assert main(["serve", "--port", "0", "--open", "--quiet"]) == 0
        assert shown == [capsys.readouterr().out.strip()]

    def test_mistakes_are_one_line(self, recognizer: FakeRecognizer, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for words, code, line in (
                (["--port", str(port)], 1, f"cannot listen at 127.0.0.1, port {port}: got Address already in use"),
                (["--host", "203.0.113.7"], 1, "--host 203.0.113.7: is no address of this machine; choose one"),
                (["--host", "no such host"], 1, "--host no such host: is no address of this machine"),
                (["--port", "0", "--chunk-ms", "7"], 1, "chunk_ms 7: expected 320"),
                (["--port", "99999"], 2, "argument --port: got '99999'"),
                (["--token", "short"], 2, "argument --token: got 5 characters, expected at least 16 characters, each"),
                (["--token", "long enough, but with spaces"], 2, "argument --token: got the character ' ', expected"),
                (["--max-minutes", "0"], 2, "argument --max-minutes: got '0'"),
                (["--face", "nose"], 2, "argument --face: got 'nose'"),
            ):
                assert main(["serve", "--no-open", *words]) == code
                out, err = capsys.readouterr()
                assert out == ""
                assert err.startswith(f"avsr: {line}"), err
                assert err.count("\n") == 1

    def test_missing_packages_are_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "fastapi", None)
        assert main(["serve", "--no-open"]) == 1
        assert capsys.readouterr().err.endswith("; pip install '.[serve]'\n")

    def test_files_of_the_page_are_in_the_package(self) -> None:
        page = Path(avsr.__file__).parent / "assets" / "page"
        files = {"index.html", "page.js", "page.css", "microphone.js", "captions.js"}
        assert {path.name for path in page.iterdir()} == files
