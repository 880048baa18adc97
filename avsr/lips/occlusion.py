"""Whether something covers a mouth: a hand, a microphone, a cup, a scarf.

The face mesh ignores such things: it puts lips where a face would have them. A small network, trained in
`avsr.training.occlusion`, judges each lip crop by itself. `follow_cover` smooths its verdicts over time. It uses the
past alone, so a live stream and a file give the same result.

Letters: B batch, H W pixels.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from avsr.arrays import Crops
from avsr.shipped import shipped_weights

INPUT_PX = 48
"""Side of the network's input: the whole lip crop at half its resolution."""
CONTRAST_FLOOR = 2.0
"""Grey levels, added to the deviation of a crop before it divides: the noise of a flat crop stays small."""
STRIDES = (2, 2, 2, 1)
"""Of the four convolutions. Each is padded by half its kernel."""

# Both thresholds were chosen on the development split, for few false alarms: a mouth that is lost by mistake costs more
# words than a mouth that is read through a hand for a moment.
COVERED_FROM = 2.0
"""A free mouth becomes covered once its smoothed log odds reach this."""
FREE_BELOW = 1.0
"""A covered mouth becomes free once its smoothed log odds fall below this."""
LOOK_EVERY_SLOTS = 2
"""The network judges every second slot. Judging every slot finds no more covers and makes face finding 3 % slower."""
_NEW_WEIGHT = 0.6  # of the newest verdict in the smoothed log odds: a cover is noticed after about 100 ms
_MAX_LOG_ODDS = 6.0  # a bound on each verdict, so that one alone makes no cover

_of_thread = threading.local()  # an OpenCV network serves one thread at a time


def cover_log_odds(crops_BHW: Crops) -> NDArray[np.float32]:
    """Log odds [B] that half of the mouth or more is covered in each crop uint8 [B, 96, 96]."""
    # By OpenCV, which works in the calling thread. Torch and the matrix products of numpy wake a thread for each core
    # for a fraction of a millisecond. These threads spin while they wait, and on busy cores one crop took up to 60 ms
    # of CPU time. OpenCV takes 0.06 ms.
    if not hasattr(_of_thread, "net"):
        _of_thread.net = _opencv_net()
    return np.array([_log_odds(crop, _of_thread.net) for crop in crops_BHW], np.float32)


def _log_odds(crop_HW: NDArray[np.uint8], net: cv2.dnn.Net) -> float:
    # Each crop by itself: its similarity to earlier crops is 0.4 to 0.9 behind a hand, and 0.2 to 1 if the head moves.
    pixels_HW = cv2.resize(crop_HW.astype(np.float32), (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    mean, spread = (float(value.item()) for value in cv2.meanStdDev(pixels_HW))
    deviation = spread * math.sqrt(pixels_HW.size / (pixels_HW.size - 1))  # the unbiased one, as in training
    net.setInput(((pixels_HW - np.float32(mean)) / np.float32(deviation + CONTRAST_FLOOR))[None, None])
    return float(net.forward().item())


def _opencv_net() -> cv2.dnn.Net:
    """The shipped network for OpenCV.

    It is handed over in Darknet's format, because that can be written by hand: a text that lists the layers, and five
    integers followed by the biases and weights of each layer. The linear layers become convolutions.
    """
    weights = shipped_weights("occlusion")
    layers = [
        (f"convolutions.{index}", weights[f"convolutions.{index}.weight"].shape[-1], stride, "relu")
        for index, stride in enumerate(STRIDES)
    ]
    layers += [("flat", INPUT_PX // math.prod(STRIDES), 1, "relu"), ("out", 1, 1, "linear")]
    text = f"[net]\nwidth={INPUT_PX}\nheight={INPUT_PX}\nchannels=1\n"
    values = np.array([0, 2, 0, 0, 0], np.int32).tobytes()
    for name, size, stride, activation in layers:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        padding = size // 2 if name.startswith("convolutions") else 0
        text += f"[convolutional]\nfilters={len(weight)}\nsize={size}\nstride={stride}\npad=0\npadding={padding}\n"
        text += f"activation={activation}\n"
        values += bias.astype(np.float32).tobytes() + weight.astype(np.float32).tobytes()
    return cv2.dnn.readNetFromDarknet(*(np.frombuffer(data, np.uint8) for data in (text.encode(), values)))


class CoverState(NamedTuple):
    """The decision on one face so far."""

    log_odds: float = -_MAX_LOG_ODDS
    """Smoothed log odds that the mouth is covered."""
    is_covered: bool = False


def follow_cover(state: CoverState, log_odds: float) -> CoverState:
    """The state after the next verdict of the network. It holds for that slot and those up to the next verdict."""
    bounded = min(max(log_odds, -_MAX_LOG_ODDS), _MAX_LOG_ODDS)
    smoothed = state.log_odds + _NEW_WEIGHT * (bounded - state.log_odds)
    # Two thresholds, so that a mouth near one of them does not flicker.
    return CoverState(smoothed, smoothed >= (FREE_BELOW if state.is_covered else COVERED_FROM))
