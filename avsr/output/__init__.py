"""A transcript as a file: one writer a format, each a pure function from Transcript to text.

The formats:

    txt    the words, one line a segment
    srt    SubRip subtitles
    vtt    WebVTT subtitles
    tsv    start and end in milliseconds, text: one line a segment, with a header
    json   everything there is, schema 1
    ctm    NIST CTM, one line a word, for scoring tools
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.errors import AvsrError, ConfigError, nearest
from avsr.output.ctm import to_ctm
from avsr.output.json import to_json
from avsr.output.srt import to_srt
from avsr.output.tsv import to_tsv
from avsr.output.txt import to_txt
from avsr.output.vtt import to_vtt
from avsr.transcript import Transcript

if TYPE_CHECKING:
    from os import PathLike

_WRITERS = {"txt": to_txt, "srt": to_srt, "vtt": to_vtt, "tsv": to_tsv, "json": to_json, "ctm": to_ctm}

FORMATS = tuple(_WRITERS)
"""The names of the formats; each is also the suffix of its files."""


def render(transcript: Transcript, format_name: str) -> str:
    """The text of one output file. It ends with a line break unless it is empty.

    Raises ConfigError for a format that is not in FORMATS.
    """
    if format_name not in _WRITERS:
        close = nearest(format_name, FORMATS)
        raise ConfigError(
            "unknown output format",
            got=repr(format_name),
            expected=", ".join(FORMATS),
            remedy=f"did you mean {close}?" if close else None,
        )
    return _WRITERS[format_name](transcript)


def write(transcript: Transcript, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write one output file, in UTF-8, in the format its suffix names; whole or not at all.

    Raises ConfigError for a suffix that names no format, AvsrError when the file is there and `overwrite` is False, or
    when it cannot be written.
    """
    path = Path(path)
    text = render(transcript, path.suffix.removeprefix(".").lower())
    # The name is short so that it fits wherever `path` does, and begins with a dot so that no `*.srt` meets it.
    partial = path.with_name(f".{os.urandom(6).hex()}.partial")
    try:
        if not overwrite and path.exists():
            raise AvsrError(f"{path}: is there already", remedy="give another name, or overwrite=True to replace it")
        # A file name that is not UTF-8 reaches us with lone surrogates, which backslashreplace makes into valid JSON.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        remedy = None if path.parent.is_dir() else f"make the folder {path.parent} first"
        raise AvsrError(f"{path}: cannot be written", got=reason, remedy=remedy) from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            partial.unlink()
