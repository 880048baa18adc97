"""A tokenizer and a weights file in the form of Whisper models, without weights that mean anything."""

from __future__ import annotations

import struct
from pathlib import Path

LANGUAGES = ("en", "ko", "ja")


def write_tokenizer(path: Path) -> None:
    """A byte-level tokenizer with the special tokens of Whisper: each byte is a token, and there are no merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startofprev", "notimestamps"]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in special])
    tokenizer.save(str(path))


def model_file(*, version: int = 6, kind: str = "WhisperSpec", shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A file of CTranslate2 with one tensor of float32."""
    size = 4
    for length in shape:
        size *= length
    header = struct.pack("<I", version) + _text(kind) + struct.pack("<II", 3, 1)
    tensor = _text("encoder/weight") + struct.pack(f"<B{len(shape)}I", len(shape), *shape) + struct.pack("<BI", 0, size)
    return header + tensor + bytes(size) + struct.pack("<I", 0)


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data
