"""Checks that the tensors of a CTranslate2 file form one Whisper network, and that its settings fit it.

CTranslate2 looks tensors up by name and believes their shapes. It takes numbers of config.json for places in memory: a
wrong one ends the process, or changes memory that belongs to something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from avsr.decoding.tokenizer import MAX_UNITS
from avsr.nn.sizes import MAX_HEADS, MAX_LAYERS, MAX_MELS, MAX_WIDTH
from avsr.untrusted.values import shown

AUDIO_POSITIONS, TEXT_POSITIONS = 1500, 448
"""Lengths of the position tables of all Whisper models: 30 s of sound, and the longest text."""

Shape = tuple[int, ...]


class Found(NamedTuple):
    """A tensor of the file, as far as it is checked."""

    shape: Shape
    value: int | None = None
    """Of a single whole number."""


class Sizes(NamedTuple):
    """The sizes of the network."""

    width: int
    mels: int
    tokens: int
    layers: int
    """Of the decoder."""
    heads: int
    """Of each layer of the decoder."""


class WrongNetworkError(Exception):
    """What does not fit, in half a line."""


def check_network(found: Mapping[str, Found]) -> Sizes:
    """The sizes of the network of these tensors. Raises WrongNetworkError if a tensor does not fit the others."""
    width, mels, _ = _shape(found, "encoder/conv1/weight", 3)
    tokens, _ = _shape(found, "decoder/embeddings/weight", 2)
    layers = {side: _layers(found, side) for side in ("encoder", "decoder")}
    for name, value, most in (("width", width, MAX_WIDTH), ("mels", mels, MAX_MELS), ("tokens", tokens, MAX_UNITS)):
        if not 1 <= value <= most:
            raise WrongNetworkError(f"{value} {name}")
    for name, shape in _expected(width, mels, tokens, layers):
        if name not in found:
            raise WrongNetworkError(f"no tensor {name}")
        if found[name].shape != shape:
            raise WrongNetworkError(f"a tensor {name} of shape {list(found[name].shape)} in the place of {list(shape)}")
    for name, shape in (("decoder/projection/weight", (tokens, width)), ("decoder/projection/bias", (tokens,))):
        if name in found and found[name].shape != shape:
            raise WrongNetworkError(f"a tensor {name} of shape {list(found[name].shape)} in the place of {list(shape)}")
    for name, tensor in found.items():
        # Weights in 8 bit have a scale for each row, those in 16 bit one for all.
        if name.endswith("/weight_scale"):
            rows = found.get(name.removesuffix("_scale"), Found(())).shape[:1]
            if tensor.shape not in ((), (1,), rows):
                raise WrongNetworkError(f"a tensor {name} of shape {list(tensor.shape)}")
    heads: dict[str, int | None] = {side: found.get(f"{side}/num_heads", Found(())).value for side in layers}
    for side, number in heads.items():
        if number is None or not 1 <= number <= MAX_HEADS or width % number:
            raise WrongNetworkError(f"{number} heads in the {side} of width {width}")
    # The layer counts from the end if it is negative.
    places = {"alignment_layer": (-layers["decoder"], layers["decoder"]), "alignment_heads": (0, heads["decoder"] or 0)}
    for name, (least, end) in places.items():
        place = found.get(f"decoder/{name}", Found(())).value
        if place is not None and not least <= place < end:
            raise WrongNetworkError(f"{name} {place}")
    return Sizes(width, mels, tokens, layers["decoder"], heads["decoder"] or 0)


def check_settings(content: Any, sizes: Sizes) -> None:
    """Raises WrongNetworkError unless the numbers of config.json are tokens and heads of the network."""
    if not isinstance(content, dict):
        raise WrongNetworkError("no object of JSON")
    for key in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
        if key not in content:
            continue
        numbers = content[key]
        if not isinstance(numbers, list) or not all(_is_below(number, sizes.tokens) for number in numbers):
            raise WrongNetworkError(f"{key} {shown(numbers)}, where numbers of tokens are expected")
    if "alignment_heads" in content:
        pairs = content["alignment_heads"]
        most = (sizes.layers, sizes.heads)
        if not isinstance(pairs, list) or not all(_is_pair(pair, most) for pair in pairs):
            raise WrongNetworkError(f"alignment_heads {shown(pairs)}, where pairs of a layer and a head are expected")
        if len({tuple(pair) for pair in pairs}) != len(pairs):
            raise WrongNetworkError("alignment_heads with one head twice")


def _is_below(number: object, most: int) -> bool:
    return type(number) is int and 0 <= number < most


def _is_pair(pair: object, most: tuple[int, int]) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(map(_is_below, pair, most))


def _shape(found: Mapping[str, Found], name: str, dimensions: int) -> Shape:
    shape = found.get(name, Found(())).shape
    if len(shape) != dimensions:
        raise WrongNetworkError(f"a tensor {name} of {len(shape)} dimensions in the place of {dimensions}")
    return shape


def _layers(found: Mapping[str, Found], side: str) -> int:
    numbers = {int(match[1]) for name in found if (match := re.match(rf"{side}/layer_([0-9]{{1,4}})/", name))}
    if not numbers or len(numbers) > MAX_LAYERS or max(numbers) != len(numbers) - 1:
        raise WrongNetworkError(f"{len(numbers)} layers in the {side}")
    return len(numbers)


def _expected(width: int, mels: int, tokens: int, layers: Mapping[str, int]) -> Iterator[tuple[str, Shape]]:
    """The names and shapes of all tensors that every file has."""
    yield "encoder/conv1/weight", (width, mels, 3)
    yield "encoder/conv2/weight", (width, width, 3)
    yield from ((f"encoder/{part}/bias", (width,)) for part in ("conv1", "conv2"))
    yield "encoder/position_encodings/encodings", (AUDIO_POSITIONS, width)
    yield "decoder/position_encodings/encodings", (TEXT_POSITIONS, width)
    yield "decoder/embeddings/weight", (tokens, width)
    for side, count in layers.items():
        yield from _norm(f"{side}/layer_norm", width)
        for number in range(count):
            layer = f"{side}/layer_{number}"
            yield from _linear(f"{layer}/self_attention", [(3 * width, width), (width, width)], width)
            yield from _linear(f"{layer}/ffn", [(4 * width, width), (width, 4 * width)], width)
            if side == "decoder":
                maps = [(width, width), (2 * width, width), (width, width)]
                yield from _linear(f"{layer}/attention", maps, width)


def _linear(part: str, maps: list[tuple[int, int]], width: int) -> Iterator[tuple[str, Shape]]:
    """A part of a layer: its norm, and the linear maps after it."""
    yield from _norm(f"{part}/layer_norm", width)
    for number, shape in enumerate(maps):
        yield f"{part}/linear_{number}/weight", shape
        yield f"{part}/linear_{number}/bias", shape[:1]


def _norm(part: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{part}/gamma", (width,)
    yield f"{part}/beta", (width,)
