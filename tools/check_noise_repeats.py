"""Whether a noise plan and its mixtures are the same bytes for any number of workers, in another run and order.

    python tools/check_noise_repeats.py work/grid/manifest.jsonl --split dev \\
        --noise environment=work/corpora/noise/noise_train --noise rir=work/corpora/rir

Plans with 0, 1 and 4 workers, with 0 again, and from a manifest in reverse order (compared line by line); renders with
0 and 4 workers; compares every file. Prints how many mixtures there are, how fast it went, the largest error of an
SNR, and the hash of the plan, which can be compared with that of another machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import avsr
from avsr.datasets.manifest import load_samples, read_manifest, write_manifest
from avsr.noise.plan import write_plan
from avsr.noise.planning import plan_noise
from avsr.noise.render import render_plan

EFFECTS = "pitch@0.3,reverb@0.5,microphone,highpass=80..300@0.5,mulaw@0.3,loss=0.02..0.1@0.3"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--noise", action="append", default=[], metavar="KIND=FOLDER")
    parser.add_argument("--effects", default=EFFECTS)
    arguments = parser.parse_args()
    folders = dict(word.split("=", 1) for word in arguments.noise)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder, hashes = Path(name), []
        for run, workers in enumerate((0, 1, 4, 0)):
            start_s = time.perf_counter()
            plan = plan_noise(
                arguments.manifest, arguments.split, folders=folders, effects=arguments.effects, workers=workers
            )
            elapsed_s = time.perf_counter() - start_s
            write_plan(folder / f"{run}.jsonl", plan)
            hashes.append(hashlib.sha256((folder / f"{run}.jsonl").read_bytes()).hexdigest())
            print(f"plan, {workers} workers: {len(plan.lines)} mixtures in {elapsed_s:.1f} s, {hashes[-1]}", flush=True)
        failed |= len(set(hashes)) > 1
        rows = reversed(read_manifest(arguments.manifest))
        root = arguments.manifest.parent.resolve()
        write_manifest(
            folder / "reverse.jsonl",
            (dataclasses.replace(row, audio=row.audio and str(root / row.audio)) for row in rows),
        )
        turned = plan_noise(
            folder / "reverse.jsonl", arguments.split, folders=folders, effects=arguments.effects, workers=2
        )
        same = set(map(str, turned.lines)) == set(map(str, plan.lines))
        print(f"plan, manifest reversed: {'the same' if same else 'OTHER'} lines")
        failed |= not same
        errors_db = [abs((line.achieved_snr_db or 0) - line.snr_db) for line in plan.lines if line.snr_db is not None]
        print(f"largest error of an achieved SNR: {max(errors_db, default=0.0):.4f} dB")
        contents = []
        for workers in (0, 4):
            out = folder / "rendered"
            start_s = time.perf_counter()
            render_plan(plan, out, workers=workers)
            elapsed_s = time.perf_counter() - start_s
            files = sorted(path for path in out.rglob("*") if path.is_file())
            digest = hashlib.sha256()
            for path in files:
                digest.update(str(path.relative_to(out)).encode() + path.read_bytes())
            contents.append(digest.hexdigest())
            print(f"rendering, {workers} workers: {len(files)} files in {elapsed_s:.1f} s, {contents[-1]}", flush=True)
            shutil.rmtree(out)
        failed |= len(set(contents)) > 1
        utterances = {row.id: row for row in read_manifest(arguments.manifest)}
        seconds = sum(len(load_samples(utterances[line.utterance], root)) / 16_000 for line in plan.lines)
        print(f"{seconds / 3600:.2f} h of mixtures, {os.cpu_count()} cores: {'NOT ' * failed}the same bytes everywhere")
    return int(failed)


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except avsr.AvsrError as error:
        raise SystemExit(f"check_noise_repeats.py: {error}") from None
