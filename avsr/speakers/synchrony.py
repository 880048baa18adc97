"""Which mouth goes with the sound, and how far the two are apart in time.

A small network, `SynchronyHead`, gives every 40 ms slot of a mouth and of the sound 32 numbers whose inner product is
the evidence, in nats, that they were recorded together: added up over the slots of a stretch of time, it is what the
network was trained to be in a choice among other mouths, other times and a mouth at rest (contrastive, as in Chung and
Zisserman, "Out of time: automated lip sync in the wild", 2016, and van den Oord et al., "Representation learning with
contrastive predictive coding", 2018, whose optimum is a log likelihood ratio up to a term of the sound alone).

Both are seen relative to their own last seconds: the mouth minus its mean picture, the sound minus its mean spectrum.
So faces, voices, cameras and microphones drop out, and a mouth at rest gives nothing.

Letters: B batch, T slots of 40 ms, S samples, M mel filters, F mel frames of 10 ms, H W pixels, D embedding.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avsr.grid import HOP_SAMPLES, SLOT_MS, SLOT_SAMPLES
from avsr.nn.shipped import shipped_weights
from avsr.sound.mel import LogMel, MelConfig

SLOT_MEL_FRAMES = SLOT_SAMPLES // HOP_SAMPLES

DIM = 32
MOUTH_PX = 32
"""Side of the square that the head sees: the middle 64 pixels of a lip crop at half their resolution."""

BLOCK_SLOTS = 100
"""A mouth and the sound are seen relative to so many slots (4 s)."""
HOP_SLOTS = 25
EDGE_SLOTS = 5
"""How many slots on either side an embedding depends on, besides what it is seen relative to."""

MAX_OFFSET_SLOTS = 15
"""Offsets of up to 600 ms either way are looked for."""

# Chosen on the development split, and checked on the speakers of train_other.
LOUD_RANGE_DB = 20.0
CHOICE_LAG_SLOTS = 5
LAG_NATS = 2.0  # what it takes to believe that sound and lips are not in time
_PEAK_SLOTS = 3  # lags so near to the most likely one belong to its peak
_FAIR_HEIGHT, _HEIGHT_STEP = 3.8, 0.4  # at which height of the peak it is as likely right as not, and how steeply so

_NUM_MELS = 40
_MEL_RANGE = 10.0  # nats below the loudest value: what is quieter, digital silence too, counts as silence
_CONTRAST_FLOOR = 4.0  # grey levels: no noise of a camera is blown up to a moving mouth

Embedding = NDArray[np.float32]  # [D]


class _LipTower(nn.Module):
    """Pictures [B, T, 32, 32] -> [B, T, D]. Looks EDGE_SLOTS - 2 slots to either side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(5, 12, 5, stride=2, padding=2, bias=False)  # of five slots: a convolution over time too
        self.stem_norm = nn.BatchNorm2d(12)
        self.middle = nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False)
        self.middle_norm = nn.BatchNorm2d(24)
        self.top = nn.Conv2d(24, 32, 3, stride=2, padding=1, bias=False)
        self.top_norm = nn.BatchNorm2d(32)
        self.flat = nn.Linear(32 * 16, 48)
        self.dropout = nn.Dropout(0.2)
        self.around = nn.Conv1d(48, 48, 3, padding=1)
        self.out = nn.Conv1d(48, DIM, 1)

    def forward(self, pixels_BTHW: Tensor) -> Tensor:
        batch, slots, height, width = pixels_BTHW.shape
        padded = F.pad(pixels_BTHW, (0, 0, 0, 0, 2, 2))
        stacked = torch.stack([padded[:, shift : shift + slots] for shift in range(5)], dim=2)
        x = stacked.reshape(batch * slots, 5, height, width).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem_norm(self.stem(x)))
        x = F.relu(self.middle_norm(self.middle(x)))
        x = F.relu(self.top_norm(self.top(x)))
        x_BTC = F.relu(self.flat(self.dropout(x.flatten(1)))).view(batch, slots, -1)
        x_BCT = x_BTC.transpose(1, 2)
        x_BCT = x_BCT + F.relu(self.around(x_BCT))
        return self.out(x_BCT).transpose(1, 2)


class _SoundTower(nn.Module):
    """Log-mel [B, M, 4 T] -> [B, T, D]. Looks about three slots to either side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(_NUM_MELS, 32, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm1d(32)
        self.middle = nn.Conv1d(32, 48, 5, stride=2, padding=2, bias=False)
        self.middle_norm = nn.BatchNorm1d(48)
        self.dropout = nn.Dropout(0.1)
        self.around = nn.Conv1d(48, 48, 3, padding=1)
        self.out = nn.Conv1d(48, DIM, 3, padding=1)

    def forward(self, mel_BMF: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(mel_BMF)))
        x = self.dropout(F.relu(self.middle_norm(self.middle(x))))
        x = x + F.relu(self.around(x))
        return self.out(x).transpose(1, 2)


class SynchronyHead(nn.Module):
    """Embeddings of mouths and of sound whose inner product is the evidence that they go together. 70k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lip_tower = _LipTower()
        self.sound_tower = _SoundTower()
        self.log_scale = nn.Parameter(torch.tensor(-2.0))
        self._log_mel = LogMel(MelConfig(n_mels=_NUM_MELS, normalize="none"))

    def embed_lips(self, crops_BTHW: Tensor, present_BT: Tensor) -> Tensor:
        """Lip crops [B, T, 96, 96] in grey levels 0-255, presence [B, T] -> [B, T, D], zero where absent."""
        return self.embed_moving(self.moving_pixels(mouth_pixels(crops_BTHW), present_BT), present_BT)

    def moving_pixels(self, pixels_BTHW: Tensor, basis_BT: Tensor) -> Tensor:
        """What `mouth_pixels` gives minus the mean picture of the slots in `basis`, in units of that one's contrast."""
        weight = basis_BT[:, :, None, None].to(pixels_BTHW.dtype)
        mean = (pixels_BTHW * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        return (pixels_BTHW - mean) / (mean.flatten(2).std(-1)[:, :, None, None] + _CONTRAST_FLOOR)

    def embed_moving(self, moving_BTHW: Tensor, present_BT: Tensor) -> Tensor:
        """As `embed_lips`, of what `moving_pixels` gives."""
        lips_BTD = self.lip_tower(moving_BTHW * present_BT[:, :, None, None])
        return lips_BTD * self.log_scale.exp() * present_BT[:, :, None]

    def log_mel(self, samples_BS: Tensor) -> Tensor:
        """Samples [B, S] at 16 kHz -> log-mel [B, M, 4 T] of all whole slots."""
        counts = torch.full((len(samples_BS),), samples_BS.shape[1], device=samples_BS.device)
        mel_BMF = self._log_mel(samples_BS, counts)[0]
        return mel_BMF[:, :, : samples_BS.shape[1] // SLOT_SAMPLES * SLOT_MEL_FRAMES]

    def embed_sound(self, samples_BS: Tensor) -> Tensor:
        """Samples [B, S] at 16 kHz, S a multiple of 640 -> [B, T, D]."""
        mel_BMF = self.log_mel(samples_BS)
        return self.embed_mel(mel_BMF, torch.ones_like(mel_BMF[:, 0], dtype=torch.bool))

    def embed_mel(self, mel_BMF: Tensor, basis_BF: Tensor) -> Tensor:
        """As `embed_sound`, of what `log_mel` gives. basis: the frames whose mean and deviation are taken out."""
        mel_BMF = torch.maximum(mel_BMF, mel_BMF.amax((1, 2), keepdim=True) - _MEL_RANGE)
        weight = basis_BF[:, None].to(mel_BMF.dtype)
        count = weight.sum(-1, keepdim=True).clamp(min=1)
        mean = (mel_BMF * weight).sum(-1, keepdim=True) / count
        deviation = ((mel_BMF - mean).square() * weight).sum(-1, keepdim=True).div(count).sqrt()
        return self.sound_tower((mel_BMF - mean) / (deviation + 0.1))


def mouth_pixels(crops: Tensor) -> Tensor:
    """The part of lip crops [..., 96, 96] that the head sees: float [..., 32, 32] in grey levels."""
    middle = crops[..., 16:80, 16:80].float()
    return middle.unflatten(-1, (MOUTH_PX, 2)).unflatten(-3, (MOUTH_PX, 2)).mean((-1, -3))


@functools.cache
def synchrony_head() -> SynchronyHead:
    """The trained head that comes with the package, in float32, for evaluation; one a process."""
    head = SynchronyHead()
    head.load_state_dict({name: torch.from_numpy(array) for name, array in shipped_weights("synchrony").items()})
    return head.eval()


class SlotEvidence(NamedTuple):
    """What one slot says about which mouth goes with the sound.

    slot: its index. sound: its embedding [D]. is_loud: whether anything is heard, by `loud_slots`. lips: embeddings
    [D] of the mouths seen in it, by face. nats: the evidence that each face speaks; 0 in silence, where a picture of a
    face would win against the speaker, who breathes. It is taken at the lag of the sound, up to CHOICE_LAG_SLOTS either
    way, at which some face fits best in the seconds around.
    """

    slot: int
    sound: Embedding
    is_loud: bool
    lips: dict[int, Embedding]
    nats: dict[int, float]


class SynchronyStream:
    """Slots of lip crops and sound in, embeddings out, at most `look_ahead_slots` later. The same live and offline.

    only_choices: save the work where no more than one face is seen; embeddings there are zero. hop_slots: how often to
    compute; less often is cheaper and later.
    """

    def __init__(
        self, *, only_choices: bool = False, hop_slots: int = HOP_SLOTS, head: SynchronyHead | None = None
    ) -> None:
        self._head = head or synchrony_head()
        self.look_ahead_slots = hop_slots + EDGE_SLOTS
        self._only_choices = only_choices
        self._pixels: collections.deque[dict[int, Tensor]] = collections.deque(maxlen=BLOCK_SLOTS)
        self._samples: collections.deque[NDArray[np.float32]] = collections.deque(maxlen=BLOCK_SLOTS)
        self._num_pushed = 0
        self._num_done = 0

    def push(self, crops: Mapping[int, NDArray[np.uint8]], samples: NDArray[np.float32]) -> list[SlotEvidence]:
        """The slots that the next one makes final. crops: [96, 96], of faces whose lips are seen. samples: [640]."""
        if samples.shape != (SLOT_SAMPLES,):
            raise ValueError(f"samples: got shape {samples.shape}, expected ({SLOT_SAMPLES},)")
        self._pixels.append({face: mouth_pixels(torch.from_numpy(crop)) for face, crop in crops.items()})
        self._samples.append(samples)
        self._num_pushed += 1
        if self._num_pushed - self._num_done < self.look_ahead_slots:
            return []
        return self._embed(self._num_pushed - EDGE_SLOTS)

    def finish(self) -> list[SlotEvidence]:
        """All slots that are left."""
        return self._embed(self._num_pushed)

    @torch.inference_mode()
    def _embed(self, end: int) -> list[SlotEvidence]:
        """Evidence of the slots up to `end`, seen relative to all that is held."""
        if end <= self._num_done:
            return []
        first = self._num_pushed - len(self._pixels)
        wanted = list(self._pixels)[self._num_done - first : end - first]
        faces = sorted({face for pixels in wanted for face in pixels})
        is_contested = max(len(pixels) for pixels in wanted) >= 2
        slots = len(self._pixels)
        sound_TD = np.zeros((slots, DIM), np.float32)
        is_loud_T = np.zeros(slots, bool)
        lips_NTD = np.zeros((len(faces), slots, DIM), np.float32)
        if faces and (is_contested or not self._only_choices):
            absent = torch.zeros(MOUTH_PX, MOUTH_PX)
            pixels_NTHW = torch.stack(
                [torch.stack([pixels.get(face, absent) for pixels in self._pixels]) for face in faces]
            )
            present_NT = torch.tensor([[face in pixels for pixels in self._pixels] for face in faces])
            lips_NTD = self._head.embed_moving(self._head.moving_pixels(pixels_NTHW, present_NT), present_NT).numpy()
            samples_S = np.concatenate(self._samples)
            sound_TD = self._head.embed_sound(torch.from_numpy(samples_S)[None])[0].numpy()
            is_loud_T = loud_slots(samples_S)
        nats_NT = _at_best_lag(lips_NTD, sound_TD, is_loud_T)
        # Copies, so that who keeps the evidence does not keep whole blocks.
        new = slice(self._num_done - first, end - first)
        sound_TD, is_loud_T, lips_NTD = sound_TD[new].copy(), is_loud_T[new], lips_NTD[:, new].copy()
        nats_NT = nats_NT[:, new]
        evidence = [
            SlotEvidence(
                self._num_done + index,
                sound_TD[index],
                bool(is_loud_T[index]),
                {face: lips_NTD[faces.index(face), index] for face in pixels},
                {face: float(nats_NT[faces.index(face), index]) for face in pixels},
            )
            for index, pixels in enumerate(wanted)
        ]
        self._num_done = end
        return evidence


def _at_best_lag(
    lips_NTD: NDArray[np.float32], sound_TD: NDArray[np.float32], is_loud_T: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Evidence [N, T] of N faces at the lag, the same for all, at which the best of them fits best over the block."""
    slots = len(sound_TD)
    best = np.zeros(lips_NTD.shape[:2], np.float32)
    best_total = -math.inf
    for lag in sorted(range(-CHOICE_LAG_SLOTS, CHOICE_LAG_SLOTS + 1), key=abs):
        heard = np.clip(np.arange(slots) + lag, 0, slots - 1)
        nats_NT = np.einsum("ntd,td->nt", lips_NTD, sound_TD[heard] * is_loud_T[heard, None])
        total = float(nats_NT.sum(1).max(initial=-math.inf)) - LAG_NATS * (lag != 0)
        if total > best_total:
            best, best_total = nats_NT, total
    return best


def loud_slots(samples_S: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which slots [T] have a level within LOUD_RANGE_DB of that of the loudest; none in digital silence."""
    whole = len(samples_S) // SLOT_SAMPLES
    power_T = np.square(samples_S[: whole * SLOT_SAMPLES].reshape(whole, SLOT_SAMPLES), dtype=np.float64).mean(1)
    loudest = power_T.max(initial=0.0)
    return (power_T > 0) & (power_T >= loudest * 10 ** (-LOUD_RANGE_DB / 10))


class Offset(NamedTuple):
    """How far the sound is from the lips. ms: positive where the sound comes later than the lips move, negative where
    it comes earlier. confidence: in [0, 1], how sure it is that they belong together and the truth is within 40 ms."""

    ms: float
    confidence: float


def lag_evidence(
    lips_TD: NDArray[np.float32], present_T: NDArray[np.bool_], sound_TD: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Evidence in nats [31] of a stretch of slots, as in `SlotEvidence`, for each lag of the sound behind the lips from
    -MAX_OFFSET_SLOTS to MAX_OFFSET_SLOTS. That of several stretches can be added up.

    Where lips are absent, their embeddings do not matter. The evidence of slots drawn at random is subtracted, since
    each lag compares other slots, and fewer of them.
    """
    slots = len(lips_TD)
    lips_TD = np.where(present_T[:, None], lips_TD, 0).astype(np.float64)
    at_random = 0.0
    if present_T.any():
        at_random = float(lips_TD.sum(0) / present_T.sum() @ sound_TD.mean(0, dtype=np.float64))
    evidence = []
    for lag in range(-MAX_OFFSET_SLOTS, MAX_OFFSET_SLOTS + 1):
        count = max(0, slots - abs(lag))
        lips = slice(max(0, -lag), max(0, -lag) + count)
        sound = slice(max(0, lag), max(0, lag) + count)
        nats = np.einsum("td,td->", lips_TD[lips], sound_TD[sound])
        evidence.append(float(nats) - at_random * float(present_T[lips].sum()))
    return np.array(evidence)


def estimate_offset(evidence: NDArray[np.float64]) -> Offset:
    """The most likely offset by `lag_evidence`, refined to fractions of a slot by a parabola through the peak.

    The confidence follows from how far the peak stands out, in deviations of the lags away from it: unlike nats, that
    does not depend on how much the speech is like that which the head was trained on.
    """
    if not evidence.any():
        return Offset(0.0, 0.0)
    peak = int(np.clip(evidence.argmax(), 1, len(evidence) - 2))
    before, at, after = evidence[peak - 1 : peak + 2]
    curvature = before - 2 * at + after
    fraction = float(np.clip((before - after) / (2 * curvature), -0.5, 0.5)) if curvature < 0 else 0.0
    away = evidence[np.abs(np.arange(len(evidence)) - peak) > _PEAK_SLOTS]
    height = (at - away.mean()) / max(float(away.std()), 1e-6)
    confidence = 1 / (1 + math.exp(-float(np.clip((height - _FAIR_HEIGHT) / _HEIGHT_STEP, -50, 50))))
    return Offset((peak - MAX_OFFSET_SLOTS + fraction) * SLOT_MS, confidence)
