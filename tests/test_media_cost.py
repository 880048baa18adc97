"""A media file of few bytes costs little: gaps, tables, sizes, steps and hours are bounded. Honest files are read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.packet import Packet

from avsr.account import Account
from avsr.cli.main import main
from avsr.errors import ConfigError, MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.lips import tracks as lip_tracks
from avsr.media import budget, iter_audio, iter_frames, probe, read_audio
from avsr.media.boxes import check_tables
from avsr.offline.source import open_source

PCM = b"\x10\x00\xf0\xff" * 80  # 10 ms at 16 kHz


def write_packets(path: Path, times_s: Iterable[float], data: bytes = PCM) -> Path:
    """Sound of 16-bit samples at 16 kHz, in one packet at each time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        for time_s in times_s:
            packet = Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = round(time_s * 1000)
            container.mux(packet)
    return path


def write_pictures(
    path: Path, times_s: Iterable[float], sound_at_s: float | None = None, tracks: int = 1, is_noisy: bool = False
) -> Path:
    """Grey pictures of 64 x 48. sound_at_s: when a second of sound begins; None: no sound. is_noisy: noise too."""
    noise = np.random.default_rng(3).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    grey = np.full((48, 64, 3), 90, np.uint8)
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(tracks)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = None
        if sound_at_s is not None:
            sound = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        for number, time_s in enumerate(times_s):
            picture = noise if number % 2 and is_noisy else grey
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.time_base, frame.pts = Fraction(1, 1000), round(time_s * 1000)
            for stream in streams:
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
        if sound is not None:
            packet = Packet(b"\x00\x20" * SAMPLE_RATE_HZ)
            packet.stream, packet.time_base = sound, Fraction(1, 1000)
            packet.pts = packet.dts = round((sound_at_s or 0.0) * 1000)
            container.mux(packet)
    return path


def write_sound(
    path: Path, codec: str, form: str, samples: np.ndarray, layout: str = "mono", rate: int = 16_000
) -> Path:
    """Sound in a sample format. samples: [C, S] in [-1, 1]."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.codec_context.format = form
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate
        for converted in av.AudioResampler(format=form, layout=layout, rate=rate).resample(frame):
            container.mux(stream.encode(converted))
        container.mux(stream.encode())
    return path


def heard_s(path: Path, account: Account) -> float:
    return sum(map(len, iter_audio(path, account=account))) / SAMPLE_RATE_HZ


@pytest.mark.parametrize(
    ("suffix", "step_s", "count"), [(".mkv", 599.0, 12), (".mka", 300.0, 40), (".nut", 599.0, 100), (".mkv", 60.0, 200)]
)
def test_gaps_without_sound_are_bounded_by_the_bytes(tmp_path: Path, suffix: str, step_s: float, count: int) -> None:
    path = write_packets(tmp_path / f"gaps{suffix}", (step_s * k for k in range(count)))
    account = Account()
    most_s = budget.FREE_S + count * len(PCM) / budget.BYTES_PER_SECOND
    assert most_s < step_s * count
    assert heard_s(path, account) <= most_s + 0.1
    assert account["samples"].missing == 0
    assert account["samples"].lost["beyond the limit"] > 0
    assert any("is not read: so few bytes" in line for line in account.losses())


def test_pictures_far_apart_are_bounded_by_the_bytes(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "slow.mkv", (599.0 * k for k in range(12)))
    account = Account()
    assert max(frame.time_s for frame in iter_frames(path, account=account)) < 2000.0
    assert account["pictures"].lost["beyond the limit"] == 1 and account["pictures"].missing == 0
    assert any("the picture from" in line for line in account.losses())


def test_a_recording_with_long_pauses_is_read_whole(tmp_path: Path) -> None:
    """A camera that films 10 s every 5 minutes."""
    data = b"\x00\x20" * SAMPLE_RATE_HZ
    path = write_packets(tmp_path / "pauses.mkv", (310.0 * k + second for k in range(9) for second in range(10)), data)
    account = Account()
    assert heard_s(path, account) == pytest.approx(8 * 310 + 10, abs=0.1)
    assert not account.losses()


def test_sound_that_begins_40_minutes_late_keeps_its_place(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "late.mkv", (5.0 * k for k in range(482)), sound_at_s=2400.0, is_noisy=True)
    account = Account()
    sound = read_audio(path, account=account)
    assert np.flatnonzero(np.abs(sound) > 0.1)[0] / SAMPLE_RATE_HZ == pytest.approx(2400.0, abs=0.1)
    assert not account.losses()


@pytest.mark.parametrize(
    ("suffix", "codec", "form"), [(".flac", "flac", "s16"), (".wv", "wavpack", "s16p"), (".m4a", "alac", "s16p")]
)
def test_silence_of_few_bytes_is_cut(
    tmp_path: Path, suffix: str, codec: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sound(tmp_path / f"still{suffix}", codec, form, np.zeros((1, 60 * 16_000)))
    assert heard_s(path, Account()) == pytest.approx(60.0, abs=0.5)
    monkeypatch.setattr(budget, "FREE_S", 5.0)
    monkeypatch.setattr(budget, "BYTES_PER_SECOND", 10_000)
    account = Account()
    assert 3.0 < heard_s(path, account) < 30.0
    assert account["samples"].missing == 0 and account["samples"].lost["beyond the limit"] > 0


def test_large_pictures_are_bounded_by_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pictures(tmp_path / "many.mkv", (0.04 * k for k in range(100)))
    assert len(list(iter_frames(path))) == 100
    monkeypatch.setattr(budget, "FREE_PIXELS", 64 * 48 * 10)
    monkeypatch.setattr(budget, "PIXELS_PER_BYTE", 1)
    account = Account()
    assert 10 <= len(list(iter_frames(path, account=account))) < 50
    assert any("billion pixels come from so few bytes" in line for line in account.losses())


def test_many_values_are_bounded_by_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sound(tmp_path / "wide.flac", "flac", "s16", np.zeros((6, 160_000)), layout="5.1")
    assert heard_s(path, Account()) == pytest.approx(10.0, abs=0.01)
    monkeypatch.setattr(budget, "FREE_VALUES", 400_000)
    monkeypatch.setattr(budget, "VALUES_PER_BYTE", 1)
    account = Account()
    assert 2.0 < heard_s(path, account) < 6.0
    assert account["samples"].missing == 0
    assert any("billion samples come from so few bytes" in line for line in account.losses())


@pytest.mark.parametrize("size", [(8192, 8192), (8448, 16), (16, 8448)])
def test_pictures_that_are_too_large_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "large.y4m"
    path.write_bytes(b"YUV4MPEG2 W%d H%d F25:1 Ip A1:1 C420jpeg\nFRAME\n" % size + bytes(1 << 20))
    with pytest.raises(MediaError, match="too large|cannot be opened"):
        list(iter_frames(path))


def test_film_in_8k_is_not_too_large(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(7680, 4320, "yuv420p")))
        container.mux(stream.encode())
    assert [(frame.picture.width, frame.picture.height) for frame in iter_frames(path)] == [(1920, 1080)]


# Tables of MP4.


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def fragment(*counts: int) -> bytes:
    runs = [box(b"trun", struct.pack(">II", 0, count)) for count in counts]
    return box(b"moof", box(b"traf", *runs))


def edits(count: int, samples: int) -> bytes:
    table = box(b"stsz", struct.pack(">III", 0, 20, samples))
    media = box(b"mdia", box(b"minf", box(b"stbl", table)))
    return box(b"moov", box(b"trak", box(b"edts", box(b"elst", struct.pack(">II", 0, count))), media))


def packed(description: bytes) -> bytes:
    body = struct.pack(">I", len(description)) + zlib.compress(description)
    return box(b"moov", box(b"cmov", box(b"dcom", b"zlib"), box(b"cmvd", body)))


def cut_off(data: bytes) -> bytes:
    return data[:-1]


@pytest.mark.parametrize(
    "tables",
    [
        fragment(50_000_000),
        fragment(*[500_000] * 10),
        b"".join(fragment(2**32 - 1) for _ in range(3)),
        edits(10_000, 5_000),
        edits(2**32 - 1, 100_000) + bytes(100_000),
        packed(edits(100_000, 90_000)) + bytes(10_000),
        packed(fragment(2**31)),
        cut_off(fragment(2**31) + bytes(9)),
    ],
)
def test_tables_that_claim_more_than_the_file_holds_are_refused(tmp_path: Path, tables: bytes) -> None:
    path = tmp_path / "tables.mp4"
    path.write_bytes(box(b"ftyp", b"isom\0\0\2\0isom") + tables + box(b"mdat", bytes(4000)))
    with pytest.raises(MediaError, match="the description of the recording is absurd"):
        probe(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"RIFF\x10\0\0\0WAVE", box(b"moov") * 50, b"\0\0\0\7moov" * 9])
def test_other_files_pass_the_check_of_tables(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    check_tables(path)


@pytest.mark.parametrize("flags", ["", "frag_keyframe+empty_moov", "faststart"])
def test_ordinary_tables_pass(tmp_path: Path, flags: str) -> None:
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 64_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert heard_s(path, Account()) == pytest.approx(4.0, abs=0.2)


# Steps of the clock.


def write_flv(path: Path, times_ms: Iterable[int]) -> Path:
    """Sound packets of two samples, each with any time."""
    data = b"FLV\1\4\0\0\0\x09\0\0\0\0"
    for time_ms in times_ms:
        body = b"\x3e\x10\0\x20\0"
        time = (time_ms & 0xFFFFFF).to_bytes(3, "big") + bytes([time_ms >> 24])
        tag = b"\x08" + len(body).to_bytes(3, "big") + time + b"\0\0\0" + body
        data += tag + len(tag).to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("far_ms", [900_000, 2_000_000, 80_000_000])
def test_a_clock_that_steps_at_each_packet_costs_no_search_each(
    tmp_path: Path, far_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "FREE_STEPS", 100)
    path = write_flv(tmp_path / "steps.flv", (far_ms * (k % 2) + k for k in range(600)))
    account = Account()
    assert heard_s(path, account) < 1810.0
    assert any("the clock steps too often for so few bytes" in line for line in account.lines())
    assert account["samples"].missing == 0


def test_joined_clips_are_followed_however_many(tmp_path: Path) -> None:
    path = write_flv(tmp_path / "joined.flv", (k % 10 * 1000 for k in range(2000)))
    account = Account()
    heard_s(path, account)
    assert not any("too often" in line for line in account.lines())


# Hours.


@pytest.mark.parametrize("suffix", [".mkv", ".nut", ".flv"])
def test_a_file_that_states_too_many_hours_is_refused(tmp_path: Path, suffix: str) -> None:
    times_s = [500.0 * k for k in range(200)]
    if suffix == ".flv":
        path = write_flv(tmp_path / "long.flv", [round(1000 * time_s) for time_s in times_s])
    else:
        path = write_packets(tmp_path / f"long{suffix}", times_s)
    with pytest.raises(MediaError, match="too long: got 27:.*expected at most 24:00:00.*--max-hours 28"):
        probe(path)
    assert probe(path, max_hours=28.0).duration_s == pytest.approx(99_500, rel=0.01)


def test_a_file_that_turns_out_to_be_too_long_is_cut_with_a_line(tmp_path: Path) -> None:
    path = write_packets(tmp_path / "long.wav", [float(k) for k in range(20)], bytes(32_000))
    account = Account()
    blocks = list(iter_audio(path, account=account, max_hours=10 / 3600))
    assert sum(map(len, blocks)) / SAMPLE_RATE_HZ == pytest.approx(10.0, abs=1.0)
    assert any(
        "lasts longer than 0:00:10 (h:mm:ss); --max-hours sets another limit" in line for line in account.losses()
    )
    assert account["samples"].missing == 0


@pytest.mark.parametrize("command", [["doctor"], ["transcribe", "--model", "grid-tiny"]])
def test_the_option_refuses_and_permits(tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_packets(tmp_path / "long.wav", [float(k) for k in range(8)], b"\x00\x20" * SAMPLE_RATE_HZ))
    assert main([*command, "--max-hours", "0.001", path]) == 1
    output = "".join(capsys.readouterr())
    assert "the recording is too long" in output and "Traceback" not in output
    main([*command, "--max-hours", "0.01", path])
    assert "too long" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan")])
def test_hours_that_are_none_are_refused(hours: float) -> None:
    with pytest.raises(ConfigError, match="wrong max_hours"), open_source("any.wav", max_hours=hours):
        pass


# Sample formats.


@pytest.mark.parametrize(
    ("suffix", "codec", "form"),
    [
        (".wav", "pcm_u8", "u8"),
        (".wav", "pcm_s16le", "s16"),
        (".wav", "pcm_s24le", "s32"),
        (".wav", "pcm_s32le", "s32"),
        (".wav", "pcm_s64le", "s64"),
        (".w64", "pcm_s64le", "s64"),
        (".caf", "pcm_f64be", "dbl"),
        (".wav", "pcm_f32le", "flt"),
        (".wav", "pcm_f64le", "dbl"),
        (".wv", "wavpack", "u8p"),
        (".wv", "wavpack", "s16p"),
        (".wv", "wavpack", "s32p"),
        (".wv", "wavpack", "fltp"),
        (".m4a", "alac", "s16p"),
        (".m4a", "alac", "s32p"),
        (".aif", "pcm_s16be", "s16"),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_every_sample_format_is_read_at_its_level(
    tmp_path: Path, suffix: str, codec: str, form: str, layout: str
) -> None:
    wave = 0.5 * np.sin(np.arange(16_000) * 0.05)
    channels = 1 if layout == "mono" else 2
    try:
        path = write_sound(tmp_path / f"sound{suffix}", codec, form, np.stack([wave] * channels), layout)
    except (av.FFmpegError, ValueError) as error:
        pytest.skip(f"this FFmpeg cannot write {codec} {form} in {suffix}: {error}")
    sound = read_audio(path)
    assert np.abs(sound[: len(wave)] - wave[: len(sound)]).max() < (0.02 if form.startswith("u8") else 0.001)


# Tracks.


def test_faces_are_looked_for_in_a_bounded_number_of_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pictures(tmp_path / "tracks.mkv", [0.0, 0.04, 0.08], tracks=12)
    asked: list[int] = []

    def see(_path: object, numbers: list[int], _duration_s: float | None) -> dict[int, object]:
        asked.extend(numbers)
        return {number: lip_tracks._Faces(0, 0) for number in numbers}

    monkeypatch.setattr(lip_tracks, "_count_faces", see)
    account = Account()
    lip_tracks.probe_faces(path, account=account)
    assert asked == list(range(1, lip_tracks.MAX_TRACKS + 1))
    assert any("first 8 of 12 video tracks" in line for line in account.lines())


@pytest.mark.parametrize("channels", [64, 65])
def test_many_channels_at_a_high_rate(tmp_path: Path, channels: int) -> None:
    data = bytes(2 * channels * 4000)
    form = struct.pack("<HHIIHH", 1, channels, 768_000, 768_000 * channels * 2, channels * 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    path = tmp_path / "wide.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    if channels > 64:
        with pytest.raises(MediaError):
            read_audio(path)
    else:
        assert len(read_audio(path)) == pytest.approx(4000 / 48, abs=2)


def png(side: int) -> bytes:
    """A black picture, in a thousandth of its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((1 + 3 * side) * side), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_covers_are_not_decoded(tmp_path: Path) -> None:
    import resource

    sound = tmp_path / "sound.flac"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("flac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), 1000, np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    plain = sound.read_bytes()
    cover = png(3000)
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 0, 0, 0, 0, len(cover)) + cover
    first = 4 + 4 + 34  # the signature and the block with the facts of the stream
    pictures = (bytes([6]) + len(block).to_bytes(3, "big") + block) * 40
    with_covers = tmp_path / "covers.flac"
    with_covers.write_bytes(plain[:4] + bytes([plain[4] & 0x7F]) + plain[5:first] + pictures + plain[first:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(map(len, iter_audio(with_covers))) == sum(map(len, iter_audio(sound))) == 16_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB; decoded they take 1 GB
