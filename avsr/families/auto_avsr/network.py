"""The networks of published models: front ends, encoders, fusion, CTC head and decoder.

A network takes one utterance at a time, because the originals do: padding would change results. It keeps lips and sound
apart as long as the model does, so that each can be computed before the other is known.

Shapes: T frames of 40 ms, H W pixels, S samples, D width, F features, V units.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.families.auto_avsr.config import EncoderShape, PublishedConfig
from avsr.families.auto_avsr.decoder import Decoder
from avsr.families.auto_avsr.encoder import Encoder
from avsr.families.auto_avsr.hubert import HubertEncoder
from avsr.grid import Modality
from avsr.nn.packing import Linear, Packable, can_pack
from avsr.nn.resnet import WIDTH, ResNet18

STEM_SLOTS = 5
"""Crops that the first convolution reads for a frame: two before it and two after it."""
TRUNK_FRAMES = 64
"""Frames that go through the trunk at once: one map of its first layer is then 16 MB."""
FBANK_FEATURES = 104
"""Features of a frame of sound for AV-HuBERT."""


class LipsFront(nn.Module):
    """Normalised crops [T, 88, 88] -> [T, 512]."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.resnet = ResNet18(2, STEM_SLOTS, shape.activation, shape.stem_activation)

    def forward(self, video_THW: Tensor) -> Tensor:
        reach = STEM_SLOTS // 2
        padded_KHW = F.pad(video_THW, (0, 0, 0, 0, reach, reach))
        # One window of five crops is five channels of a picture: the 3-D convolution is then a 2-D one.
        windows_TSHW = padded_KHW.unfold(0, STEM_SLOTS, 1).permute(0, 3, 1, 2)
        pieces = windows_TSHW.split(TRUNK_FRAMES)
        return torch.cat([self.resnet(piece.contiguous(memory_format=torch.channels_last)) for piece in pieces])


class SoundFront(nn.Module):
    """Normalised sound [S] -> [T, 512], a frame for each 640 samples; a rest of less is left out."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.resnet = ResNet18(1, 1, shape.activation)

    def forward(self, sound_S: Tensor) -> Tensor:
        return self.resnet(sound_S[None, None])[0].t()


class Sides(Protocol):
    """What every kind of encoder does."""

    def lips(self, video_THW: Tensor) -> Tensor:
        """Normalised crops [T, 88, 88] -> [T, ...]: all that can be computed without the sound."""

    def sound(self, sound: Tensor) -> Tensor:
        """Prepared sound -> [T, ...]: all that can be computed without the lips."""

    def join(self, lips: Tensor | None, sound: Tensor | None) -> Tensor:
        """The encoded utterance [T, D], of both or of one."""


class Branch(nn.Module):
    """A front end and its own encoder: [T, D]."""

    def __init__(self, front: nn.Module, shape: EncoderShape) -> None:
        super().__init__()
        self.front, self.embed, self.encoder = front, Linear(WIDTH, shape.width), Encoder(shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.embed(self.front(x))[None])[0]


class Fusion(nn.Module):
    """Two layers that join two encoders: [T, lips + sound] -> [T, D]."""

    def __init__(self, width_in: int, hidden: int, width: int, has_norm: bool) -> None:
        super().__init__()
        self.fc1, self.fc2 = Linear(width_in, hidden), Linear(hidden, width)
        self.bn1 = nn.BatchNorm1d(hidden) if has_norm else nn.Identity()

    def forward(self, x_TD: Tensor) -> Tensor:
        return self.fc2(F.relu(self.bn1(self.fc1(x_TD))))


class TwoEncoders(nn.Module):
    """auto_avsr: an encoder for lips, for sound, or one for each and a fusion."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.lips_branch = None if config.lips is None else Branch(LipsFront(config.lips), config.lips)
        self.sound_branch = None if config.sound is None else Branch(SoundFront(config.sound), config.sound)
        self.fusion = None
        if config.lips is not None and config.sound is not None:
            width_in = config.lips.width + config.sound.width
            self.fusion = Fusion(width_in, config.fusion, config.decoder.width, config.fusion_norm)

    def lips(self, video_THW: Tensor) -> Tensor:
        assert self.lips_branch is not None
        return self.lips_branch(video_THW)

    def sound(self, sound: Tensor) -> Tensor:
        assert self.sound_branch is not None
        return self.sound_branch(sound)

    def join(self, lips: Tensor | None, sound: Tensor | None) -> Tensor:
        if self.fusion is not None:
            assert lips is not None and sound is not None
            return self.fusion(torch.cat((lips, sound), dim=-1))
        return _given(lips, sound)


class UnifiedEncoder(nn.Module):
    """USR: two front ends, and one encoder for lips, sound and both."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        assert config.lips is not None and config.sound is not None
        self.lips_front, self.sound_front = LipsFront(config.lips), SoundFront(config.sound)
        width = config.lips.width
        sizes = {"v": WIDTH, "a": WIDTH, "av": 2 * WIDTH}
        self.embed = nn.ModuleDict({name: Linear(size, width) for name, size in sizes.items()})
        self.encoder = Encoder(config.lips)

    def lips(self, video_THW: Tensor) -> Tensor:
        return self.lips_front(video_THW)

    def sound(self, sound: Tensor) -> Tensor:
        return self.sound_front(sound)

    def join(self, lips: Tensor | None, sound: Tensor | None) -> Tensor:
        given = [side for side in (lips, sound) if side is not None]
        embedded_TD = self.embed[modality_of(lips, sound)](torch.cat(given, dim=-1))
        return self.encoder(embedded_TD[None])[0]


class JointHubert(nn.Module):
    """AV-HuBERT: features of sound and lips side by side, and one encoder. What is absent is zero."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        assert config.lips is not None
        width = config.lips.width
        self.lips_front = LipsFront(config.lips)
        self.lips_project, self.sound_project = Linear(WIDTH, width), Linear(FBANK_FEATURES, width)
        self.norm, self.project = nn.LayerNorm(2 * width), Linear(2 * width, width)
        self.encoder = HubertEncoder(config.lips)

    def lips(self, video_THW: Tensor) -> Tensor:
        return self.lips_project(self.lips_front(video_THW))

    def sound(self, sound: Tensor) -> Tensor:
        return self.sound_project(sound)

    def join(self, lips: Tensor | None, sound: Tensor | None) -> Tensor:
        absent = torch.zeros_like(_given(lips, sound))
        both_TD = torch.cat((absent if sound is None else sound, absent if lips is None else lips), dim=-1)
        return self.encoder(self.project(self.norm(both_TD))[None])[0]


ONE_HEAD = "all"
"""Name of the output layers of a model that has the same for all modalities."""


class PublishedNetwork(nn.Module):
    """A published model without its language model."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        kinds: dict[str, Any] = {"usr": UnifiedEncoder, "avhubert": JointHubert}
        self.encoder = kinds.get(config.layout, TwoEncoders)(config)
        heads = config.modalities if config.layout == "usr" else (ONE_HEAD,)
        self.ctc = nn.ModuleDict({name: Linear(config.decoder.width, config.vocabulary) for name in heads})
        self.decoder = Decoder(config.decoder, config.vocabulary, heads)

    @property
    def sides(self) -> Sides:
        """The encoder of lips and sound."""
        return self.encoder

    def head(self, modality: Modality) -> str:
        """The name of the output layers for a modality."""
        return modality if modality in self.ctc else ONE_HEAD

    def ctc_log_probs(self, memory_TD: Tensor, modality: Modality) -> Tensor:
        """Log-probabilities [T, V], the blank first."""
        return self.ctc[self.head(modality)](memory_TD).float().log_softmax(dim=-1)

    def for_inference(self) -> None:
        """Make every pass faster, for good: results stay equal within rounding, and training is over."""
        for module in self.modules():
            if isinstance(module, ResNet18):
                module.fold()
                if module.dimensions == 2:
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        pack(self)


def pack(network: nn.Module) -> None:
    """Pack the weights for the CPU, where that is faster (`avsr.nn.packing`). Nothing stays mapped from a file then."""
    if can_pack(next(network.parameters()).device):
        for module in network.modules():
            if isinstance(module, Packable):
                module.pack(torch.float32)
    # What is left is small. The last tensor that is mapped would keep the whole file in memory.
    for parameter in network.parameters():
        parameter.data = parameter.data.clone()
    let_go(network)


def let_go(network: nn.Module) -> None:
    """Copy the buffers, which are views of a mapped file."""
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.clone())  # with new data alone it would still know the tensor it is a view of


def modality_of(lips: object | None, sound: object | None) -> Modality:
    """What is there: both, lips or sound."""
    if lips is not None and sound is not None:
        return "av"
    return "a" if lips is None else "v"


def _given(lips: Tensor | None, sound: Tensor | None) -> Tensor:
    """The one that is there. Raises ValueError if neither is."""
    given = sound if lips is None else lips
    if given is None:
        raise ValueError("got neither lips nor sound, expected at least one")
    return given
