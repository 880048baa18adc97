"""Reading media: times, gaps, channels, rotation, damage, and hostile files."""

from __future__ import annotations

import itertools
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from avsr.account import Account
from avsr.errors import MediaError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media import (
    MEDIA_SUFFIXES,
    SOUND_SUFFIXES,
    VIDEO_SUFFIXES,
    iter_audio,
    iter_frames,
    probe,
    read_ahead,
    read_audio,
)
from avsr.media.types import FORMAT_NAMES, HEAD_BYTES, is_media_head, media_stem
from avsr.media.video import MAX_SIDE_PX, square_pixel_size
from tests.media import shared_clip

MS = Fraction(1, 1000)


def write_sound(path: Path, pieces: list[tuple[float, np.ndarray]], rate: int = 48_000) -> Path:
    """A PCM file of pieces, each with its start in seconds and its samples [C, S] in [-1, 1]."""
    layouts = {1: "mono", 2: "stereo", 6: "5.1"}
    with av.open(str(path), "w") as container:
        layout = layouts[len(pieces[0][1])]
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        for start_s, samples in pieces:
            data = np.round(samples * 32767).astype(np.int16).T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="s16", layout=layout)
            frame.sample_rate = rate
            frame.time_base = Fraction(1, rate)
            frame.pts = round(start_s * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_video(
    path: Path,
    times_s: list[float],
    size: tuple[int, int] = (64, 48),
    codec: str = "mpeg4",
    sample_aspect: Fraction | None = None,
    sound_s: tuple[float, float] | None = None,
) -> Path:
    """A video of grey pictures. Picture k is shown at times_s[k] and has brightness 40 + k.

    sound_s: start and length of its sound in seconds; None: no sound.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = MS
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        sound = None if sound_s is None else container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        for number, time_s in enumerate(times_s):
            picture = np.full((size[1], size[0], 3), 40 + number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.time_base = MS
            frame.pts = round(time_s * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None and sound_s is not None:
            data = np.full((1, round(sound_s[1] * SAMPLE_RATE_HZ)), 8000, np.int16)
            frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HZ
            frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
            frame.pts = round(sound_s[0] * SAMPLE_RATE_HZ)
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return path


def tone(seconds: float, rate: int, hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


# --- sound ---


def test_a_pipe_is_called_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "talk.mp4")
    with pytest.raises(
        MediaError, match="cannot be read as media: got a pipe, expected a file; write it to a file first"
    ):
        probe(tmp_path / "talk.mp4")
    with pytest.raises(MediaError, match="got a device or socket"):
        probe("/dev/null")


def test_all_channels_count_the_same_and_keep_their_level(tmp_path: Path) -> None:
    left = tone(0.5, 48_000)
    samples = read_audio(write_sound(tmp_path / "a.wav", [(0.0, np.stack([left, np.zeros_like(left)]))]))
    expected = 0.5 * tone(0.5, SAMPLE_RATE_HZ)
    assert samples.dtype == np.float32
    assert abs(len(samples) - len(expected)) <= 1
    np.testing.assert_allclose(samples[200:-200], expected[200 : len(samples) - 200], atol=2e-3)


def test_many_planar_channels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="7.1")
        data = np.repeat(np.round(tone(0.5, 48_000) * 32767).astype(np.int16), 8)[None]
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout="7.1")
        frame.sample_rate = 48_000
        frame.time_base = Fraction(1, 48_000)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    samples = read_audio(path)
    assert len(samples) >= 0.5 * SAMPLE_RATE_HZ - 1
    assert 0.2 < np.abs(samples[2000:6000]).max() < 0.6


def test_sound_at_16_khz_passes_unchanged(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(-0.9, 0.9, (1, 4000))
    samples = read_audio(write_sound(tmp_path / "a.wav", [(0.0, values)], rate=SAMPLE_RATE_HZ))
    np.testing.assert_allclose(samples, values[0], atol=1e-4)


def test_gaps_are_silence_and_overlaps_are_cut(tmp_path: Path) -> None:
    loud = np.full((1, 8000), 0.5)
    path = write_sound(tmp_path / "a.mkv", [(0.0, loud), (1.0, loud), (1.25, loud)], rate=SAMPLE_RATE_HZ)
    samples = read_audio(path)
    assert len(samples) == pytest.approx(1.75 * SAMPLE_RATE_HZ, abs=16)
    assert np.all(samples[: 8000 - 16] > 0.4)
    assert np.all(samples[8000 + 16 : 16_000 - 16] == 0)
    assert np.all(samples[16_000 + 16 :] > 0.4)


def test_blocks_are_short_whatever_the_gap(tmp_path: Path) -> None:
    loud = np.full((1, 1600), 0.5)
    path = write_sound(tmp_path / "a.mkv", [(0.0, loud), (30.0, loud)], rate=SAMPLE_RATE_HZ)
    blocks = list(iter_audio(path))
    assert max(len(block) for block in blocks) <= SAMPLE_RATE_HZ
    assert sum(len(block) for block in blocks) == pytest.approx(30.1 * SAMPLE_RATE_HZ, abs=32)


def test_a_clock_far_ahead_is_a_joint_and_costs_no_silence(tmp_path: Path) -> None:
    loud = np.full((1, 1600), 0.5)
    account = Account()
    path = write_sound(tmp_path / "a.mkv", [(0.0, loud), (90_000.0, loud)], rate=SAMPLE_RATE_HZ)
    samples = read_audio(path, account=account)
    assert len(samples) == 3200 and np.all(samples[100:-100] > 0.4)
    assert len(account.lines()) == 1 and "jumps ahead by 89999.90 s at 0.10 s" in account.lines()[0]


def test_late_sound_keeps_its_offset_to_the_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [0.0, 0.04, 0.08], sound_s=(0.4, 0.2))
    samples = read_audio(path)
    assert np.all(samples[: round(0.399 * SAMPLE_RATE_HZ)] == 0)
    assert np.all(samples[round(0.401 * SAMPLE_RATE_HZ) :] > 0.2)
    assert probe(path).audio.start_s == pytest.approx(0.4, abs=1e-3)


def test_late_picture_keeps_its_offset_to_the_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [5.3, 5.34], sound_s=(5.0, 0.5))
    assert [frame.time_s for frame in iter_frames(path)] == pytest.approx([0.3, 0.34], abs=1e-3)
    assert len(read_audio(path)) == pytest.approx(0.5 * SAMPLE_RATE_HZ, abs=1)


# --- picture ---


def test_times_are_those_of_the_file_not_counted(tmp_path: Path) -> None:
    times_s = [0.0, 0.033, 0.1, 0.3, 0.304]
    frames = list(iter_frames(write_video(tmp_path / "a.mkv", times_s)))
    assert [frame.time_s for frame in frames] == pytest.approx(times_s, abs=1e-3)
    assert all(abs(int(frame.rgb.mean()) - 40 - number) <= 3 for number, frame in enumerate(frames))
    assert frames[0].rgb.shape == (48, 64, 3) and frames[0].rgb.dtype == np.uint8


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", [0.0, 0.04], sample_aspect=Fraction(2, 1))
    assert next(iter_frames(path)).rgb.shape == (48, 128, 3)
    info = probe(path).video
    assert (info.width, info.height, info.sample_aspect_ratio) == (128, 48, 2.0)


def test_large_pictures_are_bounded() -> None:
    assert square_pixel_size(3840, 2160, 1.0) == (1920, 1080)
    assert square_pixel_size(1080, 1920, 1.0) == (1080, 1920)
    assert max(square_pixel_size(8192, 16, 5.0)) == MAX_SIDE_PX


@pytest.mark.parametrize(
    ("name", "turned_by", "size"),
    [("rotated_minus90_metadata_30fps.mp4", 270, (400, 700)), ("rotated_180_metadata.mp4", 180, (360, 288))],
)
def test_rotation_is_applied(name: str, turned_by: int, size: tuple[int, int]) -> None:
    path = shared_clip(name)
    info = probe(path).video
    assert (info.rotation_deg, info.width, info.height) == (turned_by, *size)
    assert next(iter_frames(path)).rgb.shape == (size[1], size[0], 3)


def test_rotation_by_180_degrees_undoes_a_picture_stored_upside_down() -> None:
    upright = next(iter_frames(shared_clip("rotated_180_metadata.mp4"))).rgb.astype(int)
    upside_down = next(iter_frames(shared_clip("upside_down_pixels.mp4"))).rgb.astype(int)
    assert np.abs(upright - upside_down[::-1, ::-1]).mean() < 3


@pytest.mark.parametrize(
    ("name", "num_frames", "seconds_of_sound"),
    [
        ("grid_bbaf2n.mpg", 75, 2.978),
        ("man_700_odd_rate.mp4", 135, 6.107),
        ("elderly_man_turned_dark_2997.mp4", 209, 6.985),  # 266 pictures stored, an edit list shows 209
        ("no_face_animation_51ch.mp4", 132, 5.312),
        ("hevc_10bit.mp4", 75, 3.019),
        ("vp9_opus.webm", 75, 2.978),
        ("audio_starts_400ms_late.mp4", 75, 3.395),
        ("video_only.mp4", 75, None),
        ("audio_only.mp4", None, 2.995),
    ],
)
def test_real_files(name: str, num_frames: int | None, seconds_of_sound: float | None) -> None:
    path = shared_clip(name)
    warnings: list[str] = []
    if num_frames is None:
        with pytest.raises(MediaError, match="has no video"):
            next(iter_frames(path))
    else:
        times_s = [frame.time_s for frame in iter_frames(path, account=Account(warnings.append))]
        assert len(times_s) == num_frames
        assert all(before < after for before, after in itertools.pairwise(times_s))
    if seconds_of_sound is None:
        with pytest.raises(MediaError, match="has no sound"):
            next(iter_audio(path))
    else:
        samples = read_audio(path, account=Account(warnings.append))
        assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(seconds_of_sound, abs=0.01)
        assert np.abs(samples).max() < 1.1
    assert not warnings


def test_sound_that_starts_late_in_a_real_file() -> None:
    samples = read_audio(shared_clip("audio_starts_400ms_late.mp4"))
    on_time = read_audio(shared_clip("grid_bbaf2n.mpg"))
    delay = np.abs(samples).argmax() - np.abs(on_time).argmax()
    assert delay / SAMPLE_RATE_HZ == pytest.approx(0.4, abs=0.02)


# --- damage and bad input ---


def test_a_truncated_file_gives_what_it_has_and_one_warning_each() -> None:
    path = shared_clip("truncated_faststart.mp4")
    of_picture: list[str] = []
    of_sound: list[str] = []
    assert 31 <= len(list(iter_frames(path, account=Account(of_picture.append)))) <= 33
    assert 1.2 < len(read_audio(path, account=Account(of_sound.append))) / SAMPLE_RATE_HZ < 1.4
    assert len(of_picture) == 1 and "the video is damaged at 1.2" in of_picture[0]
    assert len(of_sound) == 1 and "the file states 2.98 s" in of_sound[0]


def test_damage_in_the_middle_is_skipped(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [number * 0.04 for number in range(50)], codec="libx264")
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + 4 + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 40] = bytes(np.random.default_rng(1).integers(0, 256, 40, dtype=np.uint8))
    path.write_bytes(data)
    warnings: list[str] = []
    frames = list(iter_frames(path, account=Account(warnings.append)))
    assert 40 <= len(frames) < 50
    assert frames[-1].time_s == pytest.approx(49 * 0.04, abs=1e-3)
    assert len(warnings) == 1 and "the video is damaged at" in warnings[0]


# PyAV writes these formats, but does not know them by the suffix.
WRITERS = {
    ".m4r": "mp4", ".f4a": "mp4", ".mj2": "mp4", ".qt": "mov", ".3gpp": "3gp", ".3gp2": "3g2", ".mk3d": "matroska",
    ".weba": "webm", ".divx": "avi", ".mpe": "mpeg", ".m2p": "mpeg", ".mpv": "mpeg2video", ".trp": "mpegts",
    ".avc": "h264", ".h26l": "h264", ".asf": "asf", ".ogm": "ogv", ".ogx": "ogv", ".wave": "wav", ".bwf": "wav",
    ".snd": "au", ".dif": "dv",
}  # fmt: skip
# The header of AMR, and a frame of 20 ms: PyAV has no encoder.
AMR = {".amr": b"#!AMR\n" + (b"\x3c" + bytes(31)) * 5, ".awb": b"#!AMR-WB\n" + (b"\x44" + bytes(60)) * 5}


def write_any(path: Path) -> Path:
    """A file with 0.1 s of sound, and with pictures if the suffix stands for video, in codecs that suit the suffix.

    Files of formats for bare pictures have no sound.
    """
    if path.suffix in AMR:
        path.write_bytes(AMR[path.suffix])
        return path
    with av.open(str(path), "w", format=WRITERS.get(path.suffix)) as container:
        video = sound = None
        if path.suffix in VIDEO_SUFFIXES:
            codec = "libsvtav1" if path.suffix == ".obu" else container.default_video_codec
            video = container.add_stream(codec, rate=25)
            # One of the few sizes of H.263, and the only one of DV.
            video.width, video.height = (720, 576) if codec == "dvvideo" else (176, 144)
            video.pix_fmt = "yuv420p"
        # After the video: MXF wants it first.
        sound_codec = container.default_audio_codec
        if sound_codec != "none":
            usual = {"amr_nb": "aac", "speex": "libspeex"}
            sound = container.add_stream(usual.get(sound_codec, sound_codec), rate=48_000, layout="stereo")
            sound.bit_rate = 128_000
        for number in range(3 if video else 0):
            picture = np.full((video.height, video.width, 3), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            container.mux(sound.encode(frame))
        container.mux([*(sound.encode() if sound else ()), *(video.encode() if video else ())])
    return path


@pytest.mark.parametrize("suffix", sorted(MEDIA_SUFFIXES - {".spx"}))  # PyAV has no encoder of Speex
def test_every_suffix_that_a_folder_is_searched_for_can_be_read(tmp_path: Path, suffix: str) -> None:
    path = write_any(tmp_path / f"clip{suffix}")
    info = probe(path)
    assert (info.video is not None) == (suffix in VIDEO_SUFFIXES)
    if info.audio is not None:
        assert len(read_audio(path)) > 0
    else:
        assert info.video is not None and len(list(iter_frames(path))) > 0
    with path.open("rb") as file:  # a file without a suffix is known by its first bytes
        assert is_media_head(file.read(HEAD_BYTES)) or suffix in NO_MAGIC


# Bare pictures begin with nothing that other files could not begin with.
NO_MAGIC = set(".264 .avc .h264 .h26l .265 .h265 .hevc .obu .dv .dif".split())


def test_suffixes_are_sound_or_video_and_agree_with_the_formats_that_are_opened() -> None:
    assert not SOUND_SUFFIXES & VIDEO_SUFFIXES
    known = {
        f".{extension}" for name in FORMAT_NAMES.split(",") for extension in av.ContainerFormat(name, "r").extensions
    }
    # Still images, a list of streams, subtitles.
    assert known - MEDIA_SUFFIXES == {".avif", ".heic", ".heif", ".ism", ".psp", ".mks"}
    assert set(".m2ts .vob .f4v .3g2".split()) <= VIDEO_SUFFIXES
    assert set(".wma .oga .mka .m4b .mp2 .caf .ac3".split()) <= SOUND_SUFFIXES


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("talk.MP4", "talk"),
        ("Ep. 12 final", "Ep. 12 final"),
        ("Ep. 12 final.m2ts", "Ep. 12 final"),
        ("talk.mp4. ", "talk"),
        ("talk v1.2", "talk v1.2"),
        ("a.b.c.wav", "a.b.c"),
        ("notes.pdf", "notes.pdf"),
        (".mp4", ".mp4"),
        ("in/.mp4", "in/.mp4"),
        ("in.mp4/talk", "in.mp4/talk"),
        ("two\nlines.mp4\n", "two\nlines"),
        ("\udce9.opus", "\udce9"),
    ],
)
def test_only_the_suffix_of_a_media_file_is_no_part_of_its_name(name: str, stem: str) -> None:
    assert media_stem(name) == stem


@pytest.mark.parametrize("name", ["truncated_no_index.mp4", "zero_bytes.mp4", "text_named.mp4"])
def test_what_cannot_be_opened_says_so_in_one_line(name: str) -> None:
    path = shared_clip(name)
    for read in (probe, read_audio, lambda path: next(iter_frames(path))):
        with pytest.raises(MediaError, match="cannot be opened as media|is empty") as caught:
            read(path)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder"):
        probe(tmp_path)
    with pytest.raises(MediaError, match="no such file"):
        probe(tmp_path / "missing.mp4")
    (tmp_path / "link.mp4").symlink_to("missing.mp4")
    with pytest.raises(MediaError, match="link.mp4: link to a missing file"):
        probe(tmp_path / "link.mp4")
    with pytest.raises(MediaError, match="no such file"):
        probe("http://localhost:9/a.mp4")
    with pytest.raises(MediaError):
        probe("a\0b.mp4")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"),
        ("a.ffconcat", "ffconcat version 1.0\nfile {target}\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"),
    ],
)
def test_files_that_refer_to_other_files_or_hosts_are_refused(tmp_path: Path, name: str, text: str) -> None:
    write_sound(tmp_path / "target.wav", [(0.0, np.full((1, 1600), 0.5))])
    path = tmp_path / name
    path.write_text(text.format(target="target.wav"))
    with pytest.raises(MediaError, match="cannot be opened as media"):
        probe(path)


def test_a_file_named_like_a_protocol_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sound(tmp_path / "x.wav", [(0.0, np.full((1, 1600), 0.5))]).rename(tmp_path / "concat:a|b.wav")
    monkeypatch.chdir(tmp_path)
    assert probe("concat:a|b.wav").audio.channels == 1


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    wide = write_video(tmp_path / "wide.mkv", [0.0], size=(8448, 16), codec="ffv1")
    with pytest.raises(MediaError, match="8448x16.*at most 8192"):
        probe(wide)
    for channels, rate in ((300, 48_000), (1, 4_000_000)):
        header = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 % 2**32, channels * 2 % 2**16, 16)
        data = bytes(channels * 2 * 1000)
        body = b"WAVEfmt " + struct.pack("<I", 16) + header + b"data" + struct.pack("<I", len(data)) + data
        path = tmp_path / f"{channels}.wav"
        path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
        with pytest.raises(MediaError):
            read_audio(path)


def test_noise_is_never_more_than_a_media_error(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mkv", [number * 0.04 for number in range(25)], sound_s=(0.0, 1.0)).read_bytes()
    random = np.random.default_rng(2)
    path = tmp_path / "noisy.mkv"
    for _ in range(30):
        data = np.frombuffer(whole, np.uint8).copy()
        where = random.integers(0, len(data), 20)
        data[where] = random.integers(0, 256, 20)
        path.write_bytes(data.tobytes()[: random.integers(100, len(data))])
        for read in (probe, read_audio, lambda path: list(iter_frames(path))):
            try:
                read(path)
            except MediaError as error:
                assert "\n" not in str(error)


# --- reading ahead ---


def test_read_ahead_keeps_order_and_passes_errors() -> None:
    def numbers():
        yield from range(20)
        raise MediaError("broken")

    seen = []
    with pytest.raises(MediaError, match="broken"):
        for number in read_ahead(numbers()):
            seen.append(number)
    assert seen == list(range(20))


def test_read_ahead_is_bounded_and_can_be_left() -> None:
    made = []

    def numbers():
        for number in range(1000):
            made.append(number)
            yield number

    ahead = read_ahead(numbers(), depth=4)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert len(made) <= 6


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("times_s", [[0.0], [0.0, 1.0, 2.0]])
def test_a_still_picture_lasts_and_is_no_damage(tmp_path: Path, suffix: str, times_s: list[float]) -> None:
    path = tmp_path / f"still{suffix}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=1)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        for time_s in times_s:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 99, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time_s), Fraction(1, 1)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        data = np.zeros((1, round(3.5 * SAMPLE_RATE_HZ)), np.float32)
        frame = av.AudioFrame.from_ndarray(data, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE_HZ, 0, Fraction(1, SAMPLE_RATE_HZ)
        container.mux([*sound.encode(frame), *sound.encode()])
    account = Account()
    assert len(list(iter_frames(path, account=account))) == len(times_s)
    assert len(read_audio(path, account=account)) / SAMPLE_RATE_HZ == pytest.approx(3.5, abs=0.1)
    assert account.lines() == []


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_file_whose_clock_begins_late_lasts_as_long_as_its_media(tmp_path: Path, suffix: str) -> None:
    path = write_video(
        tmp_path / f"late{suffix}",
        [5 + 0.04 * number for number in range(50)],
        codec="libx264" if suffix == ".ts" else "mpeg4",
    )
    assert probe(path).duration_s == pytest.approx(2.0, abs=0.1)
    times_s = [frame.time_s for frame in iter_frames(path)]
    assert (times_s[0], times_s[-1]) == pytest.approx((0.0, 1.96), abs=0.01)
