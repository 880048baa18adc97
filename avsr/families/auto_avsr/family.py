"""Opens published lip-reading models as models of this package."""

from __future__ import annotations

import os
from pathlib import Path

from avsr.engine import Card, Model
from avsr.errors import ConfigError, ModelError
from avsr.families.auto_avsr.config import USUAL_BEAM, PublishedConfig
from avsr.families.auto_avsr.layouts import layout_of
from avsr.families.auto_avsr.weights import SUFFIXES, config_of, open_weights, weights_file, without_prefixes
from avsr.files import sha256_of
from avsr.untrusted.safetensors import read_header

LICENCES = {
    "auto_avsr": "published weights: no licence stated; derived from data for research",
    "vsr_ml": "published weights: non-commercial, comparison and benchmarking only",
    "usr": "published weights: no licence stated",
    "avhubert": "published weights: CC-BY-NC-4.0 and Meta's licence of AV-HuBERT, non-commercial research only",
}
"""By code: the terms of the published weights, as their authors state them. The file itself states none."""
OWN_SETTINGS = "config.yaml"
"""A folder with this file is a checkpoint of this package."""
ANY_KIND = "model.safetensors"
"""Models of every kind are published under this name."""
WINDOW_S, MARGIN_S = 15.0, 1.0
"""The originals were tested with stretches of up to 16 s, and trained with up to 24 s."""


def owns(target: str) -> bool:
    """Whether `target` is a file or folder of weights in one of the published forms."""
    if os.path.isfile(target):
        # Weights beside our configuration are ours; the folder is what opens them.
        return target.endswith(SUFFIXES) and not os.path.isfile(os.path.join(os.path.dirname(target), OWN_SETTINGS))
    if not os.path.isdir(target) or os.path.isfile(os.path.join(target, OWN_SETTINGS)):
        return False
    path = weights_file(Path(target))
    return path is not None and (path.name != ANY_KIND or _is_published(path))


def _is_published(path: Path) -> bool:
    """Whether the names in a safetensors file are of these models. A damaged file is taken: its error is then shown."""
    try:
        return layout_of(without_prefixes(read_header(path))) is not None
    except ModelError:
        return True


def open_model(target: str, device: str, dtype: str) -> Model:
    """The model of a target. Raises ModelError, or ConfigError for a device or precision that is not there."""
    if dtype not in ("auto", "float32"):
        raise ConfigError(f"this kind of model does not compute in {dtype}", expected="auto, float32")
    from avsr.families.auto_avsr.engine import PublishedEngine
    from avsr.families.auto_avsr.texts import PublishedSteps, PublishedTexts
    from avsr.families.own.family import torch_device

    chosen = torch_device(device)
    opened = open_weights(Path(target))
    card = make_card(target, opened.network.config)
    language_model = None if opened.language_model is None else opened.language_model.to(chosen)
    engine = PublishedEngine(opened.network.to(chosen), opened.units, language_model, name=card.name, device=chosen)
    return Model(
        card=card,
        engine=engine,
        texts=PublishedTexts(engine),
        steps=PublishedSteps(engine),
        identity=lambda: {"weights_sha256": sha256_of(opened.weights)},
        device=str(chosen),
        network=opened.network,
    )


def make_card(target: str, config: PublishedConfig) -> Card:
    """What callers may know of the model."""
    path = Path(os.path.abspath(target))
    return Card(
        name=path.name if path.is_dir() else path.stem,
        family="auto_avsr",
        modalities=config.modalities,
        licence=LICENCES[config.code],
        window_s=WINDOW_S,
        margin_s=MARGIN_S,
        searches=("beam", "greedy"),
        beam=USUAL_BEAM[config.code],
        cut_at_pauses=True,
    )


def read_card(target: str) -> Card:
    """The card of a target, without a network. Raises ModelError."""
    return make_card(target, config_of(Path(target)))
