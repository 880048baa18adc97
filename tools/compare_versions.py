"""Whether two checkouts compute the same log-probabilities with a shipped model, to the bit, on this machine.

    python tools/compare_versions.py OLD NEW --manifest PREPARED/manifest.jsonl

OLD and NEW are folders with a package `avsr`. Clips of a prepared data set (`avsr prepare`) are read once, by this
script. Then one process for each checkout computes the log-probabilities of the same arrays:

    A                 sound
    V                 lips
    AV                both
    AV, lips lost     both, the lips absent in the middle third of the clip
    live A, live AV   a session in chunks, fed in blocks of 20 ms and single crops

The table has the number of clips and frames of each, and the largest difference. Exits with 1 if a single bit differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import checkouts
import numpy as np
from numpy.typing import NDArray

CROP_PX = 96
SAMPLE_RATE_HZ = 16_000
BLOCK_SAMPLES = 320
SLOT_S = 0.04

MODES = ("A", "V", "AV", "AV, lips lost", "live A", "live AV")

Samples = NDArray[np.float32]
Crops = NDArray[np.uint8]
Present = NDArray[np.bool_]
LogProbs = NDArray[np.float32]


class Clip(NamedTuple):
    """samples: float32 [S], 16 kHz. crops: uint8 [T, 96, 96], 40 ms a slot. present: bool [T]."""

    samples: Samples
    crops: Crops
    present: Present


class Row(NamedTuple):
    """One line of the table. difference: the largest, NaN if the shapes differ."""

    mode: str
    clips: int
    frames: int
    difference: float
    equal: bool


def read_clips(manifest: Path, split: str, count: int) -> list[Clip]:
    """`count` clips with sound and lips of a prepared data set, evenly spread over the split.

    The files are read here and not by `avsr`, so that both checkouts get the same arrays.
    Raises CheckoutError if the manifest cannot be read or the split has no such clip.
    """
    try:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise checkouts.CheckoutError(f"{manifest}: cannot be read as a manifest: {error}") from error
    usable = [row for row in rows if row["split"] == split and row["audio"] and row["video"]]
    if not usable:
        raise checkouts.CheckoutError(f"{manifest}: no clips with sound and lips in split {split}")
    count = min(count, len(usable))
    chosen = [usable[k * len(usable) // count] for k in range(count)]
    return [_read_clip(row, manifest.parent) for row in chosen]


def _read_clip(row: dict[str, Any], root: Path) -> Clip:
    with wave.open(str(root / row["audio"]), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    with av.open(str(root / row["video"])) as container:
        # The first rows of a planar YUV picture are its luma.
        crops = np.stack([frame.to_ndarray(format="yuv420p")[:CROP_PX] for frame in container.decode(video=0)])
    present = np.ones(len(crops), bool)
    for first, end, _ in row["absent"]:
        present[first:end] = False
    crops[~present] = 0
    return Clip(samples, crops, present)


def save_clips(path: Path, clips: Sequence[Clip]) -> None:
    """Write clips to an .npz file."""
    np.savez(path, **{f"{name}/{k}": each for k, clip in enumerate(clips) for name, each in clip._asdict().items()})


def load_clips(path: Path) -> list[Clip]:
    """The clips of `save_clips`."""
    with np.load(path) as arrays:
        count = len(arrays.files) // len(Clip._fields)
        return [Clip(*(arrays[f"{name}/{k}"] for name in Clip._fields)) for k in range(count)]


def extract(clips: Sequence[Clip], model: str, chunk_ms: int, batch_size: int) -> dict[str, list[LogProbs]]:
    """The log-probabilities [T, V + 1] of each clip, for each of MODES, by the `avsr` of this process."""
    import avsr

    recognizer: Any = avsr.load(model, device="cpu")
    found: dict[str, list[LogProbs]] = {mode: [] for mode in MODES}
    for start in range(0, len(clips), batch_size):
        samples, crops, present = map(list, zip(*clips[start : start + batch_size], strict=True))
        lost = [_without_middle(each) for each in present]
        found["A"] += log_probs(recognizer, samples, None, None)
        found["V"] += log_probs(recognizer, None, crops, present)
        found["AV"] += log_probs(recognizer, samples, crops, present)
        found["AV, lips lost"] += log_probs(recognizer, samples, crops, lost)
    for clip in clips:
        found["live A"].append(live_log_probs(recognizer, clip, chunk_ms, video=False))
        found["live AV"].append(live_log_probs(recognizer, clip, chunk_ms, video=True))
    return found


def log_probs(
    recognizer: Any, samples: list[Samples] | None, crops: list[Crops] | None, present: list[Present] | None
) -> list[LogProbs]:
    """`Recognizer.log_probs` of any version, as one array [T, V + 1] for each utterance.

    Up to version 0.1 it returned a pair: a padded tensor [B, T, V + 1] and the lengths [B]. Now it returns a list.
    """
    result = recognizer.log_probs(samples, crops, present)
    if isinstance(result, tuple):
        padded, lengths = result
        result = [item[:length] for item, length in zip(padded, lengths.tolist(), strict=True)]
    return [np.asarray(item) for item in result]


def live_log_probs(recognizer: Any, clip: Clip, chunk_ms: int, *, video: bool) -> LogProbs:
    """The log-probabilities [T, V + 1] of a session that is fed with a clip."""
    parts: list[LogProbs] = []
    session = recognizer.stream(chunk_ms=chunk_ms, video=video, on_log_probs=lambda part: parts.append(np.array(part)))
    feed(session, clip, video=video)
    return np.concatenate(parts)


def feed(session: Any, clip: Clip, *, video: bool) -> None:
    """Push the whole clip into a session, sound in blocks of 20 ms and each crop at its time, and finish it."""
    slots = iter(np.flatnonzero(clip.present) if video else ())
    slot = next(slots, None)
    for start in range(0, len(clip.samples), BLOCK_SAMPLES):
        while slot is not None and slot * SLOT_S <= start / SAMPLE_RATE_HZ:
            session.push_video(clip.crops[slot], slot * SLOT_S)
            slot = next(slots, None)
        session.push_audio(clip.samples[start : start + BLOCK_SAMPLES], start / SAMPLE_RATE_HZ)
    while slot is not None:
        session.push_video(clip.crops[slot], slot * SLOT_S)
        slot = next(slots, None)
    session.finish()


def compare(old: dict[str, list[LogProbs]], new: dict[str, list[LogProbs]]) -> Iterator[Row]:
    """One row for each mode."""
    for mode in MODES:
        pairs = list(zip(old[mode], new[mode], strict=True))
        same_shape = all(a.shape == b.shape for a, b in pairs)
        differences = [_difference(a, b) for a, b in pairs] if same_shape else []
        yield Row(
            mode,
            len(pairs),
            sum(len(a) for a, _ in pairs),
            max(differences, default=float("nan")),
            all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs),
        )


def _difference(a: LogProbs, b: LogProbs) -> float:
    """The largest difference; equal infinities differ by 0."""
    differs = a != b
    return float(np.abs(a[differs].astype(float) - b[differs].astype(float)).max(initial=0.0))


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two checkouts, or compute for one of them (--extract, used by this script itself)."""
    parser = argparse.ArgumentParser(description="Compare the log-probabilities of two checkouts, to the bit.")
    add = parser.add_argument
    add("checkouts", nargs="+", type=Path, metavar="OLD NEW", help="two folders with a package avsr")
    add("--manifest", type=Path, metavar="FILE", help="manifest.jsonl of a prepared data set")
    add("--split", default="dev", help="default %(default)s")
    add("--clips", type=int, default=20, metavar="N", help="default %(default)s")
    add("--model", default="grid-tiny", help="default %(default)s")
    add("--chunk-ms", type=int, default=320, metavar="MS", help="of the session; default %(default)s")
    add("--batch-size", type=int, default=1, metavar="N", help="utterances in one call; default %(default)s")
    add("--threads", type=int, default=1, metavar="N", help="OMP_NUM_THREADS; default %(default)s")
    add("--extract", nargs=2, type=Path, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    try:
        if arguments.extract is not None:
            checkouts.require_package_of(arguments.checkouts[0])
            clips = load_clips(arguments.extract[0])
            found = extract(clips, arguments.model, arguments.chunk_ms, arguments.batch_size)
            np.savez(arguments.extract[1], **_numbered(found))
            return 0
        if len(arguments.checkouts) != 2 or arguments.manifest is None or arguments.clips < 1:
            parser.error("expected two checkouts and --manifest FILE")
        return _compare_checkouts(arguments)
    except checkouts.CheckoutError as error:
        print(f"compare_versions: {error}", file=sys.stderr)
        return 2


def _compare_checkouts(arguments: argparse.Namespace) -> int:
    folders = [checkouts.checkout(path) for path in arguments.checkouts]
    clips = read_clips(arguments.manifest, arguments.split, arguments.clips)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Path(temporary, "clips.npz")
        np.savez(
            inputs, **{f"{name}/{k}": each for k, clip in enumerate(clips) for name, each in clip._asdict().items()}
        )
        for number, folder in enumerate(folders):
            output = Path(temporary, f"{number}.npz")
            options = ["--model", arguments.model, "--chunk-ms", arguments.chunk_ms]
            options += ["--batch-size", arguments.batch_size, "--extract", inputs, output]
            command = checkouts.script(__file__, folder, *options)
            environment = checkouts.environment(folder, arguments.threads)
            if subprocess.run(command, cwd=folder, env=environment).returncode:
                raise checkouts.CheckoutError(f"{folder}: the log-probabilities could not be computed; see above")
            with np.load(output) as arrays:
                results.append({mode: [arrays[f"{mode}/{k}"] for k in range(len(clips))] for mode in MODES})
    print(f"{'':16}{'clips':>6}{'frames':>8}{'largest difference':>20}  equal")
    rows = list(compare(*results))
    for row in rows:
        equal = "yes" if row.equal else "NO"
        print(f"{row.mode:16}{row.clips:6}{row.frames:8}{row.difference:20.3g}  {equal}")
    return 0 if all(row.equal for row in rows) else 1


def _numbered(found: dict[str, list[LogProbs]]) -> dict[str, LogProbs]:
    return {f"{mode}/{k}": each for mode, arrays in found.items() for k, each in enumerate(arrays)}


def _without_middle(present: Present) -> Present:
    kept = present.copy()
    kept[len(kept) // 3 : 2 * len(kept) // 3] = False
    return kept


if __name__ == "__main__":
    sys.exit(main())
