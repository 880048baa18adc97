"""Reading local media files: what is inside, sound at 16 kHz, upright pictures with their times.

Media time 0 is the earliest start of the sound and picture streams that are read; both keep their offset to it.
"""

from avsr.media.ahead import read_ahead
from avsr.media.audio import iter_audio, read_audio
from avsr.media.container import WarningSink
from avsr.media.picture import Picture
from avsr.media.probe import AudioStreamInfo, MediaInfo, VideoStreamInfo, probe
from avsr.media.video import MAX_SIDE_PX, VideoFrame, iter_frames

__all__ = [
    "MAX_SIDE_PX",
    "AudioStreamInfo",
    "MediaInfo",
    "Picture",
    "VideoFrame",
    "VideoStreamInfo",
    "WarningSink",
    "iter_audio",
    "iter_frames",
    "probe",
    "read_ahead",
    "read_audio",
]
