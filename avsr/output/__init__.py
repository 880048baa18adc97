"""A transcript as the text of a file, or written to one.

    txt    the words, one line a segment
    srt    SubRip subtitles
    vtt    WebVTT subtitles
    tsv    start and end in milliseconds, text: one line a segment, with a header
    json   everything a transcript holds, schema 2
    ctm    NIST CTM, one line a word, for scoring tools

Each format is a pure function from Transcript to text.
"""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.errors import AvsrError, ConfigError, nearest
from avsr.files import remedy_for, write_text
from avsr.output.formats import to_ctm, to_json, to_json_line, to_tsv, to_txt
from avsr.output.subtitles import Layout, to_srt, to_vtt

if TYPE_CHECKING:  # a transcript renders itself, so importing it here would close a circle
    from avsr.transcript import Transcript

__all__ = ["FORMATS", "SUBTITLES", "Layout", "render", "to_json_line", "write"]

_TEXTS = {"txt": to_txt, "tsv": to_tsv, "json": to_json, "ctm": to_ctm}
_SUBTITLES = {"srt": to_srt, "vtt": to_vtt}

SUBTITLES = tuple(_SUBTITLES)
"""The formats that a Layout is for."""

FORMATS = ("txt", *SUBTITLES, "tsv", "json", "ctm")
"""The names of the formats. Each name is also the suffix of its files."""


def render(transcript: Transcript, format_name: str, layout: Layout | None = None) -> str:
    """The text of one output file. It ends with a line break unless it is empty.

    layout: how subtitles look; None for the usual layout.

    Raises ConfigError for a format that is not in FORMATS, and for a layout of a format that has none.
    """
    if format_name not in FORMATS:
        close = nearest(format_name, FORMATS)
        raise ConfigError(
            "unknown output format",
            got=repr(format_name),
            expected=", ".join(FORMATS),
            remedy=f"did you mean {close}?" if close else None,
        )
    if format_name in _SUBTITLES:
        return _SUBTITLES[format_name](transcript, layout or Layout())
    if layout is not None:
        raise ConfigError("only subtitles have a layout", got=format_name, expected=" or ".join(SUBTITLES))
    return _TEXTS[format_name](transcript)


def write(
    transcript: Transcript, path: str | PathLike[str], *, overwrite: bool = False, layout: Layout | None = None
) -> None:
    """Write one output file in UTF-8, whole or not at all. The suffix of its name chooses the format.

    layout: how subtitles look; None for the usual layout.

    Raises ConfigError for a suffix that names no format, and as `render`. Raises AvsrError if the file exists and
    `overwrite` is False, or if it cannot be written.
    """
    path = Path(path)
    text = render(transcript, path.suffix.removeprefix(".").lower(), layout)
    try:
        if not overwrite and path.exists():
            raise AvsrError(f"{path}: is there already", remedy="give another name, or overwrite=True to replace it")
        # write_text would make a missing folder; a spelling mistake in a path should be an error instead. The slash
        # at the end tells a missing folder from a file of that name.
        os.stat(os.path.join(path.parent, ""))
        write_text(path, text)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        remedy = remedy_for(error) if isinstance(error, OSError) else None
        if not path.parent.is_dir():
            remedy = f"make the folder {path.parent} first"
        raise AvsrError(f"{path}: cannot be written", got=reason, remedy=remedy) from None
