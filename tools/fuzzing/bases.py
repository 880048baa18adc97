"""Working inputs of every kind, before they are changed: one folder each.

media/            one file of each container
own/              a checkpoint with a list of words, and a sound
pieces/           a checkpoint with a SentencePiece model, and a sound
nemo/             the members of a `.nemo` archive, and a sound
torch/            the file of a visual front end
published/        the weights, settings and units of a published model that hears, and a sound
whisper/          a model for CTranslate2 with random weights, and a sound
installed/        the record of an installed model
corpus/           a prepared corpus, its noise plan, a training configuration, and the results of an evaluation
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 20
"""Recordings of AVSR_TEST_MEDIA that are larger are left out: a run would take too long."""

_VARIABLE = re.compile(
    r'("command"|"finished"|"seconds"|"latency_ms"|"platform"|"processor"|"cores"): ("[^"]*"|[\d.]+)'
)
"""Values of an evaluation that are others each time."""


def write_bases(folder: Path) -> None:
    """Write all bases into an empty folder. It needs the helpers in `tests/` and takes about 15 s."""
    _media(folder / "media")
    sound = folder / "media/input.wav"
    _checkpoints(folder)
    _nemo(folder / "nemo")
    _torch(folder / "torch")
    _published(folder / "published")
    _whisper(folder)
    for name in ("own", "pieces", "nemo", "published", "whisper"):
        shutil.copy(sound, folder / name / "input.wav")
    record = {"name": "whisper-base", "version": 1, "files": {"model.bin": {"size": 3, "sha256": "0" * 64}}}
    (folder / "installed/models/whisper-base").mkdir(parents=True)
    (folder / "installed/models/whisper-base/avsr-model.json").write_text(json.dumps(record))
    (folder / "installed/models/whisper-base/model.bin").write_bytes(b"abc")
    _corpus(folder / "corpus")


def _media(folder: Path) -> None:
    from avsr.shipped import ASSETS
    from fuzzing.media import FILES, write_media

    folder.mkdir(parents=True)
    for name, form in FILES.items():
        write_media(folder / name, *form)
    shutil.copy(ASSETS / "demo.mp4", folder / "demo.mp4")
    recordings = os.environ.get("AVSR_TEST_MEDIA")
    for path in sorted(Path(recordings, "clips").glob("*.*")) if recordings else ():
        if path.suffix != ".md" and path.stat().st_size <= MOST_BYTES:
            shutil.copy(path, folder / path.name)


def _checkpoints(folder: Path) -> None:
    import dataclasses

    from avsr.decoding.tokenizer import read_tokenizer
    from avsr.families.own.checkpoint import save_checkpoint
    from tests.nemo_archive import tokenizer_model
    from tests.tiny import random_network, tiny_config, tiny_network, tiny_tokenizer

    save_checkpoint(folder / "own/model", tiny_network(), tiny_tokenizer(), card="# tiny\n")
    (folder / "pieces").mkdir()
    (folder / "pieces/tokenizer.model").write_bytes(tokenizer_model())
    tokenizer = read_tokenizer(folder / "pieces")
    (folder / "pieces/tokenizer.model").unlink()
    config = dataclasses.replace(tiny_config(lips=False), vocabulary_size=len(tokenizer))
    save_checkpoint(folder / "pieces/model", random_network(config), tokenizer, card="# pieces\n")


def _nemo(folder: Path) -> None:
    import yaml

    from tests import nemo_archive

    folder.mkdir()
    (folder / nemo_archive.TOKENIZER_MEMBER).write_bytes(nemo_archive.tokenizer_model())
    (folder / "model_config.yaml").write_text(yaml.safe_dump(nemo_archive.content()))
    (folder / "model_weights.ckpt").write_bytes(nemo_archive.saved(nemo_archive.weights()))


def _torch(folder: Path) -> None:
    """The weights of a ResNet-18. All tensors share the numbers of the largest one, so that the file stays small."""
    import torch

    from avsr.families.own.auto_avsr_front_end import FIRST, _source_name
    from avsr.families.own.visual_encoder import ResNetTrunk

    weights: dict[str, Any] = {}
    halves = torch.full((512 * 512 * 9,), 0.5, dtype=torch.float16)
    for name, tensor in ResNetTrunk(5).resnet.state_dict().items():
        source = "encoder.frontend." + _source_name(name)
        shape = (tensor.shape[0], 1, *tensor.shape[1:]) if source.endswith(FIRST) else tensor.shape
        numbers = halves[: tensor.numel()].clone() if tensor.is_floating_point() else torch.ones(1, dtype=tensor.dtype)
        weights[source] = numbers.reshape(shape)
    folder.mkdir()
    torch.save(weights, folder / "front.pth")


def _published(folder: Path) -> None:
    import torch

    from tests.published_models import TINY_UNITS, tiny_config, tiny_weights, write_units

    lips = tiny_config()
    weights = tiny_weights(replace(lips, lips=None, sound=lips.lips))
    (folder / "model").mkdir(parents=True)
    # In half the bytes.
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    torch.save(halves, folder / "model/model.pth")
    settings = {"rel_pos_type": "latest", "aheads": 2, "relu_type": "swish", "char_list": None}
    (folder / "model/model.json").write_text(json.dumps([512, len(TINY_UNITS), settings]))
    write_units(folder / "model/small_units.txt", TINY_UNITS)


def _whisper(folder: Path) -> None:
    from tests.whisper_files import network_file, write_tokenizer, write_vocabulary

    model = folder / "whisper/model"
    model.mkdir(parents=True)
    write_tokenizer(model / "tokenizer.json")
    (model / "model.bin").write_bytes(network_file())
    config = {"suppress_ids": [1, 2], "suppress_ids_begin": [3], "lang_ids": [4, 5, 6], "alignment_heads": [[0, 0]]}
    (model / "config.json").write_text(json.dumps(config))
    write_vocabulary(model)


def _corpus(folder: Path) -> None:
    import yaml

    from avsr.cli.main import main
    from tests.corpus import make_corpus
    from tests.trainings import write_config

    folder.mkdir()
    here = Path.cwd()
    with io.StringIO() as said, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        os.chdir(folder)
        try:
            make_corpus(Path("."))
            write_config(Path("manifest.jsonl"), Path("."))
            made = yaml.safe_load(Path("config.yaml").read_text())
            made["optimizer"]["epochs"] = 1
            Path("config.yaml").rename("training.yaml").write_text(yaml.safe_dump(made))
            kinds = ["--snr", "0", "--seed", "1", "--noise-kinds", "white", "--workers", "0"]
            commands = [["noise", "plan", "manifest.jsonl", "--split", "dev", "-o", "plan.jsonl", *kinds]]
            conditions = ["--snr", "clean", "--modalities", "a", "--video", "intact", "--workers", "1", "--no-media"]
            commands.append(["evaluate", "manifest.jsonl", "--model", "../own/model", "-o", "results", *conditions])
            for words in commands:
                if main(words):
                    raise RuntimeError(said.getvalue())
            results = Path("results/results.json").read_text()
            shutil.rmtree("results")
            Path("results").mkdir()
            Path("results/results.json").write_text(_VARIABLE.sub(r"\1: 1.0", results))
        finally:
            os.chdir(here)
