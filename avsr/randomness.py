"""Random numbers that depend on what they are for, never on worker order or global state."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from (seed, epoch, utterance id, purpose, ...): the same on every machine."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator seeded by `stable_seed(*parts)`."""
    return np.random.default_rng(stable_seed(*parts))
