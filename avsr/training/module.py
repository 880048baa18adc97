"""The Lightning modules: losses, optimiser, and WER on the development set.

Letters: B batch, F mel bins, T frames, U units of a text, V units of the vocabulary and the blank.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jiwer
import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from avsr.decoding.greedy import greedy
from avsr.decoding.tokenizer import Tokenizer, Units
from avsr.errors import ConfigError
from avsr.families.own.network import Network, NetworkOutput
from avsr.grid import SAMPLE_RATE_HZ
from avsr.nn.context import AttentionContext
from avsr.nn.masks import valid_mask
from avsr.randomness import generator, stable_seed
from avsr.sound.mel import LogMel, mel_middles_hz
from avsr.training.batches import IGNORED_FRAME, Batch, Example
from avsr.training.config import AugmentConfig, RunConfig, TrainConfig
from avsr.training.data import TrainingSet, training_batches


class RunModule(lightning.LightningModule):
    """What every training run does: batches, one loss a batch, an optimiser, WER as `dev/wer_a`, `_v` and `_av`."""

    def __init__(self, config: RunConfig, network: nn.Module, tokenizer: Units, data: TrainingSet) -> None:
        super().__init__()
        self.config, self.network, self.tokenizer, self.data = config, network, tokenizer, data
        self._dev_texts: dict[str, list[tuple[str, str]]] = {}

    def loss(self, batch: Batch, batch_index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, and its terms by name."""
        raise NotImplementedError

    def transcribe(self, batch: Batch) -> dict[str, list[str]]:
        """Greedy texts of a batch by modality: those that the run trains."""
        raise NotImplementedError

    def compared(self, text: str) -> str:
        """A text in the form in which errors are counted."""
        return text

    # -- data -----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Example]:
        return training_batches(self.data, self.current_epoch, self.config.workers)

    # Lightning does not move tensors inside a dataclass to the device.
    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    # -- training -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        total, losses = self.loss(batch, batch_index)
        for name, value in losses.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=len(batch.texts))
        self.log("train/loss", total, on_step=False, on_epoch=True, batch_size=len(batch.texts))
        return total

    def configure_optimizers(self) -> Any:
        settings = self.config.optimizer
        decayed = [p for p in self.network.parameters() if p.requires_grad and p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.requires_grad and p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
        )
        steps_per_epoch = math.ceil(len(self.data.epoch(0)) / settings.accumulate)
        total, warmup = steps_per_epoch * settings.epochs, max(1, round(steps_per_epoch * settings.warmup_epochs))

        def share(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, share), "interval": "step"},
        }

    # -- development set ------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._dev_texts = {}

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        suffix = ("", "_noisy")[dataloader_idx]
        for modality, hypotheses in self.transcribe(batch).items():
            if suffix and modality == "v":  # noise does not change the lips
                continue
            pairs = self._dev_texts.setdefault(f"dev/wer_{modality}{suffix}", [])
            pairs.extend(zip(map(self.compared, batch.texts), map(self.compared, hypotheses), strict=True))

    def on_validation_epoch_end(self) -> None:
        for name, pairs in self._dev_texts.items():
            references, hypotheses = zip(*pairs, strict=True)
            self.log(name, 100 * jiwer.wer(list(references), list(hypotheses)), batch_size=1)


class TrainingModule(RunModule):
    """Trains a `Network` of this package."""

    config: TrainConfig
    network: Network

    def __init__(self, config: TrainConfig, network: Network, tokenizer: Tokenizer, data: TrainingSet) -> None:
        super().__init__(config, network, tokenizer, data)
        self.log_mel = LogMel(config.model.mel)
        for part in config.freeze:
            if getattr(network, part) is None:
                raise ConfigError(f"freeze: this model has no {part}", remedy="take it out of freeze")
            getattr(network, part).requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        # A frozen part also keeps the statistics of its batch norms, and works without dropout.
        for part in self.config.freeze:
            getattr(self.network, part).eval()

    def loss(self, batch: Batch, batch_index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch, and its terms by name; the loss is their weighted sum."""
        # The seed of dropout is a function of epoch and batch, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(stable_seed(self.config.seed, self.current_epoch, batch_index, "dropout"))
        mel, lengths = self.log_mel(batch.samples, batch.sample_counts)
        if self.config.augment.vocal_tract:
            mel = warp_mel(mel, self.config.augment.vocal_tract)
        mel = mask_mel(mel, lengths, self.config.augment)
        attention = self.draw_attention(batch_index)
        output = self.run(batch, mel, lengths, attention)
        losses = self.losses(batch, output, live=attention is not None and attention.chunk is not None)
        weights = self.config.loss
        # A batch without sound and with all lips hidden has no losses; the step needs a gradient all the same.
        total = mel.new_zeros(()) if losses else 0.0 * output.log_probs.sum()
        for name, value in losses.items():
            total = total + getattr(weights, name) * value
        return total, losses

    def draw_attention(self, batch_index: int) -> AttentionContext | None:
        """A random attention context for one batch: whole utterances (None) or a chunk size, all equally likely."""
        choices = (None, *self.config.model.audio_encoder.attention_choices)
        drawn = generator(self.config.seed, self.current_epoch, batch_index, "attention").integers(len(choices))
        return choices[int(drawn)]

    def run(
        self, batch: Batch, mel: Tensor, lengths: Tensor, attention: AttentionContext | None = None
    ) -> NetworkOutput:
        """The network's output for a batch.

        mel: [B, F, T].
        lengths: int64 [B], of `mel`.
        attention: context of the encoders; None for whole utterances.
        """
        # A side that no example of the batch has is not computed.
        lips = batch.crops[:, :, None].float() / 255 if bool(batch.present.any()) else None
        any_audio = bool(batch.has_audio.any())
        can_fuse = self.network.fusion is not None
        return self.network(
            mel if any_audio or not can_fuse else None,
            lengths,
            lips if can_fuse else None,
            batch.present if lips is not None and can_fuse else None,
            heard=batch.has_audio if can_fuse and any_audio else None,
            attention=attention,
        )

    def losses(self, batch: Batch, output: NetworkOutput, *, live: bool = False) -> dict[str, Tensor]:
        """The loss of each path ("fused", "audio", "visual") over the utterances that have its inputs.

        live: whether `output` was computed in chunks.
        """
        weights = self.config.loss
        readable = batch.lips_match & (batch.present.float().mean(1) > 0.5)
        sides = {
            "fused": (output.log_probs if self.network.fusion is not None else None, batch.has_audio | readable),
            "audio": (output.audio_log_probs, batch.has_audio),
            "visual": (output.visual_log_probs, readable),
        }
        first, last = weights.word_times
        share = first + (last - first) * min(1.0, self.current_epoch / max(1, weights.word_times_epochs))
        if live and not weights.word_times_live:
            share = 0.0
        losses = {}
        for name, (log_probs, used) in sides.items():
            if log_probs is None or getattr(weights, name) == 0 or not bool(used.any()):
                continue
            loss = ctc_loss(log_probs[used], output.lengths[used], batch.tokens[used], batch.token_counts[used])
            targets = targets_of_frames(
                batch.frame_targets[used], log_probs.shape[1], self.config.model.audio_encoder.subsampling
            )
            # With CTC alone from the start, a small model recites the grammar at the end of each utterance
            # (`LossConfig`).
            if share and bool((targets != IGNORED_FRAME).any()):
                word_times = F.nll_loss(log_probs[used].flatten(0, 1), targets.flatten(), ignore_index=IGNORED_FRAME)
                loss = (1 - share) * loss + share * word_times
            if weights.peak_first:
                loss = loss + weights.peak_first * peak_first_loss(log_probs[used], output.lengths[used])
            losses[name] = loss
        if output.trust is not None and weights.trust:
            losses["trust"] = trust_loss(output.trust, batch, output.lengths)
        return losses

    def transcribe(self, batch: Batch) -> dict[str, list[str]]:
        """Greedy texts of a batch by modality: those that the losses train."""
        texts: dict[str, list[str]] = {}
        weights = self.config.loss
        mel, lengths = self.log_mel(batch.samples, batch.sample_counts)
        if self.network.fusion is None:
            return {"a": self._texts(self.network(mel, lengths))}
        lips = batch.crops[:, :, None].float() / 255
        if weights.fused:
            texts["a"] = self._texts(self.network(mel, lengths))
            texts["av"] = self._texts(self.network(mel, lengths, lips, batch.present, heard=batch.has_audio))
        output = self.network(None, lengths, lips, batch.present)
        if not weights.fused and output.visual_log_probs is not None:
            output = output._replace(log_probs=output.visual_log_probs)
        texts["v"] = self._texts(output)
        return texts

    def _texts(self, output: NetworkOutput) -> list[str]:
        return [
            self.tokenizer.decode(greedy(log_probs[:length].float().cpu().numpy(), self.network.blank_id))
            for log_probs, length in zip(output.log_probs, output.lengths.tolist(), strict=True)
        ]


def targets_of_frames(targets_BT: Tensor, frames: int, subsampling: int) -> Tensor:
    """Targets for frames of another length, [B, frames]: the target of the 80 ms that each frame's middle lies in.

    targets_BT: one target for each 80 ms.
    frames: how many frames there are.
    subsampling: their length in 10 ms.
    """
    middle = (torch.arange(frames, device=targets_BT.device) + 0.5) * subsampling / 8
    return targets_BT[:, middle.long().clamp(max=targets_BT.shape[1] - 1)]


def ctc_loss(log_probs_BTV: Tensor, lengths: Tensor, tokens_BU: Tensor, token_counts: Tensor) -> Tensor:
    """Mean over utterances of the CTC loss per unit; an utterance too short for its units counts as zero.

    log_probs_BTV: the blank is the last unit.
    lengths: int64 [B], frames.
    tokens_BU: padded.
    token_counts: int64 [B].
    """
    loss_B = F.ctc_loss(
        log_probs_BTV.transpose(0, 1),
        tokens_BU,
        lengths,
        token_counts,
        blank=log_probs_BTV.shape[-1] - 1,
        reduction="none",
        zero_infinity=True,
    )
    return (loss_B / token_counts.clamp(min=1)).mean()


def trust_loss(trust_BT: Tensor, batch: Batch, lengths: Tensor) -> Tensor:
    """Mean over frames of -log(1 - trust) with lips of another utterance, plus the mean of -log(trust) with whole lips.

    Utterances without sound, and lips that are hidden in part, teach nothing.

    trust_BT: logits.
    lengths: int64 [B], frames.
    """
    B, T = trust_BT.shape
    # Two slots make a frame.
    seen_BT = batch.present[:, : 2 * T].reshape(B, T, 2).any(dim=-1) & valid_mask(lengths, T)
    seen_BT = seen_BT & batch.has_audio[:, None]
    total = trust_BT.new_zeros((), dtype=torch.float32)
    for chosen_B, sign in ((~batch.lips_match, 1.0), (batch.lips_whole, -1.0)):
        counted_BT = seen_BT & chosen_B[:, None]
        loss_BT = F.softplus(sign * trust_BT.float()).masked_fill(~counted_BT, 0.0)
        total = total + loss_BT.sum() / counted_BT.sum().clamp(min=1)
    return total


def peak_first_loss(log_probs_BTV: Tensor, lengths: Tensor) -> Tensor:
    """Mean over frames of KL(next frame || frame), which makes words come out earlier.

    Each frame learns the next frame's distribution (peak-first regularization, Tian et al., arXiv 2211.03284, section
    3.2).
    """
    # Detached, so that the earlier frame moves towards the later one and not the other way round.
    next_BTV = log_probs_BTV[:, 1:].detach()
    divergence_BT = (next_BTV.exp() * (next_BTV - log_probs_BTV[:, :-1])).sum(-1)
    valid_BT = valid_mask(lengths - 1, divergence_BT.shape[1])
    return divergence_BT.masked_fill(~valid_BT, 0.0).sum() / valid_BT.sum().clamp(min=1)


def warp_mel(mel_BFT: Tensor, longest_change: float) -> Tensor:
    """Mel features as of speakers with longer or shorter vocal tracts: the frequencies of each item are multiplied.

    Vocal tract length perturbation (Jaitly and Hinton, ICML workshop on deep learning for audio, speech and language
    processing, 2013, section 3): a random factor between 1 - `longest_change` and 1 + `longest_change` up to 4800 Hz,
    from there linear to the highest frequency. Features between two filters are interpolated.
    """
    B, bins, _ = mel_BFT.shape
    factor_B1 = 1 + longest_change * (2 * torch.rand(B, 1, device=mel_BFT.device) - 1)
    middles_F = mel_middles_hz(bins).to(mel_BFT.device, torch.float32)
    nyquist, bend = SAMPLE_RATE_HZ / 2, 4800.0
    knee_B1 = bend * factor_B1.clamp(max=1) / factor_B1
    above_BF = nyquist - (nyquist - knee_B1 * factor_B1) / (nyquist - knee_B1) * (nyquist - middles_F)
    wanted_BF = torch.where(middles_F <= knee_B1, middles_F * factor_B1, above_BF).contiguous()
    upper_BF = torch.searchsorted(middles_F, wanted_BF).clamp(1, bins - 1)
    low_BF, high_BF = middles_F[upper_BF - 1], middles_F[upper_BF]
    share_BF1 = ((wanted_BF - low_BF) / (high_BF - low_BF)).clamp(0, 1)[..., None]
    index_BFT = upper_BF[..., None].expand_as(mel_BFT)
    return mel_BFT.gather(1, index_BFT - 1) * (1 - share_BF1) + mel_BFT.gather(1, index_BFT) * share_BF1


def mask_mel(mel_BFT: Tensor, lengths: Tensor, augment: AugmentConfig) -> Tensor:
    """Mel features with random bands and stretches of time set to zero, their mean: SpecAugment (arXiv 1904.08779)."""
    B, bins, frames = mel_BFT.shape
    keep_BFT = torch.ones_like(mel_BFT, dtype=torch.bool)
    for _ in range(augment.mel_masks):
        keep_BFT &= ~_stretches(B, bins, augment.mel_mask_bins, mel_BFT.device)[:, :, None]
    for _ in range(augment.time_masks):
        longest = max(1, int(frames * augment.time_mask_share))
        keep_BFT &= ~_stretches(B, frames, longest, mel_BFT.device)[:, None, :]
    return mel_BFT * keep_BFT * valid_mask(lengths, frames)[:, None]


def _stretches(batch: int, size: int, longest: int, device: torch.device) -> Tensor:
    """bool [batch, size]: True in one random stretch of 0 to `longest` positions for each item."""
    length = torch.randint(0, longest + 1, (batch, 1), device=device)
    start = (torch.rand(batch, 1, device=device) * (size - length + 1)).long()
    position = torch.arange(size, device=device)[None]
    return (position >= start) & (position < start + length)


def trainable(parameters: Iterable[Tensor]) -> int:
    """The number of weights that training may change."""
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
