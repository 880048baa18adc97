"""Downloads models from the Hugging Face hub by their id, such as `nvidia/parakeet-ctc-1.1b`."""

from __future__ import annotations

import re
from pathlib import Path

from avsr.decoding.tokenizer import SentencePieceTokenizer, WordTokenizer
from avsr.errors import ModelError
from avsr.families.own.checkpoint import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME

# A repository may also hold the same model for other programs, many times as large.
WANTED = ("*.nemo", CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, SentencePieceTokenizer.FILE_NAME, WordTokenizer.FILE_NAME)


def is_hub_id(name: str) -> bool:
    """Whether `name` could be an id of the hub: two plain names with a slash between them."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not name.endswith(".nemo")


def fetch(repository: str) -> Path:
    """The path of a model from the hub: a checkpoint folder or a `.nemo` file. It is downloaded once and then kept.

    Raises ModelError if huggingface_hub is not installed, the hub cannot be reached, or it has no such model.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise ModelError(
            f"no model {repository!r} here, and asking the hub needs huggingface_hub",
            remedy="pip install '.[hub]', or download the model and give its path",
        ) from None
    try:
        folder = Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(WANTED)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ModelError(
            f"model {repository!r} cannot be fetched from the hub",
            got=error,
            remedy="check the name and the connection, or download the model and give its path",
        ) from None
    if (folder / CONFIG_NAME).is_file():  # our own format loads faster, so it goes before an archive
        return folder
    archives = sorted(folder.glob("*.nemo"))
    if len(archives) != 1:  # with several nothing says which one is meant
        raise ModelError(f"{repository}: not a checkpoint", got=f"{len(archives)} .nemo files", expected="one")
    return archives[0]
