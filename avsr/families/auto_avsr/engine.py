"""Published lip readers as an engine: windows of lips, sound or both become words.

A window is computed alone, because the originals compute one utterance at a time and padding would change results.

Letters: T frames of 40 ms, S samples, D width, V units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avsr.arrays import Crops, LogProbs, Present, Samples, check_form
from avsr.decoding.alignment import align
from avsr.decoding.checked import check_log_probs
from avsr.decoding.greedy import AlignedUnit, greedy
from avsr.decoding.joint import Found, JointSettings, joint_search
from avsr.decoding.search import Search, Spoken
from avsr.errors import ModelError
from avsr.families.auto_avsr.config import USUAL_BEAM
from avsr.families.auto_avsr.inputs import published_geometry, sound_input, video_input
from avsr.families.auto_avsr.language_model import LanguageModel
from avsr.families.auto_avsr.network import PublishedNetwork, modality_of
from avsr.families.auto_avsr.tokens import UnitList
from avsr.grid import CROP_PX, LIP_INPUT_PX, SLOT_MS, SLOT_SAMPLES, Modality

BLANK_ID = 0
LM_WEIGHT = 0.3
"""Of a language model, as the published model with the lowest error uses it."""
BEST = 1
"""How many texts must be certain before the search may end."""


class Heard(NamedTuple):
    """One sound."""

    encoded: Tensor | None
    """What the network makes of it before it knows the lips, [T, ...]; None for less than a frame."""
    frames: int


class Seen(NamedTuple):
    """Lips of one item."""

    encoded: Tensor | None
    """What the network makes of them before it knows the sound, [T, ...]; None if no slot shows lips."""
    frames: int
    crops: Crops
    present: Present


class PublishedEngine:
    """A loaded model. network, units, language_model: as `open_weights` gives them; name: for errors."""

    def __init__(
        self,
        network: PublishedNetwork,
        units: UnitList,
        language_model: LanguageModel | None,
        *,
        name: str,
        device: torch.device,
    ) -> None:
        self.network, self.units, self.language_model = network, units, language_model
        self.name, self.device = name, device
        self.usual_beam = USUAL_BEAM[network.config.code]
        self.code, self.modalities = network.config.code, network.config.modalities

    @torch.inference_mode()
    def encode_audio(self, samples: Sequence[Samples]) -> list[Heard]:
        """See `avsr.engine.Engine`. Raises ModelError if the model only reads lips."""
        if not any("a" in modality for modality in self.modalities):
            raise ModelError(f"model {self.name} only reads lips", remedy="use modality v or auto")
        for index, item in enumerate(samples):
            check_form(item, f"samples {index}")
        return [self._heard(np.array(item, np.float32)) for item in samples]

    def _heard(self, samples_S: Samples) -> Heard:
        frames = len(samples_S) // SLOT_SAMPLES
        if not frames:  # no convolution works on nothing
            return Heard(None, 0)
        # Beside lips the original cuts the sound to whole frames before it normalises it; alone it does not.
        whole_S = samples_S if self.modalities == ("a",) else samples_S[: frames * SLOT_SAMPLES]
        prepared = sound_input(torch.from_numpy(whole_S).to(self.device), self.code)
        return Heard(self.network.sides.sound(prepared), frames)

    @torch.inference_mode()
    def encode_lips(
        self, crops: Sequence[Crops], present: Sequence[Present], audio: list[Heard] | None = None
    ) -> list[Seen]:
        """See `avsr.engine.Engine`. A slot without lips shows the lips of the last slot before it that has some.

        Raises ModelError if the model only hears, ValueError for other arrays or numbers of them.
        """
        if not any("v" in modality for modality in self.modalities):
            raise ModelError(f"model {self.name} only hears", remedy="use a model that reads lips")
        lengths = [len(item) for item in crops] if audio is None else [heard.frames for heard in audio]
        if not len(crops) == len(present) == len(lengths):
            raise ValueError(f"got {len(crops)} lips and {len(present)} presences, expected {len(lengths)} of each")
        for index, (crops_THW, present_T) in enumerate(zip(crops, present, strict=True)):
            _check_lips(crops_THW, present_T, index)
        return [self._seen(*item) for item in zip(crops, present, lengths, strict=True)]

    def _seen(self, crops_THW: Crops, present_T: Present, frames: int) -> Seen:
        if not frames or not present_T[:frames].any():
            return Seen(None, frames, crops_THW, present_T)
        shown_THW = torch.from_numpy(crops_THW[last_seen(present_T, frames)]).to(self.device)
        video_THW = video_input(published_geometry(shown_THW), self.code)
        return Seen(self.network.sides.lips(video_THW), frames, crops_THW, present_T)

    @torch.inference_mode()
    def memory(self, heard: Heard | None, seen: Seen | None) -> tuple[Tensor, Modality] | None:
        """The encoded utterance [T, D] of one item, and from what; None if there is nothing to read or hear.

        Raises ValueError for lips that were encoded for a sound of another length.
        """
        if heard is None and seen is not None and seen.frames != len(seen.crops):
            seen = self._seen(seen.crops, seen.present, len(seen.crops))  # it was as long as the sound
        if heard is not None and seen is not None and heard.frames != seen.frames:
            raise ValueError(f"got sound of {heard.frames} frames, lips of {seen.frames}")
        lips, sound = None if seen is None else seen.encoded, None if heard is None else heard.encoded
        if self.modalities == ("av",) and lips is None and sound is not None:
            # Such a network was never trained without lips. An even grey picture says nothing.
            lips = self.network.sides.lips(torch.zeros(len(sound), LIP_INPUT_PX, LIP_INPUT_PX, device=self.device))
        used = modality_of(lips, sound)
        if (lips is None and sound is None) or used not in self.modalities:
            return None
        return self.network.sides.join(lips, sound), used

    def decode(self, audio: list[Heard] | None, lips: list[Seen] | None, search: Search) -> list[list[Spoken]]:
        """See `avsr.engine.Engine`. Raises ValueError for neither sound nor lips."""
        if audio is None and lips is None:
            raise ValueError("decode: got neither samples nor lips, expected at least one")
        count = len(audio if audio is not None else lips or ())
        return [
            self._words(None if audio is None else audio[item], None if lips is None else lips[item], search)
            for item in range(count)
        ]

    def _words(self, heard: Heard | None, seen: Seen | None, search: Search) -> list[Spoken]:
        encoded = self.memory(heard, seen)
        if encoded is None:
            return []
        memory_TD, modality = encoded
        ctc_TV = self.ctc_log_probs(memory_TD, modality)
        if search.kind == "greedy":
            ids = greedy(ctc_TV, BLANK_ID)
        else:
            found = self.search(memory_TD, modality, ctc_TV, self.settings(search)).hypotheses
            ids = [unit for unit in (found[0].text_units if found else ()) if unit != BLANK_ID]
        return self.spoken(ctc_TV, ids)

    @torch.inference_mode()
    def ctc_log_probs(self, memory_TD: Tensor, modality: Modality) -> LogProbs:
        """Log-probabilities [T, V], the blank first. Raises ModelError for NaN."""
        rows_TV: LogProbs = self.network.ctc_log_probs(memory_TD, modality).cpu().numpy()
        check_log_probs(rows_TV, self.name)
        return rows_TV

    def settings(self, search: Search) -> JointSettings:
        """The settings of the joint search: the published ones, with the beam that is asked for."""
        lm_weight = LM_WEIGHT if self.language_model is not None else 0.0
        return JointSettings(beam=search.beam or self.usual_beam, lm_weight=lm_weight, best=BEST)

    def search(self, memory_TD: Tensor, modality: Modality, ctc_TV: LogProbs, settings: JointSettings) -> Found:
        """The most likely texts of an encoded utterance, by decoder, CTC and language model together."""
        scorer = self.network.decoder.scorer(memory_TD, self.network.head(modality))
        return joint_search(scorer, ctc_TV, settings, self.language_model if settings.lm_weight else None)

    def spoken(self, ctc_TV: LogProbs, ids: list[int]) -> list[Spoken]:
        """The words of units, with the times at which the CTC head finds them."""
        frames = _frames(ctc_TV, ids)
        seconds = SLOT_MS / 1000
        return [
            Spoken(
                word,
                frames[first].first * seconds,
                frames[end - 1].end * seconds,
                float(np.prod([unit.confidence for unit in frames[first:end]])),
            )
            for word, first, end in self.units.words(ids)
        ]


def _frames(ctc_TV: LogProbs, ids: list[int]) -> list[AlignedUnit]:
    """The frames of each unit. More units than the frames can hold share them evenly, and nobody is sure of them."""
    try:
        return align(ctc_TV, ids, BLANK_ID)
    except ValueError:
        edges = np.linspace(0, len(ctc_TV), len(ids) + 1)
        return [
            AlignedUnit(unit, int(edges[place]), max(int(edges[place]) + 1, int(edges[place + 1])), 0.0)
            for place, unit in enumerate(ids)
        ]


def _check_lips(crops_THW: Crops, present_T: Present, index: int) -> None:
    """Raises ValueError for arrays that are no lips."""
    if crops_THW.dtype != np.uint8 or crops_THW.shape[1:] != (CROP_PX, CROP_PX):
        raise ValueError(f"lips {index}: got {crops_THW.dtype} {crops_THW.shape}, expected uint8 [T, 96, 96]")
    if len(present_T) != len(crops_THW):
        raise ValueError(f"presence {index}: got {len(present_T)} slots, expected {len(crops_THW)}, as many as crops")


def last_seen(present_T: Present, frames: int) -> NDArray[np.int64]:
    """For each of the frames, the number of the last slot up to it that shows lips; before the first, that one."""
    places = np.full(frames, -1)
    T = min(frames, len(present_T))
    places[:T] = np.where(present_T[:T], np.arange(T), -1)
    return np.maximum(np.maximum.accumulate(places), int(present_T.argmax()))
