"""Files that come with the package: models, training configurations, vocabularies and recipes.

    avsr/assets/NAME/        a model, or the weights of a small head
    avsr/assets/configs/     training configurations, NAME.yaml
    avsr/assets/data/        vocabularies and splits
    avsr/assets/recipes/     how the shipped weights were made

In the repository the last three are links to the folders configs/, data/ and recipes/ at its top. A wheel holds the
files themselves, so that all of this works without a clone.
"""

from __future__ import annotations

import difflib
import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsr.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ASSETS = Path(__file__).parent / "assets"
CONFIGURATIONS = ASSETS / "configs"
RECIPES = ASSETS / "recipes"
SUFFIX = ".yaml"


def configuration_names() -> list[str]:
    """The names of the shipped training configurations, in order."""
    return sorted(path.stem for path in CONFIGURATIONS.glob(f"*{SUFFIX}"))


def find_configuration(name_or_path: str | PathLike[str]) -> Path:
    """The training configuration of this path or shipped name.

    An existing file wins. Otherwise "grid-tiny", "grid-tiny.yaml" and "configs/grid-tiny.yaml" all name the shipped
    file. Raises ConfigError, with the nearest name, for an unknown one.
    """
    name = os.fsdecode(name_or_path)
    # A file of the user goes before a shipped configuration of the same name.
    if os.path.isfile(name):
        return Path(name)
    stem = name.removeprefix("configs/").removesuffix(SUFFIX)
    names = configuration_names()
    if stem in names:
        return CONFIGURATIONS / f"{stem}{SUFFIX}"
    # A path with a folder is no slip of a name, and "mine.yaml" is not near enough to any.
    close = None if os.sep in stem else next(iter(difflib.get_close_matches(stem, names, n=1, cutoff=0.7)), None)
    raise ConfigError(
        f"{name}: no such configuration",
        expected=f"a YAML file, or one of {', '.join(names)}",
        remedy=f"did you mean {close}?" if close else "check the path",
    )


def find_file(path: str | PathLike[str]) -> Path:
    """`path` if it exists; else the shipped file of this relative path, as in "data/grid/vocabulary.txt".

    A copy of a shipped configuration can therefore be used in any folder. If there is no shipped file either, `path`
    comes back unchanged, so that an error about the file names the path that the user wrote.
    """
    given = Path(path)
    shipped = ASSETS / given  # an absolute path replaces ASSETS
    return shipped if not given.exists() and shipped.exists() else given


def shipped_weights(name: str) -> dict[str, NDArray[Any]]:
    """The arrays in `assets/NAME` by name, as stored: mostly 16 bit. Raises ModelError if they are unreadable."""
    # The numpy reader, so that face finding and voice activity need no torch.
    import safetensors.numpy

    path = ASSETS / name / "model.safetensors"
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read", got=error, remedy="install avsr again") from error


def summary_of(configuration: Path) -> str:
    """What a configuration is, in one line: its first comment line."""
    first, _, _ = configuration.read_text(encoding="utf-8").partition("\n")
    return first.removeprefix("#").strip() if first.startswith("#") else ""
