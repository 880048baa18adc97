"""Values of a stranger's file in error messages."""

from __future__ import annotations

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 100


def shown(value: object) -> str:
    """A text of about 100 characters for an error message, however large the value is.

    A hostile file may nest lists in each other so that their full text would fill the memory.
    """
    try:
        text = str(value) if isinstance(value, Exception) else _SHORT.repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a large {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."
