"""Small media files in several containers, made by PyAV: a tone with pauses, and noise with a moving block."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FILES: dict[str, tuple[str, str | None, str | None]] = {
    "input.mp4": ("mp4", "libx264", "aac"),
    "input.mov": ("mov", "mpeg4", "pcm_s16le"),
    "input.mkv": ("matroska", "libx264", "flac"),
    "input.webm": ("webm", None, "libopus"),
    "input.avi": ("avi", "mjpeg", "pcm_s16le"),
    "input.ts": ("mpegts", "mpeg2video", "mp2"),
    "input.ogg": ("ogg", None, "libopus"),
    "input.flac": ("flac", None, "flac"),
    "input.mp3": ("mp3", None, "libmp3lame"),
    "input.wav": ("wav", None, "pcm_s16le"),
    "input.mpg": ("mpeg", "mpeg1video", "mp2"),
    "lips.mp4": ("mp4", "mpeg4", None),
}
"""Container, codec of the pictures and codec of the sound, by name of the file."""
SECONDS, RATE_HZ, FPS = 0.8, 48_000, 25
WIDTH, HEIGHT = 96, 64


def write_media(path: Path, container: str, picture_codec: str | None, sound_codec: str | None) -> None:
    """Write one file. The same arguments give the same bytes."""
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact"}) as output:
        packets: list[av.Packet] = []
        if picture_codec is not None:
            video = output.add_stream(picture_codec, rate=FPS, options={"threads": "1", "flags": "+bitexact"})
            video.width, video.height = WIDTH, HEIGHT
            video.pix_fmt = "yuvj420p" if picture_codec == "mjpeg" else "yuv420p"
            for frame in _pictures(video.pix_fmt):
                packets += video.encode(frame)
            packets += video.encode(None)
        if sound_codec is not None:
            audio = output.add_stream(sound_codec, rate=RATE_HZ, options={"flags": "+bitexact"})
            audio.layout = "mono"
            sample_format = audio.codec_context.codec.audio_formats[0].name
            resampler = av.AudioResampler(sample_format, "mono", RATE_HZ, audio.codec_context.frame_size or 4096)
            for sound in [*resampler.resample(_sound()), *resampler.resample(None)]:
                packets += audio.encode(sound)
            packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            output.mux(packet)


def _sound() -> av.AudioFrame:
    time_s = np.arange(round(SECONDS * RATE_HZ)) / RATE_HZ
    samples = 0.3 * np.sin(2 * np.pi * 300 * time_s) * (np.sin(2 * np.pi * 4 * time_s) > 0)
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    return frame


def _pictures(pixel_format: str) -> list[av.VideoFrame]:
    random = np.random.default_rng(1)
    frames = []
    for number in range(round(SECONDS * FPS)):
        picture = random.integers(90, 110, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        picture[20:40, 2 * number : 2 * number + 20] = 250
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
        frame.pts, frame.time_base = number, Fraction(1, FPS)
        frames.append(frame)
    return frames
