"""Makes lists of the parameters in docstrings, for the pages of the API reference.

A docstring describes its parameters one a line, as in `chunk_ms: how much sound ...`, with further lines indented.
Markdown would run such lines together into one paragraph. `mkdocs.yml` names this extension of griffe.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ENTRY = re.compile(r"(?P<names>\**[a-z_]\w*(, \**[a-z_]\w*)*): (?P<text>\S.*)")
"""A line that begins with the names of parameters, a colon, and text."""


def with_lists(text: str) -> str:
    """The text of a docstring with its lines of parameters as items of a Markdown list."""
    lines: list[str] = []
    in_entry = False
    for line in text.splitlines():
        entry = ENTRY.fullmatch(line)
        if entry is not None:
            if lines and lines[-1].strip() and not in_entry:
                lines.append("")  # a list needs an empty line before it
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            line = f"- {names}: {entry['text']}"
            in_entry = True
        elif in_entry and line and not line.startswith(" "):
            lines.append("")  # a paragraph after a list needs one too
            in_entry = False
        elif not line:
            in_entry = False
        lines.append(line)
    return "\n".join(lines)


class DocstringLists(Extension):
    """Changes every docstring that griffe reads."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Called with each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = with_lists(obj.docstring.value)
