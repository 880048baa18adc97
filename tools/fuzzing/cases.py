"""One hostile input: how it is made from a base, written into a folder, and stored to be repeated.

A case is the name of its base, the files that differ from it, and the words of the command that opens it. The same
kind, seed and number give the same case, if the bases are the same.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzzing import archives, frames
from fuzzing.mutations import json_text, mutate_bytes, mutate_document, mutate_text, yaml_text

SPECIAL = ("fifo", "device", "folder", "sparse", "loop", "missing", "socket")
"""What may stand in the place of a file."""
SPARSE_BYTES = 6 << 30
SOUND = ["transcribe", "input.wav", "--device", "cpu", "--model"]


@dataclass
class Case:
    """One hostile input."""

    base: str
    """Name of the base; "" for none."""
    words: list[str]
    """Words of the command line, run in the folder of the case. Words such as AVSR_MODELS=x come before the command."""
    files: dict[str, bytes] = field(default_factory=dict)
    """New content by relative path."""
    special: dict[str, str] = field(default_factory=dict)
    """A word of SPECIAL by relative path."""

    def write(self, bases: Path, folder: Path) -> None:
        """Write the input into a new folder."""
        if self.base:
            shutil.copytree(bases / self.base, folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_bytes(content)
        for name, kind in self.special.items():
            (folder / name).unlink(missing_ok=True)
            _make_special(folder / name, kind)

    def to_json(self) -> str:
        """The case as a JSON object. Files that are short texts stay readable."""
        files = {name: _as_text(content) for name, content in self.files.items()}
        return json.dumps({"base": self.base, "words": self.words, "files": files, "special": self.special}, indent=1)

    @staticmethod
    def from_json(text: str) -> Case:
        """The case that `to_json` wrote."""
        stored = json.loads(text)
        files = {name: _from_text(content) for name, content in stored["files"].items()}
        return Case(stored["base"], stored["words"], files, stored["special"])


def _as_text(content: bytes) -> Any:
    """Short text, or compressed bytes."""
    if len(content) <= 500 and content.isascii():
        return content.decode()
    return {"zlib": base64.b64encode(zlib.compress(content, 9)).decode()}


def _from_text(stored: Any) -> bytes:
    return stored.encode() if isinstance(stored, str) else zlib.decompress(base64.b64decode(stored["zlib"]))


def _make_special(path: Path, kind: str) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "sparse":
            with path.open("wb") as file:
                file.truncate(SPARSE_BYTES)
        case "socket":
            import socket

            with socket.socket(socket.AF_UNIX) as made:
                here = os.getcwd()
                os.chdir(path.parent)  # the path of a socket is short
                made.bind(path.name)
                os.chdir(here)


def make_case(kind: str, seed: int, number: int, bases: Path) -> Case:
    """The case with this number."""
    random = Random(f"{kind} {seed} {number}")
    return KINDS[kind](bases, random)


def _special(case: Case, names: list[str], random: Random) -> Case:
    """The same case, with another kind of file in the place of one of its files in one of twelve."""
    if random.random() < 0.08:
        name = random.choice(names)
        case.files.pop(name, None)
        case.special[name] = random.choice(SPECIAL)
    return case


def _media(bases: Path, random: Random) -> Case:
    source = random.choice(sorted((bases / "media").iterdir()))
    name = source.name
    words = random.choice(
        (
            ["transcribe", name, "--model", "grid-tiny", "--device", "cpu"],
            ["transcribe", name, "--model", "grid-tiny", "--device", "cpu", "-f", "json"],
            ["doctor", name],
            ["stream", name, "--model", "grid-tiny", "--device", "cpu"],
        )
    )
    case = Case("", words, {name: mutate_bytes(source.read_bytes(), random)})
    return _special(case, [name], random)


def _checkpoint(bases: Path, random: Random) -> Case:
    """Numbers of the configuration alone: they pass checks of types and reach the network."""
    name = random.choice(("model/config.yaml", "model/config.yaml", "model/vocabulary.txt", "model/model.safetensors"))
    data = (bases / "own" / name).read_bytes()
    case = Case(
        "own", random.choice(([*SOUND, "model"], ["stream", "input.wav", "--device", "cpu", "--model", "model"]))
    )
    if name.endswith(".yaml"):
        case.files[name] = yaml.safe_dump(mutate_document(yaml.safe_load(data), random), sort_keys=False).encode()
    elif name.endswith(".txt"):
        case.files[name] = mutate_text(data, random)
    else:
        case.files[name] = mutate_bytes(data, random)
    names = ["model/config.yaml", "model/vocabulary.txt", "model/model.safetensors", "model/README.md"]
    return _special(case, names, random)


def _nemo(bases: Path, random: Random) -> Case:
    members = {path.name: path.read_bytes() for path in sorted((bases / "nemo").iterdir()) if path.suffix != ".wav"}
    config, weights, tokenizer = "model_config.yaml", "model_weights.ckpt", next(n for n in members if "_tok" in n)
    part = random.randrange(4)
    if part == 0:
        members[config] = yaml_text(yaml.safe_load(members[config]), random)
    elif part == 1:
        members[weights] = archives.mutate_zip(members[weights], random)
    elif part == 2:
        members[tokenizer] = mutate_bytes(members[tokenizer], random)
    archive = archives.make_tar({f"./{name}": content for name, content in members.items()}, random)
    words = random.choice(([*SOUND, "x.nemo"], ["import", "x.nemo", "-o", "out"]))
    return _special(Case("nemo", words, {"x.nemo": archive}), ["x.nemo"], random)


def _torch(bases: Path, random: Random) -> Case:
    data = archives.mutate_zip((bases / "torch/front.pth").read_bytes(), random)
    return _special(Case("", ["front-end", "front.pth"], {"front.pth": data}), ["front.pth"], random)


def _published(bases: Path, random: Random) -> Case:
    name = random.choice(("model/model.pth", "model/model.pth", "model/model.json", "model/small_units.txt"))
    data = (bases / "published" / name).read_bytes()
    if name.endswith("pth"):
        changed = archives.mutate_zip(data, random)
    elif name.endswith("json"):
        changed = json_text(json.loads(data), random)
    else:
        changed = mutate_text(data, random)
    return _special(Case("published", [*SOUND, "model"], {name: changed}), [name], random)


def _tokenizer(bases: Path, random: Random) -> Case:
    base, name = random.choice(
        (("own", "model/vocabulary.txt"), ("pieces", "model/tokenizer.model"), ("whisper", "model/tokenizer.json"))
    )
    data = (bases / base / name).read_bytes()
    if name.endswith("txt"):
        changed = mutate_text(data, random)
    elif name.endswith("json"):
        changed = json_text(json.loads(data), random)
    else:
        changed = mutate_bytes(data, random)
    return _special(Case(base, [*SOUND, "model"], {name: changed}), [name], random)


def _yaml(bases: Path, random: Random) -> Case:
    if random.random() < 0.7:
        name, base, words = "model/config.yaml", random.choice(("own", "pieces")), [*SOUND, "model"]
    else:
        name, base, words = "training.yaml", "corpus", ["train", "training.yaml", "--dry-run"]
    changed = yaml_text(yaml.safe_load((bases / base / name).read_bytes()), random)
    return _special(Case(base, words, {name: changed}), [name], random)


def _json(bases: Path, random: Random) -> Case:
    record = "models/whisper-base/avsr-model.json"
    base, name, words = random.choice(
        (
            ("whisper", "model/config.json", [*SOUND, "model"]),
            ("installed", record, ["AVSR_MODELS=models", "models"]),
            ("installed", record, ["AVSR_MODELS=models", "models", "show", "whisper-base"]),
            ("corpus", "results/results.json", ["compare", "results", "results"]),
        )
    )
    return _special(Case(base, words, {name: json_text(_json_of(bases / base / name), random)}), [name], random)


def _json_of(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _safetensors(bases: Path, random: Random) -> Case:
    base, name = random.choice(("own", "pieces")), "model/model.safetensors"
    changed = archives.mutate_safetensors((bases / base / name).read_bytes(), random)
    return _special(Case(base, [*SOUND, "model"], {name: changed}), [name], random)


def _whisper(bases: Path, random: Random) -> Case:
    name = random.choice(("model/model.bin", "model/model.bin", "model/config.json", "model/tokenizer.json"))
    data = (bases / "whisper" / name).read_bytes()
    changed = mutate_bytes(data, random) if name.endswith("bin") else json_text(json.loads(data), random)
    return _special(Case("whisper", [*SOUND, "model"], {name: changed}), [name], random)


def _json_lines(data: bytes, random: Random) -> bytes:
    if random.random() < 0.25:
        return mutate_text(data, random)
    lines = data.split(b"\n")
    place = random.randrange(len(lines) - 1)
    lines[place] = json_text(json.loads(lines[place]), random)
    return b"\n".join(lines)


def _manifest(bases: Path, random: Random) -> Case:
    words = random.choice(
        (
            ["vocabulary", "manifest.jsonl", "-o", "out/words.txt"],
            ["noise", "plan", "manifest.jsonl", "--split", "dev", "-o", "out/p.jsonl", "--snr", "0", "--seed", "1"]
            + ["--noise-kinds", "white,babble", "--workers", "0"],
            ["train", "training.yaml", "--dry-run"],
        )
    )
    data = (bases / "corpus/manifest.jsonl").read_bytes()
    return _special(
        Case("corpus", words, {"manifest.jsonl": _json_lines(data, random)}),
        ["manifest.jsonl", "audio/t1/u0.wav", "lips/t1/u0.mp4"],
        random,
    )


def _plan(bases: Path, random: Random) -> Case:
    data = (bases / "corpus/plan.jsonl").read_bytes()
    words = ["noise", "render", "plan.jsonl", "-o", "out", "--workers", "0"]
    return _special(Case("corpus", words, {"plan.jsonl": _json_lines(data, random)}), ["plan.jsonl"], random)


def _frames(bases: Path, random: Random) -> Case:
    return Case("", ["clients", "frames.json"], {"frames.json": frames.make_script(random)})


KINDS: dict[str, Callable[[Path, Random], Case]] = {
    "media": _media,
    "checkpoint": _checkpoint,
    "nemo": _nemo,
    "torch": _torch,
    "published": _published,
    "tokenizer": _tokenizer,
    "yaml": _yaml,
    "json": _json,
    "safetensors": _safetensors,
    "whisper": _whisper,
    "manifest": _manifest,
    "plan": _plan,
    "frames": _frames,
}
"""How a case of each kind is made."""
