"""What `avsr serve` counts below messages, over real sockets: frames, requests, places, lines of the log."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import struct
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from avsr.serving import meters, places, transport
from avsr.serving.limits import Limits
from avsr.serving.meters import Budget
from avsr.serving.metrics import SUMMARY_S, Metrics
from avsr.serving.pictures import decode_jpeg
from avsr.serving.places import Places, Room, address_of
from avsr.serving.protocol import RefusalError
from avsr.serving.server import Prepared
from tests.fake_live import FakeRecognizer
from tests.test_serving import (
    HELLO,
    STOP,
    TOKEN,
    closes,
    events_until_closed,
    get,
    open_socket,
    picture,
    port_of,
    refusal,
    running,
    sessions,
    sound,
    wait_until,
    works,
)

pytestmark = pytest.mark.usefixtures("grid_tiny")


def upgrade(host: str = "localhost", version: int = 13) -> bytes:
    return (
        f"GET /stream HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def frame(opcode: int, payload: bytes = b"", *, is_last: bool = True) -> bytes:
    """A frame as a client sends it; payload: 125 bytes at most."""
    return bytes([(0x80 if is_last else 0) | opcode, 0x80 | len(payload)]) + bytes(4) + payload


HELLO_FRAME = frame(1, HELLO.encode())
PONG, PING = frame(10), frame(9, b"x")
REQUEST = b"GET /page.css HTTP/1.1\r\nHost: localhost\r\n\r\n"

FLOODS = {
    "pongs before the hello": (upgrade(), PONG * 20_000, "frames"),
    "pongs in a session": (upgrade() + HELLO_FRAME, PONG * 20_000, "frames"),
    "pings": (upgrade(), PING * 20_000, "frames"),
    "texts before an answer": (upgrade(), frame(1, b"x") * 20_000, "frames"),
    "empty fragments": (upgrade(), frame(2, is_last=False) + frame(0, is_last=False) * 20_000, "frames"),
    "empty fragments in a session": (
        upgrade() + HELLO_FRAME,
        frame(2, is_last=False) + frame(0, is_last=False) * 50_000,
        "frames",
    ),
    "pings between fragments": (upgrade(), (frame(2, b"x", is_last=False) + PING * 3000) * 3, "frames"),
    "requests in one go": (b"", REQUEST * 2000, "loop"),
    "a body without end": (
        b"",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + bytes(4_000_000),
        "bytes",
    ),
    "chunks of one byte": (
        b"",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000,
        "loop",
    ),
}
"""By name: what opens the connection, what floods it, and what is exceeded."""


@pytest.fixture(scope="module")
def served() -> Iterator[Prepared]:
    with running(max_sessions=8) as prepared:
        yield prepared


@contextlib.contextmanager
def raw_socket(served: Prepared, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port_of(served)), timeout=10, source_address=(source, 0)) as client:
        yield client


def open_by_hand(client: socket.socket, opening: bytes) -> None:
    """Send what opens a connection: nothing, the upgrade, or the upgrade and after its answer the hello."""
    if not opening:
        return
    client.sendall(upgrade())
    assert client.recv(1000).startswith(b"HTTP/1.1 101")
    if opening.endswith(HELLO_FRAME):
        client.sendall(HELLO_FRAME)
        assert b"hello" in client.recv(4000)


def send_all(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # cut
        client.sendall(data)


def value(served: Prepared, name: str, token: str = "") -> float:
    """A value of /metrics."""
    found = re.search(
        rf"^avsr_{re.escape(name)} (\S+)$", get(served, "/metrics", Authorization=f"Bearer {token}")[2], re.M
    )
    return float(found[1]) if found else 0.0


class TestFloods:
    @pytest.mark.parametrize("name", FLOODS)
    def test_is_cut_and_counted(self, served: Prepared, name: str) -> None:
        opening, flood, exceeded = FLOODS[name]
        reason = f'cut_total{{reason="{exceeded}"}}'
        before = value(served, reason)
        with raw_socket(served) as client:
            open_by_hand(client, opening)
            send_all(client, flood)
            assert closes(client)
        wait_until(lambda: value(served, reason) > before)
        wait_until(lambda: sessions(served) == 0)

    def test_the_client_of_a_session_is_told(self, served: Prepared) -> None:
        with open_socket(served) as client:
            assert json.loads(client.recv(timeout=10))["event"] == "hello"
            client.socket.sendall(PONG * 100)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    client.recv(timeout=10)
            assert (client.close_code, client.close_reason) == (4429, "too many frames")
        wait_until(lambda: sessions(served) == 0)

    def test_frames_after_a_refusal_are_counted_too(self, served: Prepared) -> None:
        cut = value(served, 'cut_total{reason="frames"}')
        with raw_socket(served) as client:
            client.sendall(upgrade())
            client.recv(1000)
            client.sendall(frame(1, b"no hello"))
            assert b"malformed" in client.recv(1000)
            before = value(served, "frames_total")
            send_all(client, frame(1, b"x") * 200_000)
            assert closes(client)
        assert value(served, 'cut_total{reason="frames"}') > cut
        assert value(served, "frames_total") - before < 1000

    def test_so_are_those_of_a_session_that_still_computes(self) -> None:
        with running(FakeRecognizer(sound_s=0.5)) as served, raw_socket(served) as client:
            open_by_hand(client, upgrade() + HELLO_FRAME)
            send_all(client, frame(2, sound(0.0, 0.003)) + frame(2, b"malformed") + frame(1, b"x") * 100_000)
            assert closes(client)
            wait_until(lambda: value(served, 'cut_total{reason="frames"}') == 1)
            # While the last words are recognised, messages are read on, up to their limit.
            assert value(served, "frames_total") < 30 * 200 + 1000

    def test_a_long_frame_does_not_bring_others_along(self, served: Prepared) -> None:
        before = value(served, "frames_total")
        with raw_socket(served) as client:
            client.sendall(upgrade())
            client.recv(1000)
            send_all(client, b"\x82\xfe" + struct.pack(">H", 60_000) + bytes(60_004) + PONG * 30_000)
            assert closes(client)
        assert value(served, "frames_total") - before < 1000

    def test_honest_session_beside_a_flood_has_all_its_words(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(110):
                client.send(sound(number / 50))
                if number % 10 == 0:
                    with raw_socket(served) as hostile:
                        hostile.sendall(upgrade())
                        hostile.recv(1000)
                        send_all(hostile, PONG * 20_000)
            client.send(STOP)
            events = events_until_closed(client)
            assert client.close_code == 1000
        assert [event["text"] for event in events if event["event"] == "final"] == ["word0 word1"]

    def test_the_longest_turn_is_short(self, served: Prepared) -> None:
        with raw_socket(served) as client:
            client.sendall(upgrade())
            client.recv(1000)
            before = value(served, "frames_total")
            send_all(client, PONG * 40_000)
            assert closes(client)
        # Of 40000 frames that had come, a turn parsed no more than fit into one piece.
        assert value(served, "frames_total") - before <= transport.PIECE_BYTES / len(PONG) + 1
        assert value(served, "loop_hold_max_seconds") > 0

    def test_a_stall_and_its_burst_are_no_flood(self, served: Prepared) -> None:
        """Pictures in fragments of 4 KiB by a proxy, keep-alives, and 12 s of it at once."""
        with open_socket(served) as client:
            assert json.loads(client.recv(timeout=10))["event"] == "hello"
            data = picture(0.0) + bytes(3000)
            pieces = [data[first : first + 100] for first in range(0, len(data), 100)]
            burst = b"".join(
                frame(2 if number == 0 else 0, piece, is_last=number == len(pieces) - 1)
                for number, piece in enumerate(pieces)
            )
            client.socket.sendall(burst * 150 + PONG * 10)
            client.send(STOP)
            events = events_until_closed(client)
            assert client.close_code == 1000, (client.close_code, client.close_reason)
        assert any(event["event"] == "counters" for event in events)

    def test_page_loads_of_many_people_are_no_flood(self, served: Prepared) -> None:
        before = value(served, 'cut_total{reason="loop"}')
        with raw_socket(served) as client:
            for _ in range(20):
                client.sendall(REQUEST)
                assert client.recv(100_000).startswith(b"HTTP/1.1 200")
                while select_readable(client):
                    client.recv(100_000)
        assert value(served, 'cut_total{reason="loop"}') == before

    def test_large_pictures_are_read_whole(self, served: Prepared) -> None:
        with open_socket(served) as client:
            for number in range(20):
                client.send(picture(number / 25) + bytes(200_000))
                time.sleep(0.01)
            client.send(STOP)
            events = events_until_closed(client)
            assert client.close_code == 1000
        counters = next(event for event in events if event["event"] == "counters")["counters"]
        assert counters["pictures"] > 0

    def test_bytes_of_a_session_are_slowed_and_not_cut(self, monkeypatch: pytest.MonkeyPatch) -> None:
        slow = meters.Share(
            bytes_per_s=200_000,
            bytes_at_once=1000,
            frames_per_s=1000,
            frames_at_once=1000,
            loop_per_s=1,
            loop_at_once_s=1,
        )
        monkeypatch.setattr(transport, "SESSION", slow)
        monkeypatch.setattr(meters, "SESSION", slow)
        with running() as served:
            works(served)
            assert value(served, "slowed_total") > 0
            assert value(served, 'cut_total{reason="bytes"}') == 0

    def test_addresses_share_the_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Connections one after the other have one budget: the later are read later, and still answered."""
        monkeypatch.setattr(places, "ADDRESS_LOOP_AT_ONCE_S", 0.005)
        monkeypatch.setattr(places, "ADDRESS_LOOP_SHARE", 0.05)
        with running() as served:
            for _ in range(15):
                assert get(served, "/info")[0] == 200
            assert value(served, "slowed_total") > 0


def select_readable(client: socket.socket) -> bool:
    client.settimeout(0.02)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        client.settimeout(10)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes 127.0.0.2 and its neighbours other machines."""
    monkeypatch.setattr(transport, "address_of", lambda peer: peer[0])


class TestPlaces:
    def test_silent_sockets_keep_nobody_out(self, served: Prepared) -> None:
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(raw_socket(served)) for _ in range(80)]
            works(served)
            assert get(served)[0] == 200
            assert sum(closes(client, seconds=0.05) for client in silent) >= 80 - places.MAX_CONNECTIONS

    @pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX-Slow: ", upgrade(), b"\x16\x03\x01"])
    def test_nor_do_slow_ones(self, served: Prepared, start: bytes) -> None:
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(raw_socket(served)) for _ in range(70)]
            for client in slow:
                send_all(client, start)
            for client in slow[-10:]:
                send_all(client, b"a")  # a byte makes nobody younger
            works(served)

    def test_a_session_keeps_its_place(self, served: Prepared) -> None:
        with open_socket(served) as client, contextlib.ExitStack() as stack:
            assert json.loads(client.recv(timeout=10))["event"] == "hello"
            for _ in range(100):
                stack.enter_context(raw_socket(served))
            client.send(sound(0.0, 1.0))
            client.send(STOP)
            assert any(event["event"] == "final" for event in events_until_closed(client))
            assert client.close_code == 1000

    @pytest.mark.usefixtures("addresses")
    def test_the_address_with_most_connections_loses_one(self, served: Prepared) -> None:
        with contextlib.ExitStack() as stack:
            quiet = stack.enter_context(raw_socket(served, "127.0.0.3"))
            for _ in range(100):
                stack.enter_context(raw_socket(served, "127.0.0.2"))
            wait_until(lambda: value(served, 'cut_total{reason="place"}') > 0)
            quiet.sendall(REQUEST)  # older than all of them, and still there
            assert quiet.recv(1000).startswith(b"HTTP/1.1 200")

    @pytest.mark.usefixtures("addresses")
    def test_one_address_cannot_have_all_sessions(self) -> None:
        with running(max_sessions=4) as served, contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(open_socket(served, source_address=("127.0.0.2", 0)))
                assert json.loads(client.recv(timeout=10))["event"] == "hello"
            with open_socket(served, source_address=("127.0.0.2", 0)) as fourth:
                code, message = refusal(fourth)
                assert (code, message) == (4503, "your address has 3 sessions: the others are kept for other people")
            with open_socket(served, source_address=("127.0.0.3", 0)) as other:
                assert json.loads(other.recv(timeout=10))["event"] == "hello"

    def test_who_does_not_say_hello_is_cut(self, served: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "REQUEST_S", 0.3)
        with raw_socket(served) as silent, raw_socket(served) as upgraded:
            upgraded.sendall(upgrade())
            assert closes(silent, 5)
            assert closes(upgraded, 5)

    def test_who_answers_no_close_is_cut(self, served: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(transport, "CLOSING_S", 0.2)
        with raw_socket(served) as client:
            client.sendall(upgrade())
            client.recv(1000)
            client.sendall(frame(1, b"no hello"))
            assert closes(client, 5)

    @pytest.mark.parametrize(
        ("peer", "address"),
        [
            (("127.0.0.1", 1), places.THIS_MACHINE),
            (("127.9.8.7", 1), places.THIS_MACHINE),
            (("::1", 1, 0, 0), places.THIS_MACHINE),
            (("::ffff:127.0.0.1", 1, 0, 0), places.THIS_MACHINE),
            (("::ffff:192.0.2.9", 1, 0, 0), "192.0.2.9"),
            (("192.0.2.9", 1), "192.0.2.9"),
            (("2001:db8:1:2:3:4:5:6", 1, 0, 0), "2001:db8:1:2::/64"),
            (("fe80::1%eth0", 1, 0, 2), "fe80::/64"),
            (None, "unknown"),
            ("", "unknown"),
        ],
    )
    def test_what_counts_as_one_address(self, peer: object, address: str) -> None:
        assert address_of(peer) == address


class FakeClient:
    def __init__(self, address: str) -> None:
        self.address, self.reasons = address, list[str]()

    def cut(self, reason: str) -> None:
        self.reasons.append(reason)

    def session_begins(self) -> None: ...
    def session_ends(self) -> None: ...


def test_with_one_connection_of_each_address_the_oldest_loses() -> None:
    door = Places(Metrics())
    clients = [FakeClient(str(number)) for number in range(places.MAX_CONNECTIONS + 3)]
    for client in clients:
        door.admit(client)
    assert [client.reasons for client in clients[:4]] == [["place"], ["place"], ["place"], []]


def test_budgets_of_addresses_are_bounded_and_outlive_connections() -> None:
    door = Places(Metrics())
    door.budget_of("a", 0.0).spend(9.0, 0.0)
    for number in range(3 * places.MAX_ADDRESSES):
        door.budget_of(f"b{number}", 1.0)
    assert door.budget_of("a", 1.0).debt_s(1.0) > 0


def test_pace_of_one_address_takes_nothing_from_the_others() -> None:
    room = Room(Limits(max_sessions=1000, sessions_per_s=1.0, burst_s=4.0))
    greedy, other = FakeClient("a"), FakeClient("b")
    with pytest.raises(RefusalError, match="too many sessions were opened"):
        for _ in range(5):
            room.enter(greedy)
    room.enter(other)
    assert room.taken == 4
    room.leave(other)
    assert room.taken == 3


def test_budget_by_hand() -> None:
    budget = Budget(per_s=2.0, at_once=10.0)
    assert budget.spend(10, 0.0)
    assert not budget.spend(4, 1.0)  # 2 had grown back
    assert budget.debt_s(1.0) == pytest.approx(1.0)
    assert budget.debt_s(1.5) == pytest.approx(0.5)
    assert budget.debt_s(9.0) == 0
    assert not budget.is_full(6.9)
    assert budget.is_full(7.1)


NOISE = {
    "text that is no UTF-8": (upgrade(), frame(1, b"\xff")),
    "text that is no UTF-8, in a session": (upgrade() + HELLO_FRAME, frame(1, b"\xc3\x28")),
    "close with a broken reason": (upgrade(), frame(8, b"\x03\xe8\xff\xff")),
    "unknown opcode": (upgrade(), frame(11)),
    "frame without a mask": (upgrade(), b"\x81\x01x"),
    "chunks after an error": (
        b"",
        b"POST /info HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" * 3,
    ),
    "half of a body after an error": (
        b"",
        b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc" + REQUEST,
    ),
    "bad chunks": (b"", b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" * 2),
    "TLS": (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "huge header": (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000),
    "many headers": (b"", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000),
    "foreign host": (b"", upgrade("evil.example")),
    "no host": (b"", b"GET / HTTP/1.1\r\n\r\n"),
    "old WebSocket": (b"", upgrade(version=8)),
    "unknown upgrade": (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "WebSocket elsewhere": (b"", upgrade().replace(b"/stream", b"/nothing")),
    "WebSocket by POST": (b"", upgrade().replace(b"GET", b"POST")),
    "path that is no text": (b"", b"GET /%ff%c3%28 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "path that is no UTF-8, WebSocket": (b"", upgrade().replace(b"/stream", b"/%ff")),
    "bytes of 8 bit in the path": (b"", b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "WebSocket with 8 bit in its path": (b"", upgrade().replace(b"/stream", b"/\xff")),
    "HTTP/2": (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "nothing": (b"", b""),
}
"""By name: what opens the connection, and what nobody is to read about."""


class TestQuiet:
    @pytest.mark.parametrize("how", ["half-close", "reset", "stay"])
    def test_strangers_write_nothing(
        self, served: Prepared, how: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        for opening, noise in NOISE.values():
            with raw_socket(served) as client:
                open_by_hand(client, opening)
                send_all(client, noise)
                if how == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif how == "half-close":
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_WR)
                    closes(client, 0.2)
                else:
                    closes(client, 0.05)
        works(served)
        assert value(served, 'errors_total{reason="UnicodeDecodeError"}') > 0
        assert value(served, 'refused_total{reason="http"}') > 0
        assert [record for record in caplog.records if record.levelno >= logging.INFO] == []
        assert capfd.readouterr() == ("", "")

    def test_debugging_shows_them(self, served: Prepared, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, "avsr"), raw_socket(served) as client:
            client.sendall(upgrade())
            client.recv(1000)
            client.sendall(frame(1, b"\xff"))
            closes(client)
        assert any("UTF-8" in record.message for record in caplog.records)

    def test_broken_pictures_write_nothing(self, served: Prepared, capfd: pytest.CaptureFixture[str]) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
        whole = cv2.imencode(".jpg", noise)[1].tobytes()
        with open_socket(served) as client:
            for number in range(6):
                client.send(picture(number / 25, whole[: -200 - number] + b"\xff\xd9"))
                time.sleep(0.02)
            client.send(STOP)
            events_until_closed(client)
        assert capfd.readouterr() == ("", "")

    def test_pictures_are_decoded_as_before(self) -> None:
        noise = np.random.default_rng(1).integers(0, 255, (95, 127, 3), np.uint8)
        for pixels, *options in (
            (noise, cv2.IMWRITE_JPEG_QUALITY, 40),
            (noise, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            (noise, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
            (noise[..., 0],),
        ):
            data = cv2.imencode(".jpg", pixels, options)[1]
            assert decode_jpeg(data.tobytes()).flags.writeable  # MediaPipe refuses others
            np.testing.assert_array_equal(decode_jpeg(data.tobytes()), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


class TestMetrics:
    def test_needs_the_token(self) -> None:
        with running(token=TOKEN) as served:
            assert get(served, "/metrics")[0] == get(served, "/metrics", Authorization="Bearer wrong")[0] == 403
            assert value(served, 'refused_total{reason="token"}', TOKEN) == 2

    def test_shows_what_was_sent(self) -> None:
        with running() as served:
            works(served)
            get(served, "/", Host="evil.example")
            text = get(served, "/metrics")[2]
            assert value(served, "sessions_total") == 1
            assert value(served, "frames_total") >= 57  # the hello, 55 blocks of sound, the stop
            assert value(served, "bytes_total") > 55 * 640
            assert value(served, 'refused_total{reason="host"}') == 1
            assert value(served, "connections_without_session") >= 1
            assert value(served, "max_sessions") == 4
        for line in text.splitlines():
            assert re.fullmatch(r'# (HELP|TYPE) avsr_\w+ .+|avsr_\w+(\{reason="\w+"\})? [\d.e-]+', line), line
        assert "127.0.0.1" not in text

    def test_one_line_a_minute(self, caplog: pytest.LogCaptureFixture) -> None:
        metrics = Metrics()
        for second in range(200):
            metrics.tick(float(second))
            if 10 <= second < 20:
                metrics.refuse("host")
                metrics.cut("frames")
            if second == 100:
                metrics.fail("UnicodeDecodeError")
        metrics.tell()
        metrics.tell()
        assert [record.message for record in caplog.records] == [
            "clients: refused 10 (host 10), cut 10 (frames 10)",
            "clients: errors 1 (UnicodeDecodeError 1)",
        ]
        assert SUMMARY_S == 60

    def test_ends_and_faults_are_no_refusals(self, caplog: pytest.LogCaptureFixture) -> None:
        metrics = Metrics()
        for reason in ("idle", "length", "fault", "token"):
            metrics.refuse(reason)
        metrics.tell()
        assert caplog.records[-1].message == (
            "clients: refused 1 (token 1), ended 2 (idle 1, length 1), failed 1 (fault 1)"
        )

    def test_long_holds_are_counted(self) -> None:
        metrics = Metrics()
        for seconds in (0.001, 0.03, 0.002):
            metrics.hold(seconds)
        assert metrics.longest_hold_s == 0.03
        assert metrics.totals["long_holds"] == 1


def test_failures_of_a_parser_concern_one_connection(served: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, raw_socket(served) as client:
        patched.setattr(transport.HttpTransport, "handle_events", fail)
        client.sendall(REQUEST)
        assert closes(client)
    assert value(served, 'errors_total{reason="ZeroDivisionError"}') == 1
    works(served)
