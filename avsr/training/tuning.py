"""Trains published lip readers on: the model as it is, by CTC and decoder together.

The network computes one utterance at a time, as it does when it recognises: padding would change its results. A step
is the mean over the utterances of a batch. Batch norms keep their statistics, because a batch is small.

Letters: B batch, T frames of 40 ms, U units of a text, V units of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avsr.decoding.greedy import greedy
from avsr.errors import ConfigError, DataError
from avsr.families.auto_avsr.engine import BLANK_ID, last_seen
from avsr.families.auto_avsr.inputs import normalised, published_geometry, sound_input
from avsr.families.auto_avsr.network import PublishedNetwork
from avsr.families.auto_avsr.tokens import UnitList
from avsr.families.auto_avsr.weights import open_weights
from avsr.grid import SLOT_SAMPLES, Modality
from avsr.training.batches import Batch
from avsr.training.data import TrainingSet
from avsr.training.module import RunModule
from avsr.training.tuning_config import TuneConfig


class PublishedUnits:
    """The units of a published model. Texts have no case: the lists are upper case, and corpora are not."""

    def __init__(self, units: UnitList) -> None:
        self.units = units

    def __len__(self) -> int:
        return len(self.units)

    def encode(self, text: str) -> list[int]:
        """See `avsr.decoding.tokenizer.Units`. The fewest units that spell the words."""
        words = text.split()
        ids = self.units.spelled(words)
        if ids is None:
            wrong = next((word for word in words if self.units.spelled([word]) is None), text)
            raise DataError(f"no units of the model spell {wrong!r:.80}", remedy="write it in letters, or leave it out")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See `avsr.decoding.tokenizer.Units`."""
        return self.units.text(ids)


def open_published(config: TuneConfig, path: Path) -> tuple[PublishedNetwork, PublishedUnits, Path]:
    """The network to train, its units, and the file it comes from. Raises ModelError; ConfigError for wrong parts."""
    opened = open_weights(path, for_training=True)
    network = opened.network
    if network.config.layout == "avhubert":
        raise ConfigError(f"{path}: AV-HuBERT cannot be trained on here", remedy="use its authors' code")
    odds = config.modalities
    for modality, share in (("a", odds.a), ("v", odds.v), ("av", odds.av)):
        if share and modality not in network.config.modalities:
            expected = "/".join(network.config.modalities)
            raise ConfigError(
                f"modalities: the model is not made for {modality}", got=share, expected=f"{expected} only"
            )
    for part in config.freeze:
        for module in parts_of(network, part):
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError("freeze", got="all parts", expected="one at least to be trained")
    return network, PublishedUnits(opened.units), opened.weights


def parts_of(network: PublishedNetwork, part: str) -> list[nn.Module]:
    """The modules of a part. Raises ConfigError for one that the model lacks."""
    encoder = network.encoder
    branches = [branch for branch in (getattr(encoder, f"{s}_branch", None) for s in ("lips", "sound")) if branch]
    if part == "encoder":  # all but the front ends
        fronts = {id(module) for name in ("lips_front", "sound_front") for module in _front(network, name)}
        inside = [child for owner in (branches or [encoder]) for child in owner.children()]
        found = [module for module in inside if id(module) not in fronts]
        fusion = getattr(encoder, "fusion", None)
        return [*found, *([] if fusion is None else [fusion])]
    found = _front(network, part) if part.endswith("_front") else [getattr(network, part)]
    if not found:
        raise ConfigError(f"freeze: this model has no {part}", remedy="take it out of freeze")
    return found


def _front(network: PublishedNetwork, name: str) -> list[nn.Module]:
    branch = getattr(network.encoder, name.replace("_front", "_branch"), None)
    found = branch.front if branch is not None else getattr(network.encoder, name, None)
    return [] if found is None else [cast(nn.Module, found)]


class TuningModule(RunModule):
    """Trains a `PublishedNetwork`."""

    config: TuneConfig
    network: PublishedNetwork

    def __init__(
        self, config: TuneConfig, network: PublishedNetwork, tokenizer: PublishedUnits, data: TrainingSet
    ) -> None:
        super().__init__(config, network, tokenizer, data)
        self.code, self.end_id = network.config.code, network.config.end_id

    def on_train_epoch_start(self) -> None:
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eval()

    def loss(self, batch: Batch, batch_index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """See `RunModule`. An utterance that has nothing to recognise from has no loss."""
        ctc, decoder = [], []
        for item in range(len(batch.texts)):
            encoded = self.encoded(batch, item)
            units_U = batch.tokens[item, : int(batch.token_counts[item])]
            if encoded is None or not len(units_U):
                continue
            memory_TD, modality = encoded
            ctc.append(ctc_loss(self.network.ctc_log_probs(memory_TD, modality), units_U))
            end = units_U.new_tensor([self.end_id])
            log_probs_UV = self.network.decoder(torch.cat((end, units_U)), memory_TD, self.network.head(modality))
            decoder.append(smoothed_loss(log_probs_UV, torch.cat((units_U, end)), self.config.loss.smoothing))
        if not ctc:  # the step needs a gradient all the same
            zero = sum(0.0 * parameter.sum() for parameter in self.network.parameters() if parameter.requires_grad)
            return cast(Tensor, zero), {}
        losses = {"ctc": torch.stack(ctc).mean(), "decoder": torch.stack(decoder).mean()}
        share = self.config.loss.ctc
        return share * losses["ctc"] + (1 - share) * losses["decoder"], losses

    def encoded(self, batch: Batch, item: int, modality: Modality | None = None) -> tuple[Tensor, Modality] | None:
        """One utterance [T, D], and from what; None if there is less than a frame.

        modality: None for all that the utterance has and the model takes.
        """
        frames = int(batch.sample_counts[item]) // SLOT_SAMPLES
        present_T = batch.present[item, :frames]
        has_lips = bool(present_T.any()) and modality != "a"
        has_sound = bool(batch.has_audio[item]) and modality != "v"
        made_for = self.network.config.modalities
        wanted: Modality = "av" if has_lips and has_sound else "v" if has_lips else "a"
        if wanted not in made_for:
            wanted = next((one for one in made_for if (has_lips or one == "a") and (has_sound or one == "v")), wanted)
        if not frames or wanted not in made_for or not (has_lips or has_sound):
            return None
        lips = sound = None
        if "v" in wanted:
            # As when it recognises: a slot without lips shows those of the last slot that has some.
            places = torch.from_numpy(last_seen(present_T.cpu().numpy(), frames)).to(present_T.device)
            lips = self.network.sides.lips(normalised(published_geometry(batch.crops[item][places]), self.code))
        if "a" in wanted:
            samples_S = batch.samples[item, : int(batch.sample_counts[item])]
            whole_S = samples_S if made_for == ("a",) else samples_S[: frames * SLOT_SAMPLES]
            sound = self.network.sides.sound(sound_input(whole_S, self.code))
        return self.network.sides.join(lips, sound), wanted

    def transcribe(self, batch: Batch) -> dict[str, list[str]]:
        """See `RunModule`: by the CTC head, which is quick and needs no search."""
        return {
            modality: [self._text(self.encoded(batch, item, modality)) for item in range(len(batch.texts))]
            for modality in self.network.config.modalities
            if getattr(self.config.modalities, modality)
        }

    def _text(self, encoded: tuple[Tensor, Modality] | None) -> str:
        if encoded is None:
            return ""
        return self.tokenizer.decode(greedy(self.network.ctc_log_probs(*encoded).cpu().numpy(), BLANK_ID))

    def compared(self, text: str) -> str:
        return text.casefold()


def ctc_loss(log_probs_TV: Tensor, units_U: Tensor) -> Tensor:
    """The CTC loss of one utterance per unit; one too short for its units counts as zero.

    auto_avsr divides by the number of utterances instead, and its decoder's loss too. Per unit, long utterances weigh
    no more than short ones, and the shares of both losses stay the same.
    """
    loss = F.ctc_loss(
        log_probs_TV[:, None],
        units_U[None],
        torch.tensor([len(log_probs_TV)]),
        torch.tensor([len(units_U)]),
        blank=BLANK_ID,
        reduction="sum",
        zero_infinity=True,
    )
    return loss / len(units_U)


def smoothed_loss(log_probs_UV: Tensor, targets_U: Tensor, smoothing: float) -> Tensor:
    """Mean over units of the cross-entropy against targets that all units have a share of."""
    right_U = log_probs_UV.gather(1, targets_U[:, None])[:, 0]
    return -((1 - smoothing) * right_U + smoothing * log_probs_UV.mean(dim=1)).mean()
