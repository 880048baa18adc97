"""Words that are written where nobody speaks, here and by faster-whisper with the same weights.

    python3 -m venv work/fw && work/fw/bin/pip install faster-whisper==1.2.1
    python benchmarks/no_speech.py MODEL_FOLDER --noise corpora/noise/noise_test --beside work/fw/bin/python \\
        --clips clips/no_face_animation_51ch.mp4 --stills clips/woman_700_30fps.mp4

Sounds without speech are written to a temporary folder, in files of about a minute:
- the recordings of --noise, one after the other;
- chords, hum of the mains, loud brown noise, room tone at several levels, and silence, which are made here;
- the videos of --clips;
- the first picture of each video of --stills, held still beside noise, and in silence: a face that does not speak.

All words count. 8 bit, beam of 5, temperature 0, the same threads on both sides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

import avsr
from avsr.errors import AvsrError, MediaError
from avsr.families.external import write_wav
from avsr.grid import SAMPLE_RATE_HZ
from avsr.media import SOUND_SUFFIXES, iter_frames, probe, read_audio

THEIRS = """
import json, os, sys
from faster_whisper import WhisperModel
threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=threads)
for line in sys.stdin:
    request = json.loads(line)
    texts = []
    for vad_filter in (False, True):
        segments, _ = model.transcribe(
            request["path"], language=request["language"], beam_size=5, temperature=0, vad_filter=vad_filter
        )
        texts.append(" ".join(segment.text.strip() for segment in segments))
    print(json.dumps(texts), flush=True)
"""

STILL_FPS = 25
Sound = NDArray[np.float32]


class Case(NamedTuple):
    """One file without speech."""

    kind: str
    path: Path

    @property
    def seconds(self) -> float:
        return probe(self.path).duration_s or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the folder of a Whisper model; without --beside, any model")
    parser.add_argument("--noise", type=Path, required=True, help="folder of recordings without speech")
    parser.add_argument("--clips", type=Path, nargs="*", default=[], help="videos without speech")
    parser.add_argument("--stills", type=Path, nargs="*", default=[], help="videos whose first picture is held still")
    parser.add_argument("--beside", type=Path, help="a Python that has faster-whisper")
    parser.add_argument("--language", help="such as en; without it both sides find out")
    parser.add_argument("--show", action="store_true", help="print the texts too")
    arguments = parser.parse_args()
    recognizer = avsr.load(arguments.model)
    search = avsr.Search(language=arguments.language)
    with tempfile.TemporaryDirectory() as folder, _Theirs(arguments.beside, arguments.model) as theirs:
        rows: dict[str, list[tuple[float, list[int]]]] = {}
        for case in cases(Path(folder), arguments.noise, arguments.clips, arguments.stills):
            texts = [text_of(recognizer, case.path, search), *theirs.texts(case.path, arguments.language)]
            rows.setdefault(case.kind, []).append((case.seconds, [len(text.split()) for text in texts]))
            if arguments.show:
                print(f"{case.kind} {case.path.name}: {texts}", file=sys.stderr)
    print_table(recognizer.name, rows)


def text_of(recognizer: avsr.Recognizer, path: Path, search: avsr.Search) -> str:
    """The words of a file; none if it has no sound and no face that the model could read."""
    try:
        return recognizer.transcribe(path, search=search).text
    except MediaError as error:
        print(error, file=sys.stderr)
        return ""


def cases(folder: Path, noise: Path, clips: Sequence[Path], stills: Sequence[Path]) -> Iterator[Case]:
    """The files without speech."""
    recordings = [read_audio(path) for path in sorted(noise.iterdir()) if path.suffix in SOUND_SUFFIXES]
    for number in range(0, len(recordings), 12):
        joined = np.concatenate(recordings[number : number + 12])
        yield Case("noise", _wav(folder / f"noise{number}.wav", joined))
    for name, make in MADE.items():
        yield Case(name, _wav(folder / f"{name.replace(' ', '_')}.wav", make(np.random.default_rng(1))))
    yield from (Case("clips", path) for path in clips)
    for number, path in enumerate(stills):
        sound = np.concatenate(recordings[6 * number : 6 * number + 6] or recordings[:6])
        yield Case("still faces", still_video(folder / f"still{number}.mkv", path, sound))
        silent = np.zeros(20 * SAMPLE_RATE_HZ, np.float32)
        yield Case("still faces in silence", still_video(folder / f"silent{number}.mkv", path, silent))


def chords(rng: np.random.Generator) -> Sound:
    """A minute of major and minor chords of harmonic tones, one a second, that fade out."""
    parts = []
    for _ in range(60):
        root_hz = 110 * 2 ** (rng.integers(0, 24) / 12)
        steps = (0, 4, 7) if rng.random() < 0.5 else (0, 3, 7)
        tones = [_tone(root_hz * 2 ** (step / 12) * harmonic) / harmonic for step in steps for harmonic in range(1, 6)]
        parts.append(sum(tones) * np.exp(-np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ * rng.uniform(1, 5)))
    return 0.05 * np.concatenate(parts)


def brown_noise(rng: np.random.Generator) -> Sound:
    """A minute of noise that falls by 6 dB an octave, with peaks at full scale."""
    white = np.fft.rfft(rng.normal(size=60 * SAMPLE_RATE_HZ))
    noise = np.fft.irfft(white / np.maximum(20, np.arange(len(white)) / 60))  # by frequency in Hz, even below 20
    return 0.99 * noise / np.abs(noise).max()


def hum(rng: np.random.Generator) -> Sound:
    """A minute of 50 Hz and its harmonics, with faint hiss."""
    tones = sum(np.tile(_tone(50.0 * harmonic), 60) / harmonic for harmonic in (1, 2, 3, 5, 7))
    return 0.02 * tones + rng.normal(0, 1e-4, 60 * SAMPLE_RATE_HZ)


def room_tone(rng: np.random.Generator) -> Sound:
    """Two minutes of noise that falls by 6 dB an octave, at -70, -60, -50 and -40 dB of full scale."""
    parts = []
    for level_db in (-70, -60, -50, -40):
        white = np.fft.rfft(rng.normal(size=30 * SAMPLE_RATE_HZ))
        noise = np.fft.irfft(white / np.maximum(1, np.arange(len(white)) / 600))
        parts.append(noise / noise.std() * 10 ** (level_db / 20))
    return np.concatenate(parts)


def silence(rng: np.random.Generator) -> Sound:
    """A minute of zeros."""
    return np.zeros(60 * SAMPLE_RATE_HZ, np.float32)


MADE: dict[str, Callable[[np.random.Generator], Sound]] = {
    "chords": chords,
    "hum": hum,
    "loud brown noise": brown_noise,
    "room tone": room_tone,
    "silence": silence,
}


def _tone(hz: float) -> Any:
    return np.sin(2 * np.pi * hz * np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)


def _wav(path: Path, samples: Sound) -> Path:
    write_wav(path, samples.astype(np.float32))
    return path


def still_video(path: Path, source: Path, sound: Sound) -> Path:
    """A video of the first picture of `source` for as long as the sound lasts."""
    picture = next(iter(iter_frames(source))).rgb
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=STILL_FPS, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        for index in range(len(sound) * STILL_FPS // SAMPLE_RATE_HZ):
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
        samples = np.round(32767 * np.clip(sound, -1, 1)).astype(np.int16)
        block = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        block.sample_rate, block.pts = SAMPLE_RATE_HZ, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode())
    return path


class _Theirs:
    """faster-whisper in its own Python, or nothing."""

    def __init__(self, python: Path | None, model: str) -> None:
        self._process: subprocess.Popen[str] | None = None
        if python is not None:
            command = [str(python), "-c", THEIRS, model]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Theirs:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def texts(self, path: Path, language: str | None) -> list[str]:
        """Its texts without and with its filter; none without it, and empty ones for a file without sound."""
        if self._process is None:
            return []
        if probe(path).audio is None:
            return ["", ""]
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"path": str(path), "language": language}), file=self._process.stdin, flush=True)
        texts: list[str] = json.loads(self._process.stdout.readline())
        return texts


def print_table(model: str, rows: dict[str, list[tuple[float, list[int]]]]) -> None:
    """Words by kind of sound, and in all."""
    every = [row for kind in rows.values() for row in kind]
    names = ["words", "faster-whisper", "with its filter"][: len(every[0][1])]
    print(f"{model}\n| sound | minutes | " + " | ".join(names) + " |\n" + "|---" * (2 + len(names)) + "|")
    for kind, of_kind in [*rows.items(), ("all", every)]:
        minutes = sum(seconds for seconds, _ in of_kind) / 60
        counts = np.sum([counts for _, counts in of_kind], axis=0)
        print(f"| {kind} | {minutes:.1f} | " + " | ".join(map(str, counts)) + " |")


if __name__ == "__main__":
    try:
        main()
    except AvsrError as error:
        sys.exit(f"no_speech.py: {error}")
