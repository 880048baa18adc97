"""Looks for a second recording behind the first one, in containers whose reader stops at the end of the first.

MP4, WAV, AIFF and FLV files that were joined byte by byte are read like their first part, by every player too. What
follows must not be lost without a word.
"""

from __future__ import annotations

import re
from pathlib import Path

_BEGINNINGS = re.compile(
    rb"RIFF....(?:WAVE|AVI )"  # WAV and AVI
    rb"|FORM....AIF[FC]"  # AIFF
    rb"|FLV\x01[\x00-\x05]\x00\x00\x00\x09"  # Flash video
    rb"|\x00\x00\x00[\x08-\xff]ftyp"  # MP4 and MOV
    rb"|caff\x00[\x00-\x02]\x00\x00desc"  # Core Audio
    rb"|\x1aE\xdf\xa3[\x80-\xff].{0,8}B\x86\x81"  # Matroska
    rb"|fLaC\x00\x00\x00\x22",
    re.DOTALL,
)
"""The first bytes of recordings, long enough not to come up by chance."""

_BLOCK_BYTES = 1 << 20
_OVERLAP_BYTES = 32  # longer than any beginning, which may lie across two blocks
_MAX_BYTES = 64 << 20


def second_recording(path: Path, after: int) -> int | None:
    """The byte at which another recording begins, None if there is none within 64 MiB.

    after: the byte behind the last packet that was read.
    """
    if after >= path.stat().st_size:
        return None
    with path.open("rb") as file:
        file.seek(after)
        before = b""
        for start in range(after, after + _MAX_BYTES, _BLOCK_BYTES):
            block = before + file.read(_BLOCK_BYTES)
            found = _BEGINNINGS.search(block)
            if found is not None:
                return start - len(before) + found.start()
            if len(block) - len(before) < _BLOCK_BYTES:
                return None
            before = block[-_OVERLAP_BYTES:]
    return None
