"""Downloads models from the Hugging Face hub by their id, such as `hf:nvidia/parakeet-ctc-1.1b`.

Without `hf:` no name reaches the network: an id looks like a path, and a mistyped path would fetch the model that a
stranger gave this name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from avsr.catalogue.hub import snapshot
from avsr.decoding.tokenizer import SentencePieceTokenizer, WordTokenizer
from avsr.errors import ModelError
from avsr.families.own.checkpoint import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME

# A repository may also hold the same model for other programs, many times as large.
WANTED = (
    *("*.nemo", CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, SentencePieceTokenizer.FILE_NAME, WordTokenizer.FILE_NAME),
    # Whisper in the form of CTranslate2.
    *("model.bin", "config.json", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"),
    # Published models that read lips, with the list of their units.
    *("model.pth", "model.json", "*_units.txt"),
)


PREFIX = "hf:"


def is_hub_id(name: str) -> bool:
    """Whether `name`, without `hf:`, could be an id of the hub: two plain names with a slash between them."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII) is not None and not name.endswith(".nemo")


def hub_id(name: str) -> str | None:
    """The id that `name` asks the hub for; None if it does not begin with `hf:`. Raises ModelError for another text."""
    if not name.startswith(PREFIX):
        return None
    repository = name.removeprefix(PREFIX)
    if not is_hub_id(repository):
        raise ModelError(f"{name}: no id of the hub", expected=f"{PREFIX}ACCOUNT/NAME")
    return repository


def fetch(repository: str, is_owned: Callable[[str], bool]) -> Path:
    """The path of a model from the hub: a folder or a `.nemo` file. It is downloaded once and then kept.

    is_owned: whether a family opens a folder. Raises ModelError if huggingface_hub is not installed, the hub cannot be
    reached, or it has no such model.
    """
    folder = snapshot(repository, WANTED)
    if is_owned(str(folder)):  # our own format loads faster, so it goes before an archive
        return folder
    archives = sorted(folder.glob("*.nemo"))
    if len(archives) != 1:  # with several nothing says which one is meant
        raise ModelError(f"{repository}: not a checkpoint", got=f"{len(archives)} .nemo files", expected="one")
    return archives[0]
