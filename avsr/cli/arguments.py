"""Values that several commands take on their command line."""

from __future__ import annotations

import argparse
import math
import re


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Declare --quiet."""
    parser.add_argument("--quiet", action="store_true", help="no progress bar, notes or warnings; errors remain")


def positive_integer(text: str) -> int:
    """Type of an option that counts something."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1 on")
    return int(text)


def named_folder(text: str) -> tuple[str, str]:
    """Type of an option KIND=FOLDER."""
    kind, equals, folder = text.partition("=")
    if not (kind and equals and folder):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KIND=FOLDER, as in environment=noise/")
    return kind, folder


def words(text: str) -> tuple[str, ...]:
    """Type of an option whose value is a list joined by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def decibels(text: str) -> tuple[float | None, ...]:
    """Type of a list of SNRs; "clean" is None."""
    return tuple(None if word == "clean" else _decibel(word) for word in words(text))


def _decibel(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not -60 <= value <= 60:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected dB from -60 to 60, or clean")
    return value


def whole_numbers(text: str) -> tuple[int, ...]:
    """Type of a list of seeds."""
    try:
        return tuple(int(word) for word in words(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers, as in 1,2,3") from None


def face(text: str) -> str:
    """Type of --face."""
    if text not in ("auto", "largest") and not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, largest or the number of a face")
    return text


def device(text: str) -> str:
    """Type of --device."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected auto, cpu, cuda or cuda:N")
    return text
