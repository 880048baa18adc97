"""Word errors when the sound of clips is recorded badly: channels that cancel, a dead channel, faint or clipped sound.

    python benchmarks/sound_faults.py corpora/grid/clips.jsonl --split dev --model grid-tiny

The list has one JSON object a line: id, path (relative to the list), words, and split. Each clip is written again with
its own picture and with the faulty sound in 16 bit, and is read as any file is. Noise is drawn by the id of the clip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import jiwer
import numpy as np
from numpy.typing import NDArray

import avsr
from avsr.errors import AvsrError, DataError
from avsr.evaluation.normalizers import NORMALIZERS
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media import probe, read_audio
from avsr.randomness import generator

Sound = NDArray[Any]
"""[S], or [C, S] where a fault has several channels."""
Fault = Callable[[Sound, np.random.Generator], Sound]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--model", required=True)
    parser.add_argument("--modality", nargs="+", default=["a", "av"], help="default: a av")
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--normalize", default="plain", help="as for avsr evaluate; default plain")
    parser.add_argument("--every", type=int, default=1, help="only one clip in this many")
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.list.read_text(encoding="utf-8").splitlines()]
    clips = [line for line in lines if line.get("words") and line["split"] == arguments.split][:: arguments.every]
    if not clips:
        raise DataError(f"{arguments.list}: no clips with words in split {arguments.split}")
    recognizer = avsr.load(arguments.model)
    normal = NORMALIZERS[arguments.normalize].apply
    print(f"{recognizer.name}, {len(clips)} clips\n| sound | modality | WER, % | clips without words | first warning |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.faults:
            files = []
            for number, clip in enumerate(clips):
                path = arguments.list.parent / clip["path"]
                sound = FAULTS[name](read_audio(path).astype(np.float64), generator("sound_faults", clip["id"]))
                files.append(write_clip(Path(folder) / f"{number}.mkv", path, sound))
            for modality in arguments.modality:
                results = [recognizer.transcribe(path, modality=modality) for path in files]
                wer = jiwer.wer([normal(clip["words"]) for clip in clips], [normal(result.text) for result in results])
                warnings = [line for result in results for line in result.warnings if "knows only" not in line]
                none = sum(not result.text for result in results)
                print(
                    f"| {name} | {modality} | {100 * wer:.1f} | {none} | {warnings[0] if warnings else ''} |",
                    flush=True,
                )


def write_clip(path: Path, source: Path, sound: Sound) -> Path:
    """A clip with the picture of `source`, if it has one, and another sound."""
    channels = np.atleast_2d(sound)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(channels)]
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        picture = given.streams.video[0] if probe(source).video is not None else None
        copy = None if picture is None else container.add_stream_from_template(picture)
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout=layout)
        for packet in given.demux(picture) if picture is not None else ():
            if packet.dts is not None:
                packet.stream = copy
                container.mux(packet)
        values = np.clip(np.round(32768 * channels), -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values.T.reshape(1, -1)), format="s16", layout=layout)
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    return path


def _ordinary(speech: Sound, rng: np.random.Generator) -> Sound:
    return speech


def _antiphase(speech: Sound, rng: np.random.Generator) -> Sound:
    return np.stack([speech, -speech])


def _partly(speech: Sound, rng: np.random.Generator) -> Sound:
    return np.stack([speech, -0.7 * speech + rng.normal(0, 0.003, len(speech))])


def _delayed(speech: Sound, rng: np.random.Generator) -> Sound:
    """The second channel is the first one inverted and 0.2 ms later."""
    spectrum = np.fft.rfft(speech)
    hz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE_HZ)
    return np.stack([speech, -np.fft.irfft(spectrum * np.exp(-2j * np.pi * hz * 0.0002), len(speech))])


def _hum(speech: Sound, rng: np.random.Generator) -> Sound:
    """The second channel is hum of the mains at -20 dB of full scale."""
    seconds = np.arange(len(speech)) / SAMPLE_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50 * harmonic * seconds) / harmonic for harmonic in (1, 2, 3, 5, 7))
    return np.stack([speech, 0.1 * hum / np.std(hum)])


def _hiss(speech: Sound, rng: np.random.Generator) -> Sound:
    return np.stack([rng.normal(0, 0.1, len(speech)), speech])


def _surround(speech: Sound, rng: np.random.Generator) -> Sound:
    """The voice in the front channels of 5.1, inverted in one of them."""
    silence = np.zeros_like(speech)
    return np.stack([speech, -speech, silence, silence, silence, silence])


def _at_level(peak_db: float) -> Fault:
    return lambda speech, rng: speech / np.abs(speech).max() * 10 ** (peak_db / 20)


def _rms(speech: Sound, rng: np.random.Generator) -> Sound:
    return speech / speech.std() * 10 ** (-66 / 20)


def _clipped(speech: Sound, rng: np.random.Generator) -> Sound:
    return np.clip(10 * speech, -1, 1)


FAULTS: dict[str, Fault] = {
    "ordinary": _ordinary,
    "antiphase": _antiphase,
    "partly": _partly,
    "delayed": _delayed,
    "5.1": _surround,
    "hum": _hum,
    "hiss": _hiss,
    "rms-66": _rms,
    **{f"peak{level_db}": _at_level(level_db) for level_db in (-20, -30, -40, -50, -60, -66, -72, -78)},
    "clipped": _clipped,
}

if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"sound_faults.py: {error}")
