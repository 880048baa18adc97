"""The parts of `avsr serve` without server and browser: messages, limits, access, pictures, the threads."""

from __future__ import annotations

import random
import struct
import threading
import time

import cv2
import numpy as np
import pytest

from avsr.serving.access import Access, is_loopback, new_token
from avsr.serving.limits import Limits, Meter, RateLimit
from avsr.serving.pictures import decode_jpeg, jpeg_size
from avsr.serving.protocol import (
    CLOSE_CODES,
    Hello,
    PictureMessage,
    RefusalError,
    SoundMessage,
    read_hello,
    read_media,
    read_stop,
)
from avsr.serving.stream import LiveStream
from tests.fake_live import FakeSession


def media(kind: int, time_s: float, payload: bytes) -> bytes:
    return struct.pack("<Bd", kind, time_s) + payload


def jpeg(width: int = 64, height: int = 48, *options: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), (10, 200, 90), np.uint8), list(options))[1].tobytes()


class TestMessages:
    def test_sound_in_both_forms(self) -> None:
        samples = np.array([0.0, 0.5, -1.0], np.float32)
        for kind, payload in ((1, (samples * 32768).astype("<i2").tobytes()), (2, samples.tobytes())):
            sound = read_media(media(kind, 12.25, payload))
            assert isinstance(sound, SoundMessage)
            assert sound.time_s == 12.25
            assert sound.samples.dtype == np.float32
            assert sound.samples.tolist() == samples.tolist()

    def test_picture_is_not_looked_at(self) -> None:
        assert read_media(media(3, -1.5, b"anything")) == PictureMessage(-1.5, b"anything")

    def test_sound_beyond_full_scale_is_cut(self) -> None:
        sound = read_media(media(2, 0.0, np.array([3e38, -7.0], np.float32).tobytes()))
        assert isinstance(sound, SoundMessage)
        assert sound.samples.tolist() == [1.0, -1.0]

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\x01",
            media(1, 0.0, b""),
            media(0, 0.0, b"ab"),
            media(4, 0.0, b"ab"),
            media(1, float("nan"), b"ab"),
            media(1, float("inf"), b"ab"),
            media(3, 1e300, b"ab"),
            media(1, 0.0, b"abc"),
            media(2, 0.0, b"abcde"),
            media(1, 0.0, bytes(2 * 16001)),
            media(2, 0.0, np.array([np.nan], np.float32).tobytes()),
        ],
    )
    def test_what_cannot_be_is_refused(self, message: bytes) -> None:
        with pytest.raises(RefusalError) as refusal:
            read_media(message)
        assert refusal.value.code == "malformed"

    def test_hello(self) -> None:
        assert read_hello('{"type": "hello", "protocol": 1}') == Hello("", True)
        assert read_hello('{"type": "hello", "protocol": 1, "token": "x", "video": false, "more": 1}') == Hello(
            "x", False
        )

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "hello",
            "[]",
            "null",
            '{"type": "stop"}',
            '{"type": "hello"}',
            '{"type": "hello", "protocol": 2}',
            '{"type": "hello", "protocol": 1, "token": 5}',
            '{"type": "hello", "protocol": 1, "video": "yes"}',
            "[" * 4000,
            '{"type": "hello", "protocol": ' + "9" * 4000 + "}",
        ],
    )
    def test_other_hellos_are_refused(self, text: str) -> None:
        with pytest.raises(RefusalError) as refusal:
            read_hello(text)
        assert refusal.value.code == "malformed"
        assert len(str(refusal.value)) < 120

    def test_stop(self) -> None:
        read_stop('{"type": "stop"}')
        with pytest.raises(RefusalError):
            read_stop('{"type": "start"}')

    def test_garbage_is_refused_or_understood_and_nothing_else(self) -> None:
        draw = random.Random(1)
        for _ in range(3000):
            message = draw.randbytes(draw.randrange(40))
            if draw.random() < 0.7:
                message = media(draw.randrange(6), draw.choice([0.0, 5.0, draw.uniform(-1e10, 1e10)]), message)
            for read, given in ((read_media, message), (read_hello, message.decode("latin-1"))):
                try:
                    read(given)  # type: ignore[operator]
                except RefusalError as refusal:
                    assert refusal.code in CLOSE_CODES


class TestLimits:
    def test_rate_holds_in_the_long_run_and_lets_bursts_pass(self) -> None:
        limit = RateLimit(10.0, burst_s=2.0)
        assert [limit.take(1, 5.0) for _ in range(21)] == [True] * 20 + [False]
        limit = RateLimit(10.0, burst_s=2.0)
        assert all(limit.take(1, number / 10) for number in range(300))
        assert sum(RateLimit(10.0, burst_s=1.0).take(0.5, 0.0) for _ in range(3)) == 3

    def meter(self, **limits: float) -> tuple[Meter, list[float]]:
        now = [100.0]
        return Meter(Limits(**limits), clock=lambda: now[0]), now  # type: ignore[arg-type]

    def test_what_an_honest_client_sends_passes(self) -> None:
        meter, now = self.meter()
        samples = np.zeros(320, np.float32)
        for step in range(3000):  # a minute in which it is held up for two seconds
            now[0] = 100 + 0.02 * step + (2 if 1000 <= step < 1100 else 0)
            meter.message(649, is_text=False)
            meter.media(SoundMessage(7 + 0.02 * step, samples))
            if step % 2:
                meter.message(60000, is_text=False)
                meter.media(PictureMessage(7 + 0.02 * step, b""))

    @pytest.mark.parametrize(("size", "is_text"), [(256 * 1024 + 1, False), (4097, True)])
    def test_size(self, size: int, is_text: bool) -> None:
        meter, _ = self.meter()
        meter.message(size - 1, is_text=is_text)
        with pytest.raises(RefusalError, match="bytes") as refusal:
            meter.message(size, is_text=is_text)
        assert refusal.value.code == "size"

    def test_messages_pictures_and_sound_have_rates(self) -> None:
        meter, _ = self.meter()
        with pytest.raises(RefusalError, match="messages a second"):
            for _ in range(7000):
                meter.message(10, is_text=False)
        with pytest.raises(RefusalError, match="pictures a second"):
            for _ in range(2000):
                meter.media(PictureMessage(0.0, b""))
        with pytest.raises(RefusalError, match="sound faster"):
            for _ in range(40):
                meter.media(SoundMessage(0.0, np.zeros(16000, np.float32)))

    def test_silence_may_take_the_place_of_sound_but_no_more(self) -> None:
        meter, now = self.meter()
        for second in range(600):  # pictures alone
            now[0] += 1
            meter.silence(second + 1)
        meter.silence(635.0)
        with pytest.raises(RefusalError, match="times that run ahead") as refusal:
            meter.silence(645.0)
        assert refusal.value.code == "rate"


class TestAccess:
    here = Access("127.0.0.1", names=frozenset({"box"}))
    everywhere = Access("0.0.0.0", "a-token-of-some-length", names=frozenset({"box"}))

    @pytest.mark.parametrize(
        "host", ["localhost", "localhost:8765", "127.0.0.1:1", "127.0.0.2", "[::1]:8765", "LOCALHOST"]
    )
    def test_own_names_are_answered(self, host: str) -> None:
        for access in (self.here, self.everywhere):
            assert access.why_not([(b"host", host.encode())], is_websocket=False) is None

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "localhost.evil.example", "box", "10.0.0.1", "", "a@localhost", "[::1", "::1", "localhost:x"],
    )
    def test_other_names_are_not(self, host: str) -> None:
        assert self.here.why_not([(b"host", host.encode())], is_websocket=False) is not None

    def test_one_name_exactly(self) -> None:
        assert self.here.why_not([], is_websocket=False) is not None
        assert self.here.why_not([(b"host", b"localhost"), (b"host", b"evil.example")], is_websocket=False) is not None

    def test_open_to_the_network_addresses_and_own_names_count(self) -> None:
        for host, is_fine in (
            ("10.0.0.1:8765", True),
            ("[fe80::1]", True),
            ("box:8765", True),
            ("evil.example", False),
        ):
            assert (self.everywhere.why_not([(b"host", host.encode())], is_websocket=True) is None) == is_fine

    @pytest.mark.parametrize(
        ("origin", "is_fine"),
        [
            ("http://localhost:8765", True),
            ("https://localhost:8765", True),
            ("http://localhost:3000", False),
            ("http://127.0.0.1:8765", False),
            ("http://localhost", False),
            ("https://evil.example", False),
            ("null", False),
            ("", False),
        ],
    )
    def test_websockets_come_from_the_own_page(self, origin: str, is_fine: bool) -> None:
        headers = [(b"host", b"localhost:8765"), (b"origin", origin.encode())]
        assert (self.here.why_not(headers, is_websocket=True) is None) == is_fine

    def test_programs_without_an_origin_may(self) -> None:
        assert self.here.why_not([(b"host", b"localhost:8765")], is_websocket=True) is None

    def test_token(self) -> None:
        assert self.here.accepts("") and self.here.accepts("anything")
        assert self.everywhere.accepts("a-token-of-some-length")
        for wrong in ("", "a-token-of-some-lengt", "a-token-of-some-lengthy", "\ud800", "é" * 22):
            assert not self.everywhere.accepts(wrong)
        assert len({new_token() for _ in range(50)}) == 50
        assert all(len(new_token()) >= 32 for _ in range(50))

    def test_address_of_the_page(self) -> None:
        assert self.here.url(80) == "http://127.0.0.1:80/"
        assert self.everywhere.url(8765) == "http://127.0.0.1:8765/?token=a-token-of-some-length"
        assert Access("::1", None).url(1) == "http://[::1]:1/"

    def test_loopback(self) -> None:
        assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
        assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "box", "")] == [False] * 5


class TestPictures:
    @pytest.mark.parametrize("size", [(32, 32), (640, 480), (1280, 720), (720, 1280)])
    def test_within_bounds(self, size: tuple[int, int]) -> None:
        data = jpeg(*size)
        assert jpeg_size(data) == size
        rgb = decode_jpeg(data)
        assert rgb.shape == (size[1], size[0], 3)
        assert np.abs(rgb[10, 10].astype(int) - (90, 200, 10)).max() < 6

    def test_progressive_and_grey(self) -> None:
        assert decode_jpeg(jpeg(64, 48, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)).shape == (48, 64, 3)
        grey = cv2.imencode(".jpg", np.full((48, 64), 9, np.uint8))[1].tobytes()
        assert decode_jpeg(grey).shape == (48, 64, 3)

    @pytest.mark.parametrize("size", [(1281, 720), (1280, 721), (31, 400), (8000, 8000)])
    def test_out_of_bounds_is_known_from_the_header(self, size: tuple[int, int]) -> None:
        header = jpeg(64, 48)[:400]  # nothing to decode
        at = header.index(b"\xff\xc0") + 5
        forged = header[:at] + struct.pack(">HH", size[1], size[0]) + header[at + 4 :]
        with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
            jpeg_size(forged)

    def test_size_that_is_not_that_of_the_picture(self) -> None:
        data = jpeg(64, 48)
        at = data.index(b"\xff\xc0") + 5
        forged = data[:at] + struct.pack(">HH", 720, 1280) + data[at + 4 :]
        try:
            assert decode_jpeg(forged).shape == (720, 1280, 3)  # what is missing is grey
        except ValueError:
            pass

    def test_many_scans_are_refused(self) -> None:
        with pytest.raises(ValueError, match="scans"):
            decode_jpeg(jpeg(64, 48, cv2.IMWRITE_JPEG_PROGRESSIVE, 1) + b"\xff\xda" * 30)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff\xd8",
            b"\xff\xd8\xff\xd9",
            b"\x89PNG\r\n\x1a\n" + bytes(50),
            b"\xff\xd8" + b"\xff\xe0\x00\x02" * 500,
        ]
        + [jpeg()[:length] for length in (3, 20, 100, 300)],
    )
    def test_broken_ones_raise_value_error_alone(self, data: bytes) -> None:
        with pytest.raises(ValueError):
            decode_jpeg(data)

    def test_any_damage(self) -> None:
        draw = random.Random(2)
        whole = jpeg(200, 160)
        for _ in range(400):
            data = bytearray(whole)
            for _ in range(draw.randrange(1, 6)):
                data[draw.randrange(len(data))] = draw.randrange(256)
            try:
                rgb = decode_jpeg(bytes(data[: draw.randrange(len(data) // 2, len(data) + 1)]))
            except ValueError:
                continue
            assert rgb.shape[0] * rgb.shape[1] <= 1280 * 720


class TestStream:
    """One session in its threads."""

    def open(self, session: FakeSession, **limits: float) -> LiveStream:
        self.said: list[dict] = []
        self.done = threading.Event()
        self.failure: BaseException | None = None

        def end(error: BaseException | None) -> None:
            self.failure = error
            self.done.set()

        stream = LiveStream(
            lambda: session,
            on_document=self.said.append,
            on_end=end,
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
        stream.start()
        return stream

    def events(self, kind: str) -> list[dict]:
        return [document for document in self.said if document["event"] == kind]

    def test_sound_and_pictures_have_a_thread_each(self) -> None:
        session = FakeSession(video=True)
        stream = self.open(session, hurry_s=10.0)
        for second in range(3):
            stream.add(SoundMessage(float(second), np.zeros(16000, np.float32)))
            stream.add(PictureMessage(float(second), jpeg()))
        stream.finish()
        assert self.done.wait(10)
        assert self.failure is None
        assert session.is_closed
        assert len(session.threads) == 2
        assert threading.current_thread().name not in session.threads
        assert self.events("final")[0]["text"] == "word0 word1 word2"
        counters = self.events("counters")[0]["counters"]
        assert {name: count for name, count in counters.items() if count} == {
            "pictures": 3,
            "used": 3,
            "samples": 48000,
        }
        assert self.said[-1]["event"] in ("counters", "status")

    def test_slow_pictures_are_dropped_oldest_first_and_sound_is_not(self) -> None:
        stream = self.open(FakeSession(video=True, picture_s=0.05), queued_pictures=3)
        for number in range(50):
            stream.add(PictureMessage(number / 25, jpeg()))
        stream.add(SoundMessage(0.0, np.zeros(4800, np.float32)))
        stream.finish()
        assert self.done.wait(10)
        counters = self.events("counters")[0]["counters"]
        assert counters["samples"] == 4800
        assert 3 <= counters["pictures"] <= 5

    def test_sound_that_is_behind_goes_before_pictures(self) -> None:
        stream = self.open(FakeSession(video=True, sound_s=0.02), hurry_s=0.5, queued_sound_s=4.0)
        for number in range(4):
            stream.add(SoundMessage(float(number), np.zeros(16000, np.float32)))
        time.sleep(0.05)
        for number in range(20):
            stream.add(PictureMessage(number / 25, jpeg()))
        stream.finish()
        assert self.done.wait(10)
        counters = self.events("counters")[0]["counters"]
        assert counters["samples"] == 64000
        assert counters["pictures"] < 6

    def test_sound_of_a_machine_that_is_too_slow_is_bounded(self) -> None:
        stream = self.open(FakeSession(video=False, sound_s=0.02), queued_sound_s=2.0)
        for number in range(100):
            stream.add(SoundMessage(float(number), np.zeros(16000, np.float32)))
        stream.finish()
        assert self.done.wait(10)
        assert self.events("counters")[0]["counters"]["samples"] <= 4 * 16000

    def test_failure_ends_it(self) -> None:
        session = FakeSession(video=False)
        stream = self.open(session)
        stream.add(SoundMessage(0.0, np.full(320, 0.5, np.float32)))
        assert self.done.wait(10)
        assert isinstance(self.failure, RuntimeError)
        assert session.is_closed
        stream.add(SoundMessage(1.0, np.zeros(320, np.float32)))  # of no use, and no harm

    def test_a_broken_picture_is_left_out_and_many_end_it(self) -> None:
        stream = self.open(FakeSession(video=True))
        for number in range(4):
            stream.add(PictureMessage(float(number), b"broken"))
        stream.add(PictureMessage(9.0, jpeg()))
        stream.finish()
        assert self.done.wait(10)
        assert self.failure is None
        assert self.events("counters")[0]["counters"]["pictures"] == 1

        stream = self.open(FakeSession(video=True), queued_pictures=100)
        for number in range(12):
            stream.add(PictureMessage(float(number), b"broken"))
        assert self.done.wait(10)
        assert isinstance(self.failure, RefusalError)
        assert self.failure.code == "malformed"

    def test_closing_says_nothing_more(self) -> None:
        stream = self.open(FakeSession(video=False, sound_s=0.05))
        for number in range(5):
            stream.add(SoundMessage(float(number), np.zeros(16000, np.float32)))
        stream.close()
        said = len(self.said)
        assert self.done.wait(10)
        assert len(self.said) <= said + 1
        assert not self.events("final")
