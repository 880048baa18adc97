"""Reads local media files: their streams, their sound at 16 kHz, and their pictures, upright and with times.

Media time 0 is the start of the sound or of the pictures, whichever comes first. The other keeps its offset.
"""

from avsr.media.ahead import read_ahead
from avsr.media.audio import iter_audio, read_audio
from avsr.media.picture import Picture
from avsr.media.probe import AudioStreamInfo, MediaInfo, VideoStreamInfo, probe
from avsr.media.tracks import Tracks
from avsr.media.types import MEDIA_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from avsr.media.video import MAX_SIDE_PX, VideoFrame, iter_frames, sample_pictures

__all__ = [
    "MAX_SIDE_PX",
    "MEDIA_SUFFIXES",
    "SOUND_SUFFIXES",
    "VIDEO_SUFFIXES",
    "AudioStreamInfo",
    "MediaInfo",
    "Picture",
    "Tracks",
    "VideoFrame",
    "VideoStreamInfo",
    "iter_audio",
    "iter_frames",
    "probe",
    "read_ahead",
    "read_audio",
    "sample_pictures",
]
