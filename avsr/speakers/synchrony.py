"""Which mouth goes with the sound.

A small network, `SynchronyHead`, embeds each 40 ms slot of a mouth and of the sound in 32 numbers. The inner product of
both embeddings is the evidence, in nats, that mouth and sound were recorded together. Evidence adds up over slots.

The network was trained by contrast: it had to choose the right mouth and time among other mouths, other times and a
mouth at rest. See Chung and Zisserman, "Out of time: automated lip sync in the wild", 2016, and van den Oord et al.,
"Representation learning with contrastive predictive coding", 2018. The optimum of such training is a log likelihood
ratio, up to a term that depends on the sound alone.

Both inputs are relative to their own last seconds: the mouth minus its mean picture, the sound minus its mean spectrum.
This takes out faces, voices, cameras and microphones, and a mouth at rest gives no evidence.

Letters: B batch, N faces, T slots of 40 ms, S samples, M mel filters, F mel frames of 10 ms, H W pixels, C channels,
D embedding.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from avsr.grid import HOP_SAMPLES, SLOT_SAMPLES
from avsr.shipped import shipped_weights
from avsr.sound.mel import LogMel
from avsr.sound.mel_config import MelConfig

SLOT_MEL_FRAMES = SLOT_SAMPLES // HOP_SAMPLES

DIM = 32
MOUTH_PX = 32
"""Side of the network's input: the middle 64 pixels of a lip crop at half their resolution."""

BLOCK_SLOTS = 100
"""The mean picture and the mean spectrum are taken over this many slots (4 s)."""
HOP_SLOTS = 25
"""Embeddings are computed once in this many slots (1 s)."""
EDGE_SLOTS = 5
"""An embedding depends on this many slots on either side, apart from the means."""

# Chosen on the development split, and checked on the speakers of train_other.
LOUD_RANGE_DB = 20.0
"""A slot is loud if its level is within this range of the loudest."""
PAUSE_SLOTS = 4
"""A slot is in a pause if no slot within this many (160 ms) is loud. Shorter gaps are consonants."""
CHOICE_LAG_SLOTS = 10
"""Lags of the sound up to this far either way (400 ms) are tried in the choice of a face."""

_NUM_MELS = 40
_MEL_RANGE = 10.0  # nats below the loudest value; all quieter values, and digital silence, count as silence
_CONTRAST_FLOOR = 4.0  # grey levels: keeps the noise of a camera from looking like a moving mouth

Embedding = NDArray[np.float32]
"""[D]"""
LagNats = NDArray[np.float32]
"""[2 CHOICE_LAG_SLOTS + 1]: nats by lag of the sound, from the earliest sound to the latest."""


class _LipTower(nn.Module):
    """Pictures [B, T, 32, 32] -> [B, T, D]. An output depends on EDGE_SLOTS - 2 slots to either side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(5, 12, 5, stride=2, padding=2, bias=False)  # on five slots: over time too
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
    """Log-mel [B, M, 4 T] -> [B, T, D]. An output depends on about three slots to either side."""

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
    """Embeds mouths and sound. Their inner product is the evidence that they go together. 70k parameters."""

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
        """Pictures of `mouth_pixels` minus their mean picture, in units of the contrast of that picture.

        basis_BT: bool [B, T], the slots that the mean picture is taken over.
        """
        weight = basis_BT[:, :, None, None].to(pixels_BTHW.dtype)
        mean = (pixels_BTHW * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        return (pixels_BTHW - mean) / (mean.flatten(2).std(-1)[:, :, None, None] + _CONTRAST_FLOOR)

    def embed_moving(self, moving_BTHW: Tensor, present_BT: Tensor) -> Tensor:
        """As `embed_lips`, from the result of `moving_pixels`."""
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
        """As `embed_sound`, from the result of `log_mel`.

        basis_BF: bool [B, F], the frames that the mean and deviation are taken over.
        """
        mel_BMF = torch.maximum(mel_BMF, mel_BMF.amax((1, 2), keepdim=True) - _MEL_RANGE)
        weight = basis_BF[:, None].to(mel_BMF.dtype)
        count = weight.sum(-1, keepdim=True).clamp(min=1)
        mean = (mel_BMF * weight).sum(-1, keepdim=True) / count
        deviation = ((mel_BMF - mean).square() * weight).sum(-1, keepdim=True).div(count).sqrt()
        return self.sound_tower((mel_BMF - mean) / (deviation + 0.1))


def mouth_pixels(crops: Tensor) -> Tensor:
    """The network's part of lip crops [..., 96, 96]: float [..., 32, 32] in grey levels."""
    middle = crops[..., 16:80, 16:80].float()
    return middle.unflatten(-1, (MOUTH_PX, 2)).unflatten(-3, (MOUTH_PX, 2)).mean((-1, -3))


@functools.cache
def synchrony_head() -> SynchronyHead:
    """The trained network that comes with the package, in float32, for evaluation; one a process."""
    head = SynchronyHead()
    head.load_state_dict({name: torch.from_numpy(array) for name, array in shipped_weights("synchrony").items()})
    return head.eval()


class SlotEvidence(NamedTuple):
    """The evidence of one slot for which mouth goes with the sound."""

    slot: int
    """The index of the slot."""
    sound: Embedding
    is_loud: bool
    """Whether there is sound, by `loud_slots`."""
    is_pause: bool
    """Whether nobody speaks around the slot: no slot within PAUSE_SLOTS is loud."""
    lips: dict[int, Embedding]
    """By face id, for the mouths that are seen in the slot."""
    nats: dict[int, LagNats]
    """By face id: the evidence that this face speaks, at each lag of the sound, as `choice_evidence` gives it."""


class SynchronyStream:
    """Slots of lip crops and sound in, evidence out, at most `look_ahead_slots` later. The same live and offline.

    only_choices: save the work while at most one face is seen; embeddings are zero then.
    hop_slots: how often to compute; less often is cheaper and later.
    head: the network, by default the trained one.
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
        """The evidence that the next slot makes final, in order of slots.

        crops: uint8 [96, 96], by the id of each face that shows its lips.
        samples: [640] at 16 kHz; raises ValueError for any other number.
        """
        if samples.shape != (SLOT_SAMPLES,):
            raise ValueError(f"samples: got shape {samples.shape}, expected ({SLOT_SAMPLES},)")
        self._pixels.append({face: mouth_pixels(torch.from_numpy(crop)) for face, crop in crops.items()})
        self._samples.append(samples)
        self._num_pushed += 1
        # The last EDGE_SLOTS slots lack the neighbours that their embeddings depend on, so they wait for the next
        # block.
        if self._num_pushed - self._num_done < self.look_ahead_slots:
            return []
        return self._embed(self._num_pushed - EDGE_SLOTS)

    def finish(self) -> list[SlotEvidence]:
        """The evidence of all remaining slots."""
        return self._embed(self._num_pushed)

    @torch.inference_mode()
    def _embed(self, end: int) -> list[SlotEvidence]:
        """Evidence of the slots up to `end`, relative to the means of all slots in memory."""
        if end <= self._num_done:
            return []
        first = self._num_pushed - len(self._pixels)
        wanted = list(self._pixels)[self._num_done - first : end - first]
        faces = sorted({face for pixels in wanted for face in pixels})
        # With one face there is nothing to choose.
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
        nats_NTG = choice_evidence(lips_NTD, sound_TD, is_loud_T)
        is_pause_T = np.convolve(is_loud_T, np.ones(2 * PAUSE_SLOTS + 1))[PAUSE_SLOTS:-PAUSE_SLOTS] < 0.5
        # Copies, because a view in the evidence would keep the whole block in memory.
        new = slice(self._num_done - first, end - first)
        sound_TD, is_loud_T, lips_NTD = sound_TD[new].copy(), is_loud_T[new], lips_NTD[:, new].copy()
        nats_NTG, is_pause_T = nats_NTG[:, new].copy(), is_pause_T[new]
        evidence = [
            SlotEvidence(
                self._num_done + index,
                sound_TD[index],
                bool(is_loud_T[index]),
                bool(is_pause_T[index]),
                {face: lips_NTD[faces.index(face), index] for face in pixels},
                {face: nats_NTG[faces.index(face), index] for face in pixels},
            )
            for index, pixels in enumerate(wanted)
        ]
        self._num_done = end
        return evidence


def choice_evidence(
    lips_NTD: NDArray[np.float32], sound_TD: NDArray[np.float32], is_loud_T: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Evidence in nats [N, T, G] that each mouth goes with the sound, at each of the G lags of `LagNats`.

    lips_NTD: embeddings of the mouths, zero where a mouth is not seen.
    sound_TD: embeddings of the sound.
    is_loud_T: whether there is sound.

    The mean evidence of the mouth with all of the sound is subtracted. A mouth unlike those that the network was
    trained on fits any sound well or badly, and a photograph of a face may fit any sound better than the speaker does.
    Only evidence that depends on the moment counts.

    It is 0 where the sound is silent, because a photograph would win there against the speaker, who breathes. It is 0
    too where the sound of a lag lies beyond the stretch.
    """
    slots = len(sound_TD)
    seen_NT = lips_NTD.any(2)
    mean_sound_D = sound_TD[is_loud_T].sum(0) / max(1, int(is_loud_T.sum()))
    mean_lips_ND = lips_NTD.sum(1) / np.maximum(seen_NT.sum(1), 1)[:, None]
    at_random_NT = (mean_lips_ND @ mean_sound_D)[:, None] * seen_NT
    nats_NTG = np.zeros((*lips_NTD.shape[:2], 2 * CHOICE_LAG_SLOTS + 1), np.float32)
    for index, lag in enumerate(range(-CHOICE_LAG_SLOTS, CHOICE_LAG_SLOTS + 1)):
        there = slice(max(0, -lag), max(0, slots - max(0, lag)))
        lagged = slice(max(0, lag), max(0, slots + min(0, lag)))
        nats_NT = np.einsum("ntd,td->nt", lips_NTD[:, there], sound_TD[lagged]) - at_random_NT[:, there]
        nats_NTG[:, there, index] = nats_NT * is_loud_T[lagged]
    return nats_NTG


def loud_slots(samples_S: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Bool [T]: slots with a level within LOUD_RANGE_DB of the loudest slot. No slot of digital silence is loud."""
    whole = len(samples_S) // SLOT_SAMPLES
    power_T = np.square(samples_S[: whole * SLOT_SAMPLES].reshape(whole, SLOT_SAMPLES), dtype=np.float64).mean(1)
    loudest = power_T.max(initial=0.0)
    return (power_T > 0) & (power_T >= loudest * 10 ** (-LOUD_RANGE_DB / 10))
