"""Names of media files: which suffixes stand for sound and which for video.

A folder is searched by these. A file that the user names may have any suffix.
"""

from __future__ import annotations

SOUND_SUFFIXES = frozenset(
    ".aac .ac3 .aif .aiff .amr .au .caf .flac .m4a .m4b .mka .mp2 .mp3 .oga .ogg .opus .wav .wma".split()
)

VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .avi .f4v .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv".split()
)

MEDIA_SUFFIXES = SOUND_SUFFIXES | VIDEO_SUFFIXES
