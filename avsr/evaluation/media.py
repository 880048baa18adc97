"""Sound and lips of an utterance in the formats of a page."""

from __future__ import annotations

import io

import numpy as np

from avsr.arrays import Crops, Present, Samples
from avsr.grid import SAMPLE_RATE_HZ

STRIP_PICTURES, STRIP_PX = 20, 48
MP3_BITS = 32_000


def lip_strip(crops_THW: Crops, present_T: Present) -> bytes:
    """Lips of a clip side by side, evenly spread over its time, as JPEG; absent slots are black."""
    import cv2

    # A short clip has fewer slots than the strip has pictures.
    chosen = np.unique(np.linspace(0, len(crops_THW) - 1, STRIP_PICTURES).round().astype(int))
    shown = [crops_THW[index] * present_T[index] for index in chosen]
    small = [cv2.resize(crop, (STRIP_PX, STRIP_PX), interpolation=cv2.INTER_AREA) for crop in shown]
    _, data = cv2.imencode(".jpg", np.hstack(small), [cv2.IMWRITE_JPEG_QUALITY, 70])
    return data.tobytes()


def mp3(samples: Samples) -> bytes:
    """Samples as MP3, which every browser plays."""
    import av

    data = io.BytesIO()
    pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)
    with av.open(data, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = MP3_BITS
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()
