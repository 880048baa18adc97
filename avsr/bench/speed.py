"""The time of each step of a transcription on a file."""

from __future__ import annotations

import dataclasses
import resource
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from numpy.typing import NDArray

from avsr.decoding.search import Search
from avsr.grid import SAMPLE_RATE_HZ, SLOT_S
from avsr.lips.choice import face_choice
from avsr.lips.tracker import slots_of
from avsr.media import iter_audio, iter_frames, probe, read_ahead, read_audio

if TYPE_CHECKING:
    from avsr.offline.transcribe import ModalityChoice
    from avsr.recognizer import Recognizer

_PIECE_S = 3  # the part of the input that `repeat` repeats


@dataclasses.dataclass(frozen=True)
class StepTime:
    """The time of one step."""

    name: str
    """The step.

    "decode": video and sound of the file.
    "faces": from the file to lip crops, decoding of the video included.
    "network": from samples and crops to words, features included.
    "whole": a transcription.
    """
    wall_s: float
    cpu_s: float


def time_steps(recognizer: Recognizer, path: str | PathLike[str], *, modality: ModalityChoice) -> Iterator[StepTime]:
    """The time of each step on a file, measured one after the other. Raises the errors of `Recognizer.transcribe`."""
    info = probe(path)
    # Models that only hear read no lips, but faces are followed for them too.
    picture = info.video is not None and modality != "a"
    reads = picture and (modality != "auto" or "av" in recognizer.card.modalities)
    crops: list[NDArray[np.uint8]] = []
    present: list[bool] = []

    def decode() -> None:
        for _ in iter_frames(path) if picture else ():
            pass
        for _ in iter_audio(path) if info.audio is not None else ():
            pass

    def faces() -> None:
        for lips in face_choice("largest").follow(slots_of(read_ahead(iter_frames(path)))):
            crops.append(lips.crop)
            present.append(lips.present)

    def network() -> None:
        samples = read_audio(path) if info.audio is not None and modality != "v" else None
        engine, card = recognizer.model.engine, recognizer.card
        seconds = len(crops) * SLOT_S if samples is None else len(samples) / SAMPLE_RATE_HZ
        core_s = min(card.window_s, max(seconds, 1.0))
        for start_s in np.arange(0, max(core_s, seconds), core_s):
            end_s = start_s + core_s + 2 * card.margin_s  # windows overlap, as in transcription
            sound = None
            if samples is not None:
                sound = [samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]]
            slots = slice(round(start_s / SLOT_S), round(end_s / SLOT_S))
            audio = engine.encode_audio(sound) if sound is not None else None
            lips = None
            if reads and crops[slots]:
                lips = engine.encode_lips([np.stack(crops[slots])], [np.array(present[slots], bool)], audio)
            if audio is not None or lips is not None:
                engine.decode(audio, lips, Search())

    yield _timed("decode", decode)
    if picture:
        yield _timed("faces", faces)
    yield _timed("network", network)
    yield _timed("whole", lambda: recognizer.transcribe(path, modality=modality))


def peak_memory_mib() -> float:
    """The peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def repeat(source: str | PathLike[str], target: Path, seconds: float, size: tuple[int, int] | None) -> None:
    """Write a file that repeats the first three seconds of another: H.264 at 25 fps, if there is video, and AAC.

    source: file to read.
    target: file to write.
    seconds: duration to write.
    size: width and height of the video; None for its own.
    """
    # A file without sound gives no block at all; one zero sample stands for it and is repeated.
    sound = np.concatenate([*iter_audio(source), np.zeros(1, np.float32)])[: _PIECE_S * SAMPLE_RATE_HZ]
    pictures: list[av.VideoFrame] = []
    for frame in iter_frames(source) if probe(source).video is not None else ():
        if pictures and frame.time_s >= len(sound) / SAMPLE_RATE_HZ:
            break
        picture = av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")
        # yuv420p needs even sides.
        width, height = size or (frame.rgb.shape[1] // 2 * 2, frame.rgb.shape[0] // 2 * 2)
        pictures.append(picture.reformat(width=width, height=height, format="yuv420p"))
    with av.open(str(target), "w") as container:
        video: Any = None
        if pictures:
            video = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
            video.width, video.height, video.pix_fmt = pictures[0].width, pictures[0].height, "yuv420p"
        audio: Any = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        written = 0
        for index in range(round(25 * seconds)):
            if pictures:
                picture = pictures[index % len(pictures)]
                picture.pts, picture.time_base = index, Fraction(1, 25)
                container.mux(video.encode(picture))
            while written < min(seconds, (index + 1) / 25) * SAMPLE_RATE_HZ:
                # An AAC frame has 1024 samples.
                block = np.take(sound, range(written, written + 1024), mode="wrap")
                frame_ = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format="fltp", layout="mono")
                frame_.sample_rate, frame_.pts = SAMPLE_RATE_HZ, written
                container.mux(audio.encode(frame_))
                written += 1024
        if pictures:
            container.mux(video.encode())
        container.mux(audio.encode())


def _timed(name: str, work: Callable[[], object]) -> StepTime:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return StepTime(name, time.perf_counter() - wall_s, time.process_time() - cpu_s)
