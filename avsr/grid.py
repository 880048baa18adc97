"""The grid of time and shape that everything here shares: sample rate, frames, slots, pixels, and the modalities.

One clock: media time in seconds. Sound is 16 kHz mono. Log-mel features come every 10 ms, lip crops every 40 ms (a
slot), and our own encoders give one frame every 80 ms (two slots).
"""

from __future__ import annotations

from typing import Literal

SAMPLE_RATE_HZ = 16_000

HOP_MS = 10
HOP_SAMPLES = SAMPLE_RATE_HZ * HOP_MS // 1000
"""From one log-mel feature vector to the next."""

SLOT_MS = 40
SLOT_S = SLOT_MS / 1000
SLOT_SAMPLES = SAMPLE_RATE_HZ * SLOT_MS // 1000
"""A slot of the lip grid: one lip crop, whatever the frame rate of the video is."""

FRAME_SLOTS = 2
FRAME_MS = FRAME_SLOTS * SLOT_MS
FRAME_SAMPLES = FRAME_SLOTS * SLOT_SAMPLES
"""80 ms: the frame in which files are cut into windows, whatever the frames of a model are."""

CROP_PX = 96
"""Side of a lip crop, cut by the face finder and stored on disk."""

LIP_INPUT_PX = 88
"""Side of what a visual encoder reads: the centre of the crop, or a random part of it in training."""

Modality = Literal["a", "v", "av"]
"""What speech is recognised from: sound, lips, or both."""

MAX_HOURS = 24.0
"""Media time of a file. Longer recordings are read on demand only: recorders that run all day begin a new file each day
or earlier."""
