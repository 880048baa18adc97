"""Whether something is before a mouth: a hand, a microphone, a cup, a scarf.

The face mesh takes no notice of such things: it puts lips where a face would have them. A small network,
`OcclusionHead`, looks at each lip crop by itself; `follow_cover` decides from that over time, by the past alone, so
that it is the same live and for files.

Letters: B batch, H W pixels.
"""

from __future__ import annotations

import functools
import math
import threading
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avsr.nn.shipped import with_shipped_weights

INPUT_PX = 48
"""Side of what the head sees: the whole lip crop at half its resolution."""

# Chosen on the development split, for few false alarms: a mouth that is lost by mistake costs more words than one that
# is read through a hand for a moment.
COVERED_FROM = 2.0
FREE_BELOW = 1.0
"""A mouth counts as covered once the smoothed log odds reach the one, and as free once they fall below the other."""
LOOK_EVERY_SLOTS = 2
"""A verdict holds for so many slots. Looking at each finds no more, and costs 3 % of the way from a file to crops."""
_NEW_WEIGHT = 0.6  # of the newest look in the smoothed log odds: a cover is noticed after some 100 ms
_MAX_LOG_ODDS = 6.0  # no single look makes a cover

_CONTRAST_FLOOR = 2.0  # grey levels: noise of a flat crop is not blown up to a picture


class OcclusionHead(nn.Module):
    """Lip crops as `head_input` gives them, [B, 48, 48], -> log odds [B] that half of the mouth or more is covered."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(1, 16, 5, stride=2, padding=2),
                nn.Conv2d(16, 24, 3, stride=2, padding=1),
                nn.Conv2d(24, 32, 3, stride=2, padding=1),
                nn.Conv2d(32, 32, 3, padding=1),
            ]
        )
        self.flat = nn.Linear(32 * (INPUT_PX // 8) ** 2, 20)
        self.out = nn.Linear(20, 1)

    def forward(self, pixels_BHW: Tensor) -> Tensor:
        x = pixels_BHW[:, None]
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        return self.out(F.relu(self.flat(x.flatten(1))))[:, 0]


def head_input(crops_BHW: Tensor) -> Tensor:
    """Crops [B, 96, 96] in grey levels -> float [B, 48, 48], each minus its mean, in units of its own contrast."""
    pixels_BHW = F.avg_pool2d(crops_BHW.float()[:, None], 2)[:, 0]
    deviation, mean = torch.std_mean(pixels_BHW, dim=(1, 2), keepdim=True)
    return (pixels_BHW - mean) / (deviation + _CONTRAST_FLOOR)


@functools.cache
def occlusion_head() -> OcclusionHead:
    """The trained head that comes with the package, in float32, for evaluation; one a process."""
    return with_shipped_weights(OcclusionHead(), "occlusion")


@torch.inference_mode()
def cover_log_odds(crops_BHW: NDArray[np.uint8], head: OcclusionHead | None = None) -> NDArray[np.float32]:
    """Log odds [B] that the mouth in each crop uint8 [B, 96, 96] is covered. head: by default the shipped one."""
    if head is None and len(crops_BHW) < _BATCH_FROM:
        return np.array([_log_odds_of(crop) for crop in crops_BHW], np.float32)
    log_odds: NDArray[np.float32] = (head or occlusion_head())(head_input(torch.from_numpy(crops_BHW))).numpy()
    return log_odds


# So few crops are left to OpenCV. Torch, and matrix products of numpy, wake a thread for each core for a fraction of a
# millisecond: they spin while they wait, and on busy cores a crop cost up to 60 ms of CPU time. Here it is 0.06 ms.
_BATCH_FROM = 8

_of_thread = threading.local()  # an OpenCV network serves one thread at a time


def _log_odds_of(crop_HW: NDArray[np.uint8]) -> float:
    """What the shipped head says of one crop uint8 [96, 96]."""
    if not hasattr(_of_thread, "net"):
        _of_thread.net = _opencv_net(occlusion_head())
    pixels_HW = cv2.resize(crop_HW.astype(np.float32), (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    mean, spread = (float(value.item()) for value in cv2.meanStdDev(pixels_HW))
    deviation = spread * math.sqrt(pixels_HW.size / (pixels_HW.size - 1))  # as torch has it
    _of_thread.net.setInput(((pixels_HW - np.float32(mean)) / np.float32(deviation + _CONTRAST_FLOOR))[None, None])
    return float(_of_thread.net.forward().item())


def _opencv_net(head: OcclusionHead) -> cv2.dnn.Net:
    """The same network for OpenCV, in Darknet's form, which can be written by hand: a text of layers and, after five
    integers, their biases and weights. There the linear layers are convolutions too."""
    side = INPUT_PX // 8
    text = f"[net]\nwidth={INPUT_PX}\nheight={INPUT_PX}\nchannels=1\n"
    values = np.array([0, 2, 0, 0, 0], np.int32).tobytes()
    layers: list[tuple[nn.Conv2d | nn.Linear, Tensor, int, int, str]] = [
        *((layer, layer.weight, layer.kernel_size[0], layer.stride[0], "relu") for layer in _convolutions(head)),
        (head.flat, head.flat.weight, side, 1, "relu"),
        (head.out, head.out.weight, 1, 1, "linear"),
    ]
    for layer, weight, size, stride, activation in layers:
        padding = size // 2 if isinstance(layer, nn.Conv2d) else 0
        text += f"[convolutional]\nfilters={len(weight)}\nsize={size}\nstride={stride}\npad=0\npadding={padding}\n"
        text += f"activation={activation}\n"
        for tensor in (layer.bias, weight):
            assert tensor is not None
            values += tensor.detach().contiguous().numpy().tobytes()
    return cv2.dnn.readNetFromDarknet(*(np.frombuffer(data, np.uint8) for data in (text.encode(), values)))


def _convolutions(head: OcclusionHead) -> list[nn.Conv2d]:
    return [layer for layer in head.convolutions if isinstance(layer, nn.Conv2d)]


class CoverState(NamedTuple):
    """What the decision remembers of one face: the smoothed log odds that its mouth is covered, and the verdict."""

    log_odds: float = -_MAX_LOG_ODDS
    is_covered: bool = False


def follow_cover(state: CoverState, log_odds: float) -> CoverState:
    """The state after the next look at the mouth, with its verdict on that slot and those up to the next look."""
    bounded = min(max(log_odds, -_MAX_LOG_ODDS), _MAX_LOG_ODDS)
    smoothed = state.log_odds + _NEW_WEIGHT * (bounded - state.log_odds)
    return CoverState(smoothed, smoothed >= (FREE_BELOW if state.is_covered else COVERED_FROM))
