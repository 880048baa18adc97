"""A small `.nemo` archive with random weights."""

from __future__ import annotations

import copy
import gzip
import io
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import yaml

from avsr.families.nemo import read_nemo_config
from avsr.families.nemo.weights import source_name
from avsr.families.own.network import Network

TEXT = "the quiet teacher follows the river to the harbour and paints a boat in the garden".split()
TOKENIZER_MEMBER = "0123456789abcdef0123456789abcdef_tokenizer.model"


@cache
def tokenizer_model(size: int = 40) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(TEXT[i:] + TEXT[:i]) for i in range(len(TEXT))]),
        model_writer=model,
        vocab_size=size,
        model_type="bpe",
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
    )
    return model.getvalue()


def content() -> dict[str, Any]:
    """The configuration of a tiny model, as archives hold it."""
    return {
        "sample_rate": 16000,
        "target": "nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE",
        "tokenizer": {"type": "bpe", "model_path": f"nemo:{TOKENIZER_MEMBER}", "dir": "elsewhere"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "window_size": 0.025,
            "features": 80,
            "normalize": "per_feature",
            "dither": 1e-5,
        },
        "encoder": {
            "_target_": "nemo.collections.asr.modules.ConformerEncoder",
            "feat_in": 80,
            "n_layers": 2,
            "d_model": 16,
            "n_heads": 2,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 8,
            "causal_downsampling": True,
            "att_context_style": "chunked_limited",
            "att_context_size": [[8, 3], [8, 0]],
            "conv_kernel_size": 5,
            "conv_context_size": "causal",
            "conv_norm_type": "layer_norm",
        },
        "decoder": {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": 16, "num_classes": 40},
        "train_ds": {"anything": 1},
    }


def weights() -> dict[str, torch.Tensor]:
    """Random weights for the model of `content`, under the names of the archive."""
    config = read_nemo_config(content(), Path("tiny.nemo"), 40)
    generator = torch.Generator().manual_seed(1)
    named = {}
    for name, tensor in Network(config).state_dict().items():
        source = source_name(name, config, "EncDecCTCModelBPE")
        shape = (*tensor.shape, 1) if ".pointwise_conv" in source and tensor.ndim == 2 else tensor.shape
        shape = (*tensor.shape, 1) if source == "decoder.decoder_layers.0.weight" else shape
        if tensor.ndim > 1:
            named[source] = 0.5 * torch.randn(shape, generator=generator)
        else:  # strong biases would make the output constant
            named[source] = torch.zeros(shape) if source.endswith("bias") else torch.ones(shape)
    return named


def saved(state: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def write_archive(
    path: Path,
    change: Callable[[dict[str, Any]], Any] | None = None,
    *,
    members: dict[str, bytes] | None = None,
    compressed: bool = False,
) -> Path:
    """Write an archive to `path` and return the path.

    change: applied to the configuration before it is written.
    members: replace members of the same name, or are added.
    """
    settings = copy.deepcopy(content())
    if change is not None:
        change(settings)
    all_members = {
        f"./{TOKENIZER_MEMBER}": tokenizer_model(),
        "./model_config.yaml": yaml.safe_dump(settings).encode(),
        "./model_weights.ckpt": saved(weights()),
        **(members or {}),
    }
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in all_members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(gzip.compress(file.getvalue()) if compressed else file.getvalue())
    return path
