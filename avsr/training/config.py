"""What a training run is: model, data, augmentation, losses, optimiser."""

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
    """Utterances to train on.

    manifest: path of a manifest, relative to the working directory. split: which of its splits. per_epoch: how many of
    them to draw each epoch, other ones each time; None for all. optional: go on without where there is no such split.
    max_duration_s: leave out longer utterances; None for none. made_with: the command that makes the manifest, which
    the error names when there is no manifest; "" for a prepared corpus.
    """

    manifest: str
    split: str = "train"
    per_epoch: int | None = None
    optional: bool = False
    max_duration_s: float | None = None
    made_with: str = field(default="", compare=False)  # advice: a run with other advice is the same run

    def __post_init__(self) -> None:
        if self.per_epoch is not None and self.per_epoch < 1:
            raise ValueError(f"per_epoch: got {self.per_epoch}, expected 1 or more")
        if self.max_duration_s is not None and not self.max_duration_s > 0:
            raise ValueError(f"max_duration_s: got {self.max_duration_s}, expected more than 0")


@dataclass(frozen=True, kw_only=True)
class ModalityConfig:
    """Modality dropout: how often an utterance that has both is heard only, seen only, or both."""

    a: float = 0.25
    v: float = 0.25
    av: float = 0.5

    def __post_init__(self) -> None:
        if min(self.a, self.v, self.av) < 0 or self.a + self.v + self.av <= 0:
            raise ValueError(f"got a {self.a}, v {self.v}, av {self.av}, expected none negative and one positive")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training data is varied; the defaults leave it as it is.

    noise_folder: recordings to mix in (WAV, FLAC, OGG, MP3). babble: mix in other training voices too. noise_share:
    share of utterances that get noise. snr_db: lowest and highest. speed: largest change, 0.1 for 0.9 to 1.1.
    channel_db: depth of a random frequency response. effects: rooms, microphones, lines and pitch, as
    `avsr.noise.effects` reads them, "reverb@0.3,opus=8..24@0.2". impulse_responses: recordings for reverb.
    held_out_noise: noise plans or folders whose recordings must not be trained with; one that is in noise_folder or
    impulse_responses too is an error. gain_db: range of loudness. mel_masks, mel_mask_bins,
    time_masks, time_mask_share: SpecAugment (arXiv 1904.08779), the last as a share of the length. lips: strength of
    geometric changes, 0 to 1. lip_effects: how often lips are blurred, covered, dropped and so on. hidden_slots:
    longest stretch of lips taken away. offset_slots: largest shift of lips against sound. wrong_lips: share of well
    audible utterances that get another utterance's lips, so that the fusion learns to doubt. spliced: share of
    utterances that go on as another one of the speaker's from some word on, where words have times, so that nothing
    can be known from having seen the beginning. joined: share of utterances that are joined to pairs, so that longer
    recordings are known too.
    """

    noise_folder: str | None = None
    babble: bool = True
    noise_share: float = 0.0
    snr_db: tuple[float, float] = (-5.0, 20.0)
    speed: float = 0.0
    channel_db: float = 0.0
    effects: str = ""
    impulse_responses: str | None = None
    held_out_noise: tuple[str, ...] = ()
    gain_db: float = 0.0
    mel_masks: int = 0
    mel_mask_bins: int = 12
    time_masks: int = 0
    time_mask_share: float = 0.05
    lips: float = 0.0
    hidden_slots: int = 0
    offset_slots: int = 0
    wrong_lips: float = 0.0
    lip_effects: LipEffects = field(default_factory=LipEffects)
    spliced: float = 0.0
    joined: float = 0.0

    def __post_init__(self) -> None:
        for name in ("noise_share", "lips", "wrong_lips", "spliced", "joined", "time_mask_share"):
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
        if not 0 <= self.speed < 0.5:
            raise ValueError(f"speed: got {self.speed}, expected 0 to 0.5")
        if self.snr_db[0] > self.snr_db[1]:
            raise ValueError(f"snr_db: got {list(self.snr_db)}, expected the lowest and then the highest")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the CTC losses of the fused path and of each side.

    word_times: share of each loss that is not CTC but frame-by-frame cross-entropy against the corpus's word times, at
    the beginning and after `word_times_epochs`. With CTC from the start a small model recites the grammar at the end of
    each utterance and never learns to listen; starting from word times avoids that, and keeping some keeps times true.
    Units that are pieces of words share the frames of their word evenly.
    word_times_live: whether they are taught in chunks too, where a frame does not know what comes: words then come out
    before they are understood, and the wrong ones too. peak_first: weight of a term that makes words come out earlier
    (`peak_first_loss`).
    """

    fused: float = 1.0
    audio: float = 0.3
    visual: float = 0.3
    word_times: tuple[float, float] = (0.0, 0.0)
    word_times_epochs: int = 20
    word_times_live: bool = True
    peak_first: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fused", "audio", "visual", "peak_first"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected 0 or more")
        if not all(0 <= share <= 1 for share in self.word_times):
            raise ValueError(f"word_times: got {list(self.word_times)}, expected shares from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero.

    learning_rate: the highest. warmup_epochs: to reach it. batch_size: utterances a step on the device; accumulate:
    steps a weight update. clip: largest gradient norm. precision: "auto" is bf16 where the device is a GPU that has it.
    average_last: how many of the last epochs' weights the final model is the mean of.
    """

    epochs: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_epochs: float = 2.0
    batch_size: int = 16
    accumulate: int = 1
    clip: float = 5.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    average_last: int = 5

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
class TrainConfig:
    """One training run.

    output: run folder.
    vocabulary: file with one word a line, or a SentencePiece model, NAME.model. A shipped one is found by its relative
        path in any folder (data/grid/vocabulary.txt).
    model: what is trained. train: its corpora.
    dev: manifest and split that WER is measured on after each `dev_every` epochs.
    initialize: part -> checkpoint folder or name of a shipped model to take it from; "visual_trunk", where it is a
        ResNet-18, may be taken from the `.pth` file of an Auto-AVSR model.
    freeze: parts that stay as they are. workers: processes that prepare batches. seed: of everything random.

    Paths are relative to the working directory.
    """

    output: str
    vocabulary: str
    model: ModelConfig
    train: tuple[CorpusConfig, ...]
    dev: CorpusConfig
    optimizer: OptimizerConfig
    modalities: ModalityConfig = field(default_factory=ModalityConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    initialize: dict[str, str] = field(default_factory=dict)
    freeze: tuple[Part, ...] = ()
    dev_every: int = 1
    workers: int = 1
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train: got no corpus, expected one or more")
        if self.dev_every < 1:
            raise ValueError(f"dev_every: got {self.dev_every}, expected 1 or more")
        if self.workers < 0:
            raise ValueError(f"workers: got {self.workers}, expected 0 or more")
        parts = self.parts
        for name, chosen in (("initialize", self.initialize), ("freeze", self.freeze)):
            for part in chosen:
                if part not in parts:
                    raise ValueError(f"{name}: got {part}, expected parts of this model: {', '.join(parts)}")
        if set(parts) <= {*self.freeze, "visual_trunk"}:  # which is within the visual encoder
            raise ValueError("freeze: got all parts, expected one at least to be trained")
        if self.model.visual_encoder is None and self.modalities.v + self.modalities.av > 0:
            raise ValueError(
                f"modalities: got v {self.modalities.v} and av {self.modalities.av} for a model without a"
                " visual_encoder, expected {a: 1.0, v: 0.0, av: 0.0}"
            )
        self.trained_model()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that this model has."""
        return get_args(Part) if self.model.visual_encoder is not None else ("audio_encoder", "audio_head")

    def trained_model(self) -> ModelConfig:
        """The model as this run trains it: what for, and whose heads. Raises ValueError when it trains none."""
        odds, loss = self.modalities, self.loss
        heard, read = odds.a + odds.av > 0, odds.v + odds.av > 0
        trained: list[Modality] = []
        if self.model.fusion is None:
            # The only loss of such a model is that of its sound.
            trained = ["a"] if loss.audio > 0 else []
            decodes: Literal["fused", "sides"] = "fused"
        elif loss.fused > 0:
            # Sound by itself passes by the fusion: its own loss trains it too, or it came trained.
            comes_trained = {"audio_encoder", "audio_head"} <= set(self.freeze)
            trained = ["a"] if odds.a > 0 or (heard and loss.audio > 0) or comes_trained else []
            trained += ["v"] if odds.v > 0 else []
            trained += ["av"] if odds.av > 0 else []
            decodes = "fused"
        else:
            trained = ["a"] if heard and loss.audio > 0 else []
            trained += ["v"] if read and loss.visual > 0 else []
            decodes = "sides"
        if not trained:
            raise ValueError(
                f"loss: got fused {loss.fused}, audio {loss.audio}, visual {loss.visual}, expected one above 0 that"
                " belongs to the modalities that are trained"
            )
        return dataclasses.replace(self.model, trained=tuple(trained), decodes=decodes)
