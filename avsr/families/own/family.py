"""Opens our own checkpoints, and published ones that run on our network, as models."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from avsr.config import as_mapping
from avsr.decoding.tokenizer import WordTokenizer
from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError
from avsr.families.own.checkpoint import CONFIG_NAME, load_checkpoint, read_config
from avsr.families.own.config import ModelConfig
from avsr.families.own.run_folder import MODEL_NAME, epoch_checkpoints, finished_checkpoint
from avsr.grid import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import torch

    from avsr.decoding.greedy import GreedySearch
    from avsr.decoding.search import Search
    from avsr.decoding.tokenizer import Tokenizer
    from avsr.families.own.network import Network
    from avsr.families.own.stream import OwnStream


def owns(target: str) -> bool:
    """Whether `target` is a checkpoint folder, or the folder of a training run."""
    # os.path and not pathlib, which raises for names that no file can have, such as one of 500 letters.
    return os.path.isfile(os.path.join(target, CONFIG_NAME))  # both have one


def read_card(target: str) -> Card:
    """The card of a checkpoint folder, without its weights. Raises ModelError or ConfigError."""
    folder = _checkpoint(target)
    return make_card(read_config(folder), "own", whole_words=(folder / WordTokenizer.FILE_NAME).is_file())


def open_model(target: str, device: str, dtype: str) -> Model:
    """The model in a checkpoint folder. Raises ModelError or ConfigError."""
    chosen = torch_device(device)
    network, tokenizer = load_checkpoint(_checkpoint(target))
    return make_model(network, tokenizer, device=chosen, dtype=torch_dtype(dtype))


def _checkpoint(target: str) -> Path:
    """The checkpoint folder of a target. Raises ModelError for a training run that has not finished."""
    folder = Path(target)
    finished = finished_checkpoint(folder)
    if finished is None and (epochs := epoch_checkpoints(folder)):
        raise ModelError(
            f"{target}: this training run has not finished",
            expected=f"{folder / MODEL_NAME}",
            remedy=f"let it finish, or use the weights of one epoch: {epochs[-1]}",
        )
    return finished or folder


def open_nemo(target: str, device: str, dtype: str) -> Model:
    """The model in a `.nemo` archive, on our own network. Raises ModelError or ConfigError."""
    from avsr.families.nemo import load_nemo

    chosen = torch_device(device)
    network, tokenizer = load_nemo(target)
    return make_model(network, tokenizer, family="nemo", device=chosen, dtype=torch_dtype(dtype))


def make_card(config: ModelConfig, family: str, *, whole_words: bool) -> Card:
    """What callers may know of a model with this configuration. whole_words: whether each unit is a word."""
    known = f"the {config.vocabulary_size} words of its vocabulary" if whole_words else "open"
    # Features that are normalised over the whole recording are known only at its end.
    chunks = () if config.mel.normalize == "per_feature" else config.chunk_contexts
    return Card(
        name=config.name,
        family=family,
        modalities=config.modalities,
        languages=config.languages,
        domain=config.domain or known,
        sentences=config.sentences,
        licence=config.licence or "",
        chunks_ms=tuple(frames * config.frame_ms for frames in chunks),
    )


def make_model(
    network: Network,
    tokenizer: Tokenizer,
    *,
    family: str = "own",
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Model:
    """A model of a network that is in memory. device: None for the CPU; dtype: as `OwnEngine` takes it."""
    from avsr.families.own.engine import OwnEngine
    from avsr.families.own.texts import OwnTexts

    engine = OwnEngine(network, tokenizer, device=device, dtype=dtype)
    card = make_card(network.config, family, whole_words=isinstance(tokenizer, WordTokenizer))

    def stream(chunk_ms: int, look_ahead_ms: int, *, lips: bool, search: Search) -> tuple[OwnStream, GreedySearch]:
        from avsr.families.own.stream import OwnStream

        return OwnStream(engine, chunk_ms, look_ahead_ms, lips=lips), engine.frame_search(search)

    def identity() -> dict[str, str]:
        config = json.dumps(as_mapping(network.config), sort_keys=True)
        digest = hashlib.sha256(tokenizer.data())
        # Sorted, so that the hash does not depend on the order in which modules were made.
        for name, tensor in sorted(network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().numpy().tobytes())
        return {
            "weights_sha256": digest.hexdigest(),
            "config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        }

    return Model(
        card=card,
        engine=engine,
        frames=engine,
        stream=stream,
        in_chunks=engine.in_chunks,
        texts=OwnTexts(engine, card.sentences),
        identity=identity,
        device=str(engine.device),
        network=network,
    )


def check_reacts(network: Network, tokenizer: Tokenizer) -> None:
    """Raises ModelError if the network gives the same for all sound, or no log-probabilities."""
    import numpy as np

    from avsr.decoding.checked import CheckedFrames
    from avsr.families.own.engine import OwnEngine

    noise_S = 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE_HZ).astype(np.float32)
    frames = CheckedFrames(OwnEngine(network, tokenizer), network.config.name)
    frames.log_probs(frames.encode_audio([noise_S]), None)


def torch_device(device: str) -> torch.device:
    """The device that a text names. Raises ConfigError for a GPU that is not there."""
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {chosen} is not there",
            got=f"{torch.cuda.device_count()} GPUs",
            remedy="use device auto or cpu",
        )
    return chosen


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a name in `avsr.families.DTYPES`. Raises ConfigError for int8."""
    import torch

    kinds = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise ConfigError(f"this kind of model does not compute in {dtype}", expected=", ".join(kinds))
    return kinds[dtype]
