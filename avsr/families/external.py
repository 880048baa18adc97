"""Other people's recognisers: a Python function, or a program that prints text.

    function:MODULE:NAME or function:FILE.py:NAME     text = NAME(samples)
    command:PROGRAM --option {wav}                    text on standard output

Both give text without times. So the words are spread evenly over the sound, by their length, and have no confidence.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import os
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.decoding.search import Search, Spoken
from avsr.engine import Card, Model
from avsr.errors import AvsrError, ConfigError, ModelError
from avsr.files import temporary_folder
from avsr.grid import SAMPLE_RATE_HZ, SLOT_S, Modality
from avsr.text import without_controls

WAV = "{wav}"
FUNCTION, COMMAND = "function:", "command:"
MAX_PEAK = 0.99  # of full scale, as in prepared corpora


class ExternalLips(NamedTuple):
    """Lips as a function gets them."""

    crops: Sequence[Crops]
    present: Sequence[Present]


def open_model(target: str) -> Model:
    """The recogniser that a text names. Raises ModelError or ConfigError if it cannot be found."""
    engine: _FunctionEngine | _CommandEngine
    if target.startswith(COMMAND):
        engine = _CommandEngine(target.removeprefix(COMMAND))
    else:
        engine = _FunctionEngine(target.removeprefix(FUNCTION))
    card = Card(
        name=engine.name,
        family="external",
        modalities=engine.modalities,
        window_s=math.inf,  # such programs cut the sound themselves
        margin_s=0.0,
        has_times=False,
    )
    return Model(card=card, engine=engine, identity=lambda: engine.identity)


class _FunctionEngine:
    """A Python function: `text = function(samples)`, with samples float32 [S] in [-1, 1] at 16 kHz.

    A function that has an attribute `modalities` with "v" or "av" in it is called `function(samples, crops, present)`,
    and either side may be None: crops uint8 [T, 96, 96], grey, one each 40 ms; present bool [T].
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
        if not modalities or any(modality not in get_args(Modality) for modality in modalities):
            raise ModelError(f"recogniser {target}: its modalities", got=modalities, expected="some of a, v, av")
        self.modalities: tuple[Modality, ...] = modalities
        module_name = Path(module_name).stem if module_name.endswith(".py") else module_name.rpartition(".")[-1]
        self.name = f"{module_name}:{name}"
        self._function: Callable[..., object] = function
        source = getattr(module, "__file__", None)
        self.identity = {"sha256": hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""}

    def encode_audio(self, samples: Sequence[Samples]) -> Sequence[Samples]:
        """The same sounds."""
        return samples

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any | None) -> ExternalLips:
        """The same lips."""
        return ExternalLips(crops, present)

    def decode(self, audio: Sequence[Samples] | None, lips: ExternalLips | None, search: Search) -> list[list[Spoken]]:
        """The words of each item. Raises ModelError if the function fails."""
        count = len(audio if audio is not None else lips.crops if lips is not None else [])
        return [self._item(audio, lips, index) for index in range(count)]

    def _item(self, audio: Sequence[Samples] | None, lips: ExternalLips | None, index: int) -> list[Spoken]:
        samples = None if audio is None else audio[index]
        arguments: tuple[Any, ...] = (samples,)
        if self.modalities != ("a",):
            arguments += (None, None) if lips is None else (lips.crops[index], lips.present[index])
        try:
            text = self._function(*arguments)
        except Exception as error:
            raise ModelError(f"recogniser {self.name} failed", got=f"{type(error).__name__}: {error}") from error
        if not isinstance(text, str):
            raise ModelError(f"recogniser {self.name}: wrong result", got=type(text).__name__, expected="a string")
        if samples is not None:
            duration_s = len(samples) / SAMPLE_RATE_HZ
        else:
            duration_s = SLOT_S * len(lips.crops[index]) if lips is not None else 0.0
        return spread(text, duration_s)


class _CommandEngine:
    """A program that is given a WAV file, 16 kHz, mono, 16 bit, and prints its text.

    {wav} in its arguments stands for the file; without it the file comes last.
    """

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
        self.name = _program_name(self._words)
        self.identity: dict[str, str] = {}

    def encode_audio(self, samples: Sequence[Samples]) -> Sequence[Samples]:
        """The same sounds."""
        return samples

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: Any | None) -> Any:
        """Raises ModelError: a program gets no lips."""
        raise ModelError(f"command {self.name} only hears")

    def decode(self, audio: Sequence[Samples] | None, lips: Any | None, search: Search) -> list[list[Spoken]]:
        """The words of each item. Raises ModelError if the program cannot be run or fails."""
        items = []
        with temporary_folder() as folder:
            path = folder / "utterance.wav"
            for samples in audio or ():
                write_wav(path, samples)
                text = self._run([word.replace(WAV, str(path)) for word in self._words])
                items.append(spread(text, len(samples) / SAMPLE_RATE_HZ))
        return items

    def _run(self, words: list[str]) -> str:
        try:
            # Without stdin the program cannot wait for input. Without a shell no part of the command is interpreted.
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError as error:
            remedy = "check the name of the program, and that it may be executed"
            raise ModelError(f"command {words[0]} cannot be run", got=error.strerror, remedy=remedy) from error
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().splitlines()
            raise ModelError(
                f"command {self.name} failed",
                got=f"exit code {done.returncode}" + (f" ({complaint[-1]})" if complaint else ""),
                expected="0 and the text on standard output",
            )
        return done.stdout.decode(errors="replace")


def spread(text: str, duration_s: float) -> list[Spoken]:
    """The words of a text spread over a duration, each as long as its share of the letters."""
    words = (
        without_controls(text).encode("utf-8", "replace").decode().split()
    )  # "?" for what cannot be written to a file
    letter_s = duration_s / max(1, sum(len(word) + 1 for word in words))
    spoken, start = [], 0
    for word in words:
        end = start + len(word) + 1
        spoken.append(Spoken(word, start * letter_s, end * letter_s, None))
        start = end
    return spoken


def _program_name(words: list[str]) -> str:
    """The program as tables call it; of an interpreter, its script."""
    program = Path(words[0]).name
    is_interpreter = re.fullmatch(r"python[\d.]*|bash|sh|node|ruby|perl", program) is not None
    if is_interpreter and len(words) > 1 and not words[1].startswith("-") and words[1] != WAV:
        return Path(words[1]).name
    return program


def write_wav(path: Path, samples: Samples) -> None:
    """Write samples for a program: WAV, mono, 16 kHz, 16 bits.

    Sound near or beyond full scale is turned down as a whole, rather than clipped.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    scaled = samples * (32768 * min(1.0, MAX_PEAK / peak if peak else 1.0))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.round(scaled).astype("<i2").tobytes())


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
