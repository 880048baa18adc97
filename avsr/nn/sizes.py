"""The largest sizes of a network. A configuration from a stranger is refused before anything of it is built.

Each limit is at least twice the size of the largest published model. This module does not import torch.
"""

from __future__ import annotations

MAX_LAYERS = 100
MAX_WIDTH = 8192
"""Of a frame, and the channels of a convolution."""
MAX_HEADS = 128
MAX_EXPANSION = 64
MAX_KERNEL = 999
MAX_STEM_SLOTS = 64
MAX_MELS = 256
MAX_CONTEXT_FRAMES = 10_000
"""How far attention with a limit reaches to each side: 13 minutes in frames of 80 ms."""
MAX_CONTEXTS = 100
MAX_GLOBAL_TOKENS = 1000
MAX_GLOBAL_SPACING = 1_000_000
MAX_MEAN = 1000.0
"""Of inputs that are normalised by fixed numbers."""
LEAST_DEVIATION = 1e-6
MAX_DEVIATION = 1000.0


def check_size(name: str, value: float, most: float, least: float = 1) -> None:
    """Raises ValueError unless `value` is from `least` to `most`. NaN is not."""
    if value < least:
        raise ValueError(f"{name}: got {_shown(value)}, expected {least:g} or more")
    if not value <= most:  # larger, or NaN
        raise ValueError(f"{name}: got {_shown(value)}, expected at most {most:.10g}")


def _shown(value: float) -> str:
    """A number as a short text. Python refuses to print whole numbers of thousands of digits."""
    return str(value) if isinstance(value, float) or abs(value) < 10**20 else "a number of more than 20 digits"
