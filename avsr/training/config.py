"""The configuration of a training run: model, data, augmentation, losses, optimiser."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

from avsr.augment.video import LipEffects
from avsr.families.own.config import ModelConfig
from avsr.grid import Modality

Part = Literal["audio_encoder", "audio_head", "visual_encoder", "visual_trunk", "visual_head", "fusion"]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """Utterances of one corpus."""

    manifest: str
    """Path of a manifest, relative to the working directory."""
    split: str = "train"
    """Which split of the manifest."""
    per_epoch: int | None = None
    """How many random utterances to use in each epoch; None for all, 0 for none.

    A corpus of 0 only lends to the others: its voices to `dubbed`, its lips to `wrong_lips`. No babble is made of it.
    """
    optional: bool = False
    """Train without this corpus if the manifest does not have the split."""
    max_duration_s: float | None = None
    """Leave out longer utterances; None to leave out none."""
    made_with: str = field(default="", compare=False)  # advice: a run with other advice is the same run
    """The command that makes the manifest, for the error about a missing one; "" for a prepared corpus."""

    def __post_init__(self) -> None:
        if self.per_epoch is not None and self.per_epoch < 0:
            raise ValueError(f"per_epoch: got {self.per_epoch}, expected 0 or more")
        # "not more than 0", and not "0 or less", because nan must be refused too.
        if self.max_duration_s is not None and not self.max_duration_s > 0:
            raise ValueError(f"max_duration_s: got {self.max_duration_s}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """Modality dropout: weights of what the network gets of an utterance that has sound and lips."""

    a: float = 0.25
    """The sound alone."""
    v: float = 0.25
    """The lips alone."""
    av: float = 0.5
    """Both."""

    def __post_init__(self) -> None:
        if min(self.a, self.v, self.av) < 0 or self.a + self.v + self.av <= 0:
            raise ValueError(f"got a {self.a}, v {self.v}, av {self.av}, expected none negative and one positive")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training data is varied. The defaults change nothing."""

    noise_folder: str | None = None
    """Recordings to mix in (WAV, FLAC, OGG, MP3)."""
    babble: bool = True
    """Mix in other training voices too."""
    babble_share: float = 0.35
    """Share of the noise that is babble of these voices. The rest is recordings and coloured noise, 9 to 4."""
    noise_share: float = 0.0
    """Share of the utterances that get noise."""
    snr_db: tuple[float, float] = (-5.0, 20.0)
    """Lowest and highest SNR."""
    speed: float = 0.0
    """Largest change of the speed: 0.1 for 0.9 to 1.1."""
    channel_db: float = 0.0
    """Depth of a random frequency response."""
    effects: str = ""
    """Rooms, microphones, lines and pitch, as `avsr.noise.effects` reads them: "reverb@0.3,opus=8..24@0.2"."""
    impulse_responses: str | None = None
    """Folder of recordings for reverb."""
    held_out_noise: tuple[str, ...] = ()
    """Noise plans, or folders of noise, for tests only. A recording that is in training too is an error."""
    gain_db: float = 0.0
    """Largest change of the level, up or down."""
    vocal_tract: float = 0.0
    """Largest change of the length of the vocal tract: 0.1 multiplies the frequencies by 0.9 to 1.1."""
    mel_masks: int = 0
    """SpecAugment (arXiv 1904.08779): how many bands of the log-mel features are masked."""
    mel_mask_bins: int = 12
    """SpecAugment: the widest band."""
    time_masks: int = 0
    """SpecAugment: how many stretches of time are masked."""
    time_mask_share: float = 0.05
    """SpecAugment: the longest stretch, as a share of the length."""
    lips: float = 0.0
    """Strength of geometric changes of the lips, 0 to 1."""
    hidden_slots: int = 0
    """Longest stretch of lips that is hidden, in slots."""
    offset_slots: int = 0
    """Largest shift of the lips against the sound, in slots."""
    wrong_lips: float = 0.0
    """Share of the audible utterances that get another utterance's lips, so that the fusion learns to doubt.

    Half of them are the lips of the same speaker, the others of all speakers equally often.
    """
    wrong_lips_snr_db: float = 8.0
    """From which SNR on an utterance counts as audible. In more noise nobody could tell that the lips are wrong."""
    dubbed: float = 0.0
    """Share of the utterances with lips that get another voice's sound of the same sentence.

    The lips are stretched to its words, so that the model learns voices and faces apart. The voices come from
    corpora without lips. Needs word times.
    """
    lip_effects: LipEffects = field(default_factory=LipEffects)
    """How often lips are blurred, covered, dropped and so on."""
    spliced: float = 0.0
    """Share of the utterances that continue as another utterance of the same speaker from a random word on.

    A model then cannot guess the end of a sentence from its beginning. Needs word times.
    """
    joined: float = 0.0
    """Share of the utterances that are joined to pairs, so that the model learns longer recordings too."""

    def __post_init__(self) -> None:
        for name in (
            "noise_share",
            "lips",
            "babble_share",
            "wrong_lips",
            "dubbed",
            "spliced",
            "joined",
            "time_mask_share",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 1")
        for name in (
            "channel_db",
            "gain_db",
            "mel_masks",
            "mel_mask_bins",
            "time_masks",
            "hidden_slots",
            "offset_slots",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        for name in ("speed", "vocal_tract"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 to 0.5")
        if self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db: got {list(self.snr_db)}, expected the lowest and then the highest")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses: CTC, mixed with word times, of the fused path and of each side."""

    fused: float = 1.0
    """Weight of the fused path."""
    audio: float = 0.3
    """Weight of the audio side."""
    visual: float = 0.3
    """Weight of the visual side."""
    trust: float = 0.0
    """Weight of a term that teaches a fusion with evidence to follow whole lips and not another utterance's."""
    word_times: tuple[float, float] = (0.0, 0.0)
    """Share of frame-wise cross-entropy against word times in each loss: at first, and after `word_times_epochs`.

    The rest is CTC. With CTC from the start, a small model recites the grammar at the end of each utterance and never
    learns from the sound; starting with word times avoids it, and keeping a share keeps the times of words right. If
    a word has several units, they share its frames evenly.
    """
    word_times_epochs: int = 20
    """Over how many epochs the share changes, linearly."""
    word_times_live: bool = True
    """Use word times in chunked passes too.

    A frame in a chunk lacks the context that follows, so word times teach it to put out words too early, wrong ones
    among them.
    """
    peak_first: float = 0.0
    """Weight of a term that makes words come out earlier (`peak_first_loss`)."""

    def __post_init__(self) -> None:
        for name in ("fused", "audio", "visual", "trust", "peak_first"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if not all(0 <= share <= 1 for share in self.word_times):
            raise ValueError(f"word_times: got {list(self.word_times)}, expected shares from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero."""

    epochs: int
    learning_rate: float = 1e-3
    """The highest, reached after the warm-up."""
    weight_decay: float = 0.01
    warmup_epochs: float = 2.0
    batch_size: int = 16
    """Utterances a step on the device."""
    accumulate: int = 1
    """Steps a weight update."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic: "auto" is bf16 on a GPU that has it, else fp32."""
    average_last: int = 5
    """The final model is the mean of the weights of that many last epochs."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "average_last"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 1 or more")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected more than 0")
        for name in ("weight_decay", "warmup_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every training run has. Paths are relative to the working directory."""

    output: str
    """The run folder."""
    train: tuple[CorpusConfig, ...]
    """The corpora to train on."""
    dev: CorpusConfig
    """The corpus that word error rates are measured on."""
    optimizer: OptimizerConfig
    modalities: ModalityConfig = field(default_factory=ModalityConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    dev_every: int = 1
    """Measure word error rates after every n-th epoch."""
    workers: int = 1
    """Processes that prepare batches."""
    seed: int = 1
    """Of everything random."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: got no corpus, expected one or more")
        if self.dev_every < 1:
            raise ValueError(f"dev_every: got {self.dev_every}, expected 1 or more")
        if self.workers < 0:
            raise ValueError(f"workers: got {self.workers}, expected 0 or more")

    @property
    def name(self) -> str:
        """The name of the model, for messages."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """A run that trains a model of this package."""

    vocabulary: str
    """File with one word a line, or a SentencePiece model, NAME.model.

    A shipped one is found by its relative path in any folder (data/grid/vocabulary.txt).
    """
    model: ModelConfig
    """The model to train."""
    loss: LossConfig = field(default_factory=LossConfig)
    initialize: dict[str, str] = field(default_factory=dict)
    """Part -> checkpoint folder, or name of a shipped model, to take its weights from.

    A "visual_trunk" that is a ResNet-18 may be taken from the `.pth` file of an Auto-AVSR model.
    """
    freeze: tuple[Part, ...] = ()
    """Parts that are not trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = self.parts
        for name, chosen in (("initialize", self.initialize), ("freeze", self.freeze)):
            for part in chosen:
                if part not in parts:
                    raise ValueError(f"{name}: got {part}, expected parts of this model: {', '.join(parts)}")
        # The visual trunk is a part of the visual encoder, so freezing that freezes the trunk.
        if set(parts) <= {*self.freeze, "visual_trunk"}:
            raise ValueError("freeze: got all parts, expected one at least to be trained")
        if self.model.visual_encoder is None and self.modalities.v + self.modalities.av > 0:
            raise ValueError(
                f"modalities: got v {self.modalities.v} and av {self.modalities.av} for a model without a"
                " visual_encoder, expected {a: 1.0, v: 0.0, av: 0.0}"
            )
        # Called for its error, so that a run that trains nothing fails before it starts.
        self.trained_model()

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of this model that `initialize` and `freeze` may name."""
        return get_args(Part) if self.model.visual_encoder is not None else ("audio_encoder", "audio_head")

    def trained_model(self) -> ModelConfig:
        """The model with the modalities that this run trains, and the heads that decode them.

        Raises ValueError if no loss trains anything.
        """
        odds, loss = self.modalities, self.loss
        with_audio, with_lips = odds.a + odds.av > 0, odds.v + odds.av > 0
        trained: list[Modality] = []
        if self.model.fusion is None:
            # A model without fusion has no loss but the audio side's.
            trained = ["a"] if loss.audio > 0 else []
            decodes: Literal["fused", "sides"] = "fused"
        elif loss.fused > 0:
            # The sound alone does not go through the fusion: the audio side's loss trains it, or it was trained before.
            comes_trained = {"audio_encoder", "audio_head"} <= set(self.freeze)
            trained = ["a"] if odds.a > 0 or (with_audio and loss.audio > 0) or comes_trained else []
            trained += ["v"] if odds.v > 0 else []
            trained += ["av"] if odds.av > 0 else []
            decodes = "fused"
        else:
            trained = ["a"] if with_audio and loss.audio > 0 else []
            trained += ["v"] if with_lips and loss.visual > 0 else []
            decodes = "sides"
        if not trained:
            raise ValueError(
                f"loss: got fused {loss.fused}, audio {loss.audio}, visual {loss.visual}, expected one above 0 that"
                " belongs to the modalities that are trained"
            )
        return dataclasses.replace(self.model, trained=tuple(trained), decodes=decodes)
