"""One training run: from a configuration file to a checkpoint folder, resumable at any time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from avsr.config import apply_overrides, as_mapping, read_yaml
from avsr.decoding.tokenizer import read_vocabulary
from avsr.errors import AvsrError, ConfigError
from avsr.families.own.auto_avsr_front_end import load_visual_trunk
from avsr.families.own.checkpoint import WEIGHTS_NAME, load_checkpoint, read_weights, save_checkpoint
from avsr.families.own.network import Network
from avsr.families.own.run_folder import EPOCHS_NAME, MODEL_NAME, RESUME_NAME, epoch_checkpoints
from avsr.families.own.visual_encoder import ResNetTrunk
from avsr.files import naming, only_writer, remedy_for, write_text
from avsr.shipped import find_configuration, find_file
from avsr.surroundings import start_computing
from avsr.training.config import RunConfig, TrainConfig
from avsr.training.metrics import describe
from avsr.training.tuning_config import TuneConfig, run_config

if TYPE_CHECKING:
    import lightning
    import torch
    from torch import nn

    from avsr.training.callbacks import StopBetweenBatches
    from avsr.training.data import TrainingSet
    from avsr.training.module import RunModule

ESTIMATE_AFTER_STEPS = 8
Message = Callable[[str], None]


def train(config_path: str | os.PathLike[str], overrides: Sequence[str] = (), *, on_message: Message) -> Path:
    """The checkpoint folder of the trained model, `OUTPUT/model`. Resumes an interrupted run of the same output folder.

    config_path: a YAML file, or the name of a shipped configuration.
    overrides: `key=value` with dotted keys.
    on_message: receives one line at a time: data and sizes, progress, error rates.
    Raises ConfigError, DataError, ModelError; and AvsrError with the install command if the training extra is missing.
    """
    ready = set_up(config_path, overrides)
    config, module = ready.config, ready.module
    from lightning.pytorch.utilities import rank_zero_only

    from avsr.training.callbacks import StopBetweenBatches

    output = Path(config.output)
    dev_loaders = _dev_loaders(config, module)
    # The folder is made only now, so that a run that cannot start leaves nothing behind.
    check_output(output, config)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = remedy_for(error) or "give another output"
        raise ConfigError(f"output {output}: cannot be written", got=error, remedy=remedy) from None
    # On several GPUs Lightning starts this command once for each; the first process writes.
    lock = only_writer(output) if getattr(rank_zero_only, "rank", 0) == 0 else contextlib.nullcontext()
    with lock, naming(output), _without_chatter(), StopBetweenBatches() as stopper:
        _claim(output, config, str(config_path))
        announce(ready, on_message)
        trainer = _fit(ready, stopper, on_message)
        return _finish(ready, output, lambda: trainer.validate(module, dev_loaders, verbose=False), on_message)


def _fit(ready: Ready, stopper: StopBetweenBatches, on_message: Message) -> lightning.Trainer:
    """Train to the last epoch, from where an earlier run stopped. Raises ModelError if its state is damaged."""
    import lightning
    from lightning.pytorch.loggers import TensorBoardLogger

    from avsr.training.callbacks import KeepEpochWeights, Narrator, RecordFigures
    from avsr.training.resume import ResumeFile, unusable

    config, data, module = ready.config, ready.data, ready.module
    output = Path(config.output)
    steps = len(data.epoch(0))
    size = config.optimizer.batch_size
    on_message(
        f"schedule: {config.optimizer.epochs} epochs of {steps} batches of up to {size} utterances; time follows"
        " after a few batches"
    )

    keeper = KeepEpochWeights(output, ready.save, config.optimizer.average_last)
    recorder = RecordFigures(output / "metrics.jsonl")
    narrator = Narrator(recorder, on_message, ESTIMATE_AFTER_STEPS)
    trainer = lightning.Trainer(
        max_epochs=config.optimizer.epochs,
        accumulate_grad_batches=config.optimizer.accumulate,
        gradient_clip_val=config.optimizer.clip,
        precision=precision(config),
        # Every epoch draws batches of its own.
        reload_dataloaders_every_n_epochs=1,
        check_val_every_n_epoch=config.dev_every,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(str(output), name="tensorboard", version=""),
        # The figures before the state: an epoch whose figures cannot be written is repeated.
        callbacks=[stopper, recorder, keeper, narrator],
        plugins=[ResumeFile()],
        enable_progress_bar=False,
        enable_model_summary=False,
        # `KeepEpochWeights` saves whole files, and weights in the format of a checkpoint.
        enable_checkpointing=False,
    )
    resume = output / EPOCHS_NAME / RESUME_NAME
    if resume.is_file():
        on_message(f"resuming from {resume}")
    try:
        trainer.fit(
            module,
            val_dataloaders=_dev_loaders(config, module),
            ckpt_path=str(resume) if resume.is_file() else None,
            weights_only=True,
        )
    except SystemExit:  # Lightning turns Ctrl-C into it
        raise KeyboardInterrupt from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if narrator.has_started or not resume.is_file():
            raise
        # Lightning looks at nothing before it uses it, and the file may be of anybody.
        raise unusable(resume, f"{type(error).__name__}: {error}"[:200]) from None
    return trainer


class Ready(NamedTuple):
    """What a run works with, made and checked before anything is written."""

    config: RunConfig
    network: nn.Module
    data: TrainingSet
    module: RunModule
    save: Callable[[Path, str], Path]
    """Writes the network with the text of its card as a model, and returns its folder."""
    weights_of: Callable[[Path], dict[str, torch.Tensor]]
    """The weights of such a folder by the names of the network."""
    terms: str = ""
    """What the weights must go on with, for the card."""


def set_up(config_path: str | os.PathLike[str], overrides: Sequence[str]) -> Ready:
    """The configuration, and the tokenizer, network and data that it names. Writes nothing; raises as `train` does."""
    start_computing()
    try:
        import lightning  # noqa: F401
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise AvsrError(f"training needs the package {error.name}", remedy="pip install '.[train]'") from None
    import torch

    from avsr.training.data import TrainingSet
    from avsr.training.module import TrainingModule

    content = read_yaml(find_configuration(config_path))
    apply_overrides(content, overrides)
    config = run_config(content, str(config_path))
    if isinstance(config, TuneConfig):
        return _set_up_tuning(config)
    assert isinstance(config, TrainConfig)
    vocabulary = find_file(config.vocabulary)
    if not vocabulary.exists():
        kind = "a SentencePiece model" if vocabulary.suffix == ".model" else "a file with one word a line"
        raise ConfigError(
            f"{config_path}: vocabulary",
            got=f"{config.vocabulary}, which is not there",
            expected=kind,
            remedy=f"make one with: avsr vocabulary MANIFEST -o {config.vocabulary}",
        )
    tokenizer = read_vocabulary(vocabulary)
    if len(tokenizer) != config.model.vocabulary_size:
        raise ConfigError(
            f"{config_path}: model.vocabulary_size",
            got=config.model.vocabulary_size,
            expected=f"{len(tokenizer)}, the units of {config.vocabulary}",
        )
    torch.manual_seed(config.seed)
    network = _network(config, str(config_path))
    for part, folder in config.initialize.items():
        _initialize(network, part, find_file(folder))
    data = TrainingSet(config, tokenizer)
    return Ready(
        config,
        network,
        data,
        TrainingModule(config, network, tokenizer, data),
        save=lambda folder, card: save_checkpoint(folder, network, tokenizer, card=card),
        weights_of=lambda folder: read_weights(folder / WEIGHTS_NAME),
    )


def _set_up_tuning(config: TuneConfig) -> Ready:
    """A run that trains a published lip reader on."""
    import torch

    from avsr.families.auto_avsr.family import LICENCES
    from avsr.families.auto_avsr.weights import language_model_folders, save_weights, weights_of
    from avsr.training.data import TrainingSet
    from avsr.training.tuning import TuningModule, open_published

    torch.manual_seed(config.seed)
    network, units, weights = open_published(config, find_file(config.published))
    data = TrainingSet(config, units)
    terms = f"Made from {config.published}, whose terms hold for it too: {LICENCES[network.config.code]}."
    for folder in language_model_folders(weights.parent):
        terms += f" The language model {folder} was not copied: put it into this folder to use it."
    return Ready(
        config,
        network,
        data,
        TuningModule(config, network, units, data),
        save=lambda folder, card: save_weights(folder, network, weights, card),
        weights_of=lambda folder: weights_of(network, folder),
        terms=terms,
    )


def announce(ready: Ready, on_message: Message) -> None:
    """Report the device, the data and the sizes of the model, a line at a time."""
    import torch

    from avsr.training.module import trainable

    config, network, data = ready.config, ready.network, ready.data
    device = "GPU" if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    on_message(f"run {config.output}: model {config.name}, seed {config.seed}, {device}, precision {precision(config)}")
    for corpus in data.corpora:
        hours = sum(utterance.duration for utterance in corpus.utterances) / 3600
        drawn = corpus.config.per_epoch or len(corpus.utterances)
        left_out = f", {corpus.too_long} longer ones left out" if corpus.too_long else ""
        on_message(
            f"data: {corpus.config.manifest} {corpus.config.split}: {len(corpus.utterances)} utterances, "
            f"{hours:.2f} h, {min(drawn, len(corpus.utterances))} an epoch{left_out}"
        )
    used = [corpus.config for corpus in data.corpora]
    for optional in (corpus for corpus in config.train if corpus not in used):
        on_message(f"data: {optional.manifest} {optional.split}: there is none, left out")
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    parts = ", ".join(f"{name} {size / 1e6:.2f} M" for name, size in sizes.items())
    total, trained = sum(sizes.values()) / 1e6, trainable(network.parameters()) / 1e6
    on_message(f"parameters: {total:.2f} M ({parts}), {trained:.2f} M trained")


def _network(config: TrainConfig, config_path: str) -> Network:
    try:
        return Network(config.trained_model())
    except (ValueError, RuntimeError, ZeroDivisionError) as error:  # sizes that no check of the configuration covers
        raise ConfigError(f"{config_path}: model cannot be made", got=error) from None


@contextlib.contextmanager
def _without_chatter() -> Iterator[None]:
    # Lightning advertises on the console and warns of its own use of torch.
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning|torch|tensorboard")
            yield
    finally:
        logger.setLevel(level)


def _finish(
    ready: Ready,
    output: Path,
    measure: Callable[[], Sequence[Mapping[str, float]]],
    on_message: Message,
) -> Path:
    """Average the weights of the last epochs, measure word error rates, save; returns the checkpoint folder."""

    config, network = ready.config, ready.network
    epochs = epoch_checkpoints(output)[-config.optimizer.average_last :]
    sums: dict[str, torch.Tensor] = {}
    for folder in epochs:
        for name, tensor in ready.weights_of(folder).items():
            sums[name] = sums[name] + tensor.double() if name in sums else tensor.double()
    network.load_state_dict(
        # The counts of batches in batch norms are whole numbers, while the sums are float64.
        {name: (total / len(epochs)).to(network.state_dict()[name].dtype) for name, total in sums.items()}
    )
    figures = {name: value for result in measure() for name, value in result.items()}
    on_message(f"mean of the last {len(epochs)} epochs: " + describe(figures))
    lines = [f"- {name.removeprefix('dev/')}: {value:.2f} %" for name, value in sorted(figures.items())]
    card = "\n".join(
        [
            f"# {config.name}",
            "",
            f"Trained by avsr, seed {config.seed}. WER on the development split:",
            "",
            *lines,
            "",
            *([ready.terms, ""] if ready.terms else []),
        ]
    )
    folder = ready.save(output / MODEL_NAME, card)
    on_message(f"wrote {folder}")
    if ready.terms:
        on_message(ready.terms)
    return folder


def _dev_loaders(config: RunConfig, module: RunModule) -> list[Any]:
    """Loaders of the development set: clean, and at 0 dB if the run trains with noise and sound."""
    from torch.utils.data import DataLoader

    from avsr.training.batches import collate
    from avsr.training.data import EvaluationSet
    from avsr.training.items import Corpus

    corpus = Corpus(config.dev)
    sets = [EvaluationSet(corpus, module.tokenizer)]
    if config.augment.noise_share and config.modalities.a + config.modalities.av > 0:
        sets.append(EvaluationSet(corpus, module.tokenizer, noise=module.data.noise, snr_db=0.0))
    return [DataLoader(s, batch_size=config.optimizer.batch_size, collate_fn=collate) for s in sets]


def check_output(output: Path, config: RunConfig) -> bool:
    """Whether the run folder exists. Raises ConfigError if it holds a run of another configuration."""
    record = output / "config.yaml"
    if record.exists():
        # The record is parsed, not compared as text: an older record lacks settings that were added later.
        known = run_config(read_yaml(record), str(record))
        if known == config:
            return True
        changed = ", ".join(_differences(as_mapping(known), as_mapping(config)))
        longer = dataclasses.replace(known.optimizer, epochs=config.optimizer.epochs)
        if dataclasses.replace(known, optimizer=longer) == config:
            # The learning rate has fallen to zero by the old schedule: resuming would not equal the longer run.
            raise ConfigError(
                f"{output} holds a run of another length, which cannot be changed",
                got=changed,
                remedy="give another output to train anew, with initialize to begin from this run's model",
            )
        raise ConfigError(
            f"{output} holds a run of another configuration",
            got=changed,
            remedy=f"give another output, delete {output}, or undo the change",
        )
    return False


def _versions() -> dict[str, str]:
    """What the run is made with, for its record."""
    import torch
    import torchaudio
    import torchvision

    import avsr

    return {
        "avsr": avsr.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchaudio": torchaudio.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _claim(output: Path, config: RunConfig, config_path: str) -> None:
    """Write the record of a new run. Raises ConfigError if the folder holds a run of another configuration."""
    if check_output(output, config):  # another process may have begun it
        return
    write_text(output / "command.txt", shlex.join(sys.argv) + f"\n# configuration: {config_path}\n")
    write_text(output / "versions.json", json.dumps(_versions(), indent=1) + "\n")
    # Written last: a folder with it is a run that can be resumed.
    write_text(output / "config.yaml", yaml.safe_dump(as_mapping(config), sort_keys=False))


def _differences(known: Any, given: Any, key: str = "") -> Iterator[str]:
    """The settings in which two configurations differ, each as `key 3 instead of 2`."""
    if isinstance(known, dict) and isinstance(given, dict):
        for name in dict.fromkeys((*known, *given)):
            yield from _differences(known.get(name), given.get(name), f"{key}.{name}" if key else str(name))
    elif known != given:
        yield f"{key} {given} instead of {known}"


def _initialize(network: Network, part: str, folder: Path) -> None:
    """Copy the weights of one part from a checkpoint folder, or of the visual trunk from an Auto-AVSR file.

    Raises ConfigError if the part is not there or has another shape.
    """
    target = getattr(network, part, None)
    if part == "visual_trunk" and not folder.is_dir():
        if not isinstance(target, ResNetTrunk):
            raise ConfigError(
                "initialize: visual_trunk from a file", expected="model.visual_encoder.trunk: resnet18 to take it"
            )
        return load_visual_trunk(target, folder)
    try:
        source, _ = load_checkpoint(folder)
    except AvsrError as error:
        raise ConfigError(f"initialize: {part} cannot be taken: {error}") from None
    origin = getattr(source, part, None)
    if target is None or origin is None:
        raise ConfigError(
            f"initialize: {part} cannot be taken from {folder}",
            expected="a part that both models have",
        )
    weights = origin.state_dict()
    if part == "fusion" and origin.evidence is None and target.evidence is not None:
        # A fusion that learns to trust by evidence may begin from one without: what that one lacks begins new.
        weights |= {k: v for k, v in target.state_dict().items() if k.startswith(("evidence.", "trust."))}
    try:
        target.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"initialize: {part} of {folder} has another shape", got=str(error).splitlines()[-1].strip()[:200]
        ) from None


def precision(config: RunConfig) -> Any:
    """The precision of a run, as Lightning names it."""
    import torch

    match config.optimizer.precision:
        case "bf16":
            return "bf16-mixed"
        case "auto" if torch.cuda.is_available() and torch.cuda.is_bf16_supported():
            return "bf16-mixed"
        case _:
            return "32-true"
