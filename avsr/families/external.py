"""Whatever turns sound and lips into text: our models, and other recognisers through a function or a command.

Ours are asked in three steps, so that what many conditions share is computed once; others get one utterance at a time.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from avsr.arrays import Crops, Present, Samples
from avsr.config import as_mapping
from avsr.datasets.manifest import save_samples
from avsr.errors import AvsrError, ConfigError, ModelError
from avsr.evaluation.conditions import MODALITIES
from avsr.grid import Modality

WAV = "{wav}"


class System(Protocol):
    """A recogniser that is evaluated. All lists are of one batch, in the same order.

    name: for tables. modalities: what it can do. record: what is written into the results to identify it.
    """

    name: str
    modalities: tuple[Modality, ...]
    record: dict[str, str]

    def hear(self, samples: Sequence[Samples]) -> Any:
        """Whatever `write` needs of these sounds, float32 [S] at 16 kHz each."""

    def look(self, lips: Sequence[Crops], presence: Sequence[Present], heard: Any | None) -> Any:
        """Whatever `write` needs of these lips, with any sound of the lengths of `heard`, or alone."""

    def write(self, heard: Any | None, seen: Any | None) -> list[str]:
        """The text of each utterance, from the sound, the lips or both."""


@dataclass(frozen=True)
class SystemSource:
    """Where a system comes from; `open` makes it, in whichever process needs it.

    kind: "model" (what `avsr.load` takes), "function" (`module:name` or `file.py:name`) or "command" (a shell line in
    which {wav} stands for the file; without it the file comes last). chunk_ms: of a model, in what chunks it hears and
    sees, as live; None for whole utterances.
    """

    kind: Literal["model", "function", "command"]
    target: str
    device: str = "auto"
    chunk_ms: int | None = None

    def open(self) -> System:
        """The same one each time within a process. Raises ModelError or ConfigError where it cannot be found."""
        return _open(self)


@functools.lru_cache(maxsize=1)
def _open(source: SystemSource) -> System:
    match source.kind:
        case "model":
            return _Model(source.target, source.device, source.chunk_ms)
        case "function":
            return _Function(source.target)
        case _:
            return _Command(source.target)


class _Seen(NamedTuple):
    with_sound: Any
    alone: Any


class _Model:
    """One of our models. Greedy search, as in transcription."""

    def __init__(self, target: str, device: str, chunk_ms: int | None) -> None:
        import avsr

        self._recognizer = avsr.load(target, device=device)
        self.name = self._recognizer.name
        if chunk_ms is not None:
            self._recognizer = self._recognizer.in_chunks(chunk_ms)
            self.name = f"{self.name}, {chunk_ms} ms"
        self.modalities = self._recognizer.config.modalities
        config = json.dumps(as_mapping(self._recognizer.config), sort_keys=True)
        self.record = {
            "kind": "model",
            "target": target,
            "weights_sha256": self._weights_hash(),
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        } | ({} if chunk_ms is None else {"chunk_ms": str(chunk_ms)})

    def _weights_hash(self) -> str:
        """Of weights and units, wherever they were read from."""
        digest = hashlib.sha256(self._recognizer.tokenizer.data())
        for name, tensor in sorted(self._recognizer.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def hear(self, samples: Sequence[Samples]) -> Any:
        return self._timed(self._recognizer.encode_sound(samples))

    def look(self, lips: Sequence[Crops], presence: Sequence[Present], heard: Any | None) -> _Seen:
        import torch

        if heard is not None:
            with_sound = self._timed(self._recognizer.encode_lips(lips, presence, heard))
            if torch.equal(with_sound.lengths, self._recognizer.lip_lengths(lips)):
                return _Seen(with_sound, with_sound)
        alone = self._timed(self._recognizer.encode_lips(lips, presence))
        return _Seen(None if heard is None else with_sound, alone)

    def _timed(self, encoded: Any) -> Any:
        """`encoded`, when it is really there: a GPU works on while the clock is read."""
        if self._recognizer.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._recognizer.device)
        return encoded

    def write(self, heard: Any | None, seen: _Seen | None) -> list[str]:
        from avsr.decoding.greedy import greedy

        lips = None if seen is None else seen.alone if heard is None else seen.with_sound
        log_probs_BTV, lengths = self._recognizer.fuse(heard, lips)
        best_BTV = log_probs_BTV.cpu()
        blank_id, tokenizer = self._recognizer.network.blank_id, self._recognizer.tokenizer
        units = [greedy(item_TV[:length], blank_id) for item_TV, length in zip(best_BTV, lengths.tolist(), strict=True)]
        return [tokenizer.decode(ids) for ids in units]


class _Function:
    """A Python function: `text = function(samples)`, with samples float32 [S] in [-1, 1] at 16 kHz.

    One that has an attribute `modalities` with "v" or "av" in it is called `function(samples, lips, presence)`, where
    either side may be None: lips uint8 [T, 96, 96], grey, one each 40 ms, presence bool [T].
    """

    def __init__(self, target: str) -> None:
        module_name, _, name = target.rpartition(":")
        if not module_name or not name:
            raise ConfigError(f"recogniser {target!r}", expected="module:function or file.py:function")
        try:
            module = _import(module_name)
        except AvsrError:
            raise
        except Exception as error:  # whatever their code raises
            raise ModelError(
                f"recogniser {target}: cannot be imported", got=f"{type(error).__name__}: {error}"
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            raise ModelError(f"recogniser {target}: no function {name!r} in it")
        modalities = tuple(getattr(function, "modalities", ("a",)))
        if not modalities or any(modality not in MODALITIES for modality in modalities):
            raise ModelError(f"recogniser {target}: its modalities", got=modalities, expected="some of a, v, av")
        self.modalities: tuple[Modality, ...] = modalities
        module_name = Path(module_name).stem if module_name.endswith(".py") else module_name.rpartition(".")[-1]
        self.name = f"{module_name}:{name}"
        self._function: Callable[..., object] = function
        source = getattr(module, "__file__", None)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
        self.record = {"kind": "function", "target": target, "sha256": digest}

    def hear(self, samples: Sequence[Samples]) -> Any:
        return samples

    def look(self, lips: Sequence[Crops], presence: Sequence[Present], heard: Any | None) -> Any:
        return list(zip(lips, presence, strict=True))

    def write(self, heard: Any | None, seen: Any | None) -> list[str]:
        count = len(heard if heard is not None else seen or [])
        texts = []
        for index in range(count):
            samples = None if heard is None else heard[index]
            arguments: tuple[Any, ...] = (samples,)
            if self.modalities != ("a",):
                arguments += (None, None) if seen is None else seen[index]
            try:
                text = self._function(*arguments)
            except Exception as error:
                raise ModelError(f"recogniser {self.name} failed", got=f"{type(error).__name__}: {error}") from error
            if not isinstance(text, str):
                raise ModelError(f"recogniser {self.name}: wrong result", got=type(text).__name__, expected="a string")
            texts.append(text.encode("utf-8", "replace").decode())  # what cannot be written to a file is "?"
        return texts


class _Command:
    """A program that is given a WAV file, 16 kHz, mono, 16 bit, and prints its text."""

    modalities: tuple[Modality, ...] = ("a",)

    def __init__(self, target: str) -> None:
        try:
            self._words = shlex.split(target)
        except ValueError as error:
            raise ConfigError(f"command {target!r} is not understood", got=error) from None
        if not self._words:
            raise ConfigError("the command is empty", expected="a program, and {wav} where the file belongs")
        if WAV not in " ".join(self._words):
            self._words.append(WAV)
        self.name = Path(self._words[0]).name
        self.record = {"kind": "command", "target": target}

    def hear(self, samples: Sequence[Samples]) -> Any:
        return samples

    def look(self, lips: Sequence[Crops], presence: Sequence[Present], heard: Any | None) -> Any:
        raise ModelError(f"command {self.name} only hears")

    def write(self, heard: Any | None, seen: Any | None) -> list[str]:
        texts = []
        with tempfile.TemporaryDirectory(prefix="avsr-") as folder:
            path = Path(folder, "utterance.wav")
            for samples in heard or ():
                save_samples(path, samples)
                texts.append(self._run([word.replace(WAV, str(path)) for word in self._words]))
        return texts

    def _run(self, words: list[str]) -> str:
        try:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            raise ModelError(f"command {words[0]}: cannot be run", got=error.strerror) from error
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().splitlines()
            raise ModelError(
                f"command {self.name} failed",
                got=f"exit code {done.returncode}" + (f" ({complaint[-1]})" if complaint else ""),
                expected="0 and the text on standard output",
            )
        return " ".join(done.stdout.decode(errors="replace").split())


def _import(name: str) -> Any:
    if not name.endswith(".py"):
        if (here := os.getcwd()) not in sys.path:  # as with python -m
            sys.path.insert(0, here)
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise ModelError(f"{path}: no such file", remedy="check the path of the recogniser")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
