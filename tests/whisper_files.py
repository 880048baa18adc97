"""A tokenizer and a weights file in the form of Whisper models, without weights that mean anything."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

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


def write_vocabulary(folder: Path) -> None:
    """The texts of the tokens, and of those of time, by their numbers."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    texts = sorted(numbers, key=lambda text: numbers[text])
    times = [f"<|{number * 0.02:.2f}|>" for number in range(TOKENS - len(texts))]
    (folder / "vocabulary.json").write_text(json.dumps(texts + times))


def model_file(*, version: int = 6, kind: str = "WhisperSpec", shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A file of CTranslate2 with one tensor of float32."""
    size = 4
    for length in shape:
        size *= length
    header = struct.pack("<I", version) + _text(kind) + struct.pack("<II", 3, 1)
    tensor = _text("encoder/weight") + struct.pack(f"<B{len(shape)}I", len(shape), *shape) + struct.pack("<BI", 0, size)
    return header + tensor + bytes(size) + struct.pack("<I", 0)


WIDTH, MELS, TOKENS = 8, 80, 1766
"""Of the network below. The tokenizer has 265 tokens, and 1501 of time follow."""


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a network of one layer on each side, as the converter of CTranslate2 writes them."""
    found: dict[str, tuple[int, ...]] = {
        "encoder/conv1/weight": (WIDTH, MELS, 3),
        "encoder/conv1/bias": (WIDTH,),
        "encoder/conv2/weight": (WIDTH, WIDTH, 3),
        "encoder/conv2/bias": (WIDTH,),
        "encoder/position_encodings/encodings": (1500, WIDTH),
        "decoder/position_encodings/encodings": (448, WIDTH),
        "decoder/embeddings/weight": (TOKENS, WIDTH),
    }
    parts = {
        "self_attention": [(3 * WIDTH, WIDTH), (WIDTH, WIDTH)],
        "ffn": [(4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)],
        "attention": [(WIDTH, WIDTH), (2 * WIDTH, WIDTH), (WIDTH, WIDTH)],
    }
    for side in ("encoder", "decoder"):
        found |= {f"{side}/layer_norm/gamma": (WIDTH,), f"{side}/layer_norm/beta": (WIDTH,)}
        for part, maps in parts.items():
            if (side, part) == ("encoder", "attention"):
                continue
            name = f"{side}/layer_0/{part}"
            found |= {f"{name}/layer_norm/gamma": (WIDTH,), f"{name}/layer_norm/beta": (WIDTH,)}
            for number, shape in enumerate(maps):
                found |= {f"{name}/linear_{number}/weight": shape, f"{name}/linear_{number}/bias": shape[:1]}
    return found


SETTINGS = {
    "decoder/activation": 3,
    "decoder/alibi": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
    "decoder/num_heads": 2,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "encoder/num_heads": 2,
}


def network_file(
    changes: Mapping[str, tuple[int, ...] | int | bytes | None] | None = None, *, more: Sequence[bytes] = ()
) -> bytes:
    """A file of CTranslate2 with a whole network of random weights.

    changes: by the name of a tensor, another shape, setting or content; None leaves it out. more: further tensors.
    """
    draw, changes = np.random.default_rng(1), changes or {}
    tensors = []
    for name, shape in shapes().items():
        change = changes.get(name, shape)
        if change is None:
            continue
        other = change if isinstance(change, tuple) else shape
        values = draw.normal(0, 0.3, math.prod(other)).astype("<f4").tobytes()
        tensors.append(tensor(name, other, change if isinstance(change, bytes) else values))
    for name, number in SETTINGS.items():
        change = changes.get(name, number)
        if isinstance(change, int):
            # The converter writes counts in 16 bit, and choices in 8.
            is_count = name.endswith(("heads", "alignment_layer"))
            tensors.append(tensor(name, (), struct.pack("<h" if is_count else "<b", change), kind=1 + is_count))
    tensors += more
    alias = struct.pack("<I", 1) + _text("decoder/projection/weight") + _text("decoder/embeddings/weight")
    return struct.pack("<I", 6) + _text("WhisperSpec") + struct.pack("<II", 3, len(tensors)) + b"".join(tensors) + alias


def tensor(name: str, shape: tuple[int, ...], data: bytes, *, kind: int = 0) -> bytes:
    """A tensor as the file has it. kind: 0 for float32, 1 for int8, 2 for int16, 4 for float16, 5 for bfloat16."""
    head = struct.pack(f"<B{len(shape)}I", len(shape), *shape) + struct.pack("<BI", kind, len(data))
    return _text(name) + head + data


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data
