"""The formats that are read, and how their files are told from others: by their suffix, or by their first bytes.

A folder is searched by these. A file that the user names may have any name.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Format(NamedTuple):
    """A family of formats."""

    names: str
    """What FFmpeg calls the formats, joined by commas. No other formats are opened."""
    sound: str = ""
    """Suffixes of files of sound, joined by blanks."""
    video: str = ""
    """Suffixes of files with a picture, joined by blanks."""


# Only formats that hold the media themselves. Play lists and descriptions (hls, dash, concat, sdp, ...) open other
# files or hosts, still images are no video, and formats without a header accept any bytes.
FORMATS = (
    Format(
        "mov,mp4,m4a,3gp,3g2,mj2",
        sound=".m4a .m4b .m4r .f4a .isma",
        video=".mp4 .m4v .mov .qt .3gp .3gpp .3g2 .3gp2 .f4v .ismv .mj2",
    ),
    Format("matroska,webm", sound=".mka .weba", video=".mkv .mk3d .webm"),
    Format("avi", video=".avi .divx"),
    Format("mpeg,mpegvideo", video=".mpg .mpeg .mpe .m2p .vob .m1v .m2v .mpv"),
    Format("mpegts", video=".ts .m2ts .mts .m2t .trp"),
    Format("m4v,h264,hevc,ivf,obu", video=".h264 .264 .avc .h26l .hevc .h265 .265 .ivf .obu"),
    Format("flv", video=".flv"),
    Format("asf", sound=".wma", video=".wmv .asf"),
    Format("mxf", video=".mxf"),
    Format("nut", video=".nut"),
    Format("ogg", sound=".ogg .oga .opus .spx", video=".ogv .ogm .ogx"),
    Format("wav,w64", sound=".wav .wave .bwf .w64"),
    Format("flac", sound=".flac"),
    Format("mp3", sound=".mp3 .mp2 .mpa .m2a"),
    Format("aac", sound=".aac .adts"),
    Format("ac3,eac3", sound=".ac3 .eac3 .ec3"),
    Format("aiff", sound=".aif .aiff .aifc .afc"),
    Format("au", sound=".au .snd"),
    Format("caf", sound=".caf"),
    Format("amr", sound=".amr .awb"),
    Format("wv", sound=".wv"),
    Format("dv", video=".dv .dif"),
    Format("yuv4mpegpipe", video=".y4m"),
)

FORMAT_NAMES = ",".join(family.names for family in FORMATS)
"""All formats that are opened, as FFmpeg takes them."""

SOUND_SUFFIXES = frozenset(suffix for family in FORMATS for suffix in family.sound.split())

VIDEO_SUFFIXES = frozenset(suffix for family in FORMATS for suffix in family.video.split())

MEDIA_SUFFIXES = SOUND_SUFFIXES | VIDEO_SUFFIXES

HEAD_BYTES = 512
"""How many bytes `is_media_head` wants to see."""

# At a place in the file, the bytes with which the files of a format begin.
_MAGIC = (
    *((0, bytes.fromhex(start)) for start in ("1a45dfa3", "000001ba", "000001b3", "3026b275", "060e2b34")),
    *((0, start) for start in (b"OggS", b"fLaC", b"FLV\1", b"ID3", b"#!AMR", b"caff", b".snd", b"wvpk", b"DKIF")),
    *((0, start) for start in (b"nut/multimedia container", b"YUV4MPEG2", b"riff\x2e\x91\xcf\x11", b"\x0b\x77")),
    # The first frame of MP3 or AAC without a title in front.
    *((0, b"\xff" + start) for start in (b"\xfb", b"\xfa", b"\xf3", b"\xf2", b"\xfd", b"\xfc", b"\xf1", b"\xf9")),
    *((4, box) for box in (b"moov", b"mdat", b"wide")),
)
_RIFFS = ((b"RIFF", b"WAVE"), (b"RIFF", b"AVI "), (b"RF64", b"WAVE"), (b"FORM", b"AIFF"), (b"FORM", b"AIFC"))
# The same container as MP4, with a photograph in it.
_PHOTOGRAPHS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jp2 ")
# Packets of a transport stream are 188 bytes long and begin with this byte. A Blu-ray puts 4 bytes before each packet.
_SYNC, _PACKET_BYTES, _TIMED_PACKET_BYTES = 0x47, 188, 192


def media_suffix(name: str) -> str:
    """The suffix of a media file, as it stands at the end of `name`, in any case and with blanks and dots after it.

    Empty if `name` does not end in the suffix of a media file, such as "Ep. 12 final" and "notes.pdf".
    """
    match = re.search(r"(?<=[^/])(\.[0-9a-z]+)[\s.]*\Z", name, re.IGNORECASE)
    return match[0] if match and match[1].lower() in MEDIA_SUFFIXES else ""


def media_stem(name: str) -> str:
    """`name`, or a path, without the suffix of a media file. Any other ending belongs to the name."""
    return name.removesuffix(suffix) if (suffix := media_suffix(name)) else name


def is_sound_name(name: str) -> bool:
    """Whether the suffix of `name` stands for files of sound without a picture."""
    return re.sub(r"[\s.]*\Z", "", media_suffix(name)).lower() in SOUND_SUFFIXES


def says_nothing(name: str) -> bool:
    """Whether the end of `name` does not tell the kind of the file, because it has no suffix that looks like one.

    "talk", "Ep. 12 final" and "talk v1.2" say nothing; "notes.pdf" and "talk.mp4.part" do.
    """
    return re.search(r"(?<=[^/])\.(?=\w*[a-z])\w{1,16}~?[\s.]*\Z", name, re.IGNORECASE | re.ASCII) is None


def is_media_head(head: bytes) -> bool:
    """Whether a file that begins with `head` (at best HEAD_BYTES bytes) looks like one of FORMATS."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PHOTOGRAPHS
    if (head[:4], head[8:12]) in _RIFFS or any(head.startswith(magic, place) for place, magic in _MAGIC):
        return True
    return any(
        len(head) > first + 2 * step and all(head[first + number * step] == _SYNC for number in range(3))
        for first, step in ((0, _PACKET_BYTES), (4, _TIMED_PACKET_BYTES))
    )
