"""Random numbers that depend on their purpose, and never on the order of workers or on global state."""

from __future__ import annotations

import hashlib

import numpy as np


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from parts such as (seed, epoch, utterance id, purpose): the same on every machine.

    It is the first 8 bytes of the SHA-256 of `"/".join(parts)`, so no release of Python or numpy changes it.
    """
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> np.random.Generator:
    """A numpy generator with the seed `stable_seed(*parts)`."""
    return np.random.default_rng(stable_seed(*parts))
