"""How published models choose a text with other models: unit by unit beside the same units, else whole texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avsr.decoding.ctc_prefix import CTCPrefixScorer
from avsr.decoding.joint import joint_search_by
from avsr.decoding.plain import Plain
from avsr.decoding.scorers import score_units
from avsr.decoding.search import Search, Spoken
from avsr.engine import StepScores
from avsr.families.auto_avsr.engine import BLANK_ID, Heard, PublishedEngine, Seen


class PublishedSteps:
    """See `avsr.engine.Steps`."""

    def __init__(self, engine: PublishedEngine) -> None:
        self._engine, self.units = engine, engine.units.units

    def scored(self, audio: list[Heard] | None, lips: list[Seen] | None, search: Search) -> list[StepScores | None]:
        """See `avsr.engine.Steps`."""
        count = len(audio if audio is not None else lips or ())
        return [
            self._item(None if audio is None else audio[item], None if lips is None else lips[item], search)
            for item in range(count)
        ]

    def _item(self, heard: Heard | None, seen: Seen | None, search: Search) -> StepScores | None:
        engine = self._engine
        encoded = engine.memory(heard, seen)
        if encoded is None:
            return None
        memory_TD, modality = encoded
        ctc_TV = engine.ctc_log_probs(memory_TD, modality)
        return StepScores(
            decoder=engine.network.decoder.scorer(memory_TD, engine.network.head(modality)),
            ctc=CTCPrefixScorer(ctc_TV, BLANK_ID, len(self.units) - 1),
            vocabulary=len(self.units),
            frames=len(ctc_TV),
            language_model=engine.language_model,
            settings=engine.settings(search),
            spoken=lambda ids: engine.spoken(ctc_TV, [unit for unit in ids if unit != BLANK_ID]),
        )


class PublishedTexts:
    """See `avsr.engine.Texts`: a text has the score of the joint search."""

    def __init__(self, engine: PublishedEngine) -> None:
        self._engine, self._steps = engine, PublishedSteps(engine)

    def candidates(
        self, audio: list[Heard] | None, lips: list[Seen] | None, search: Search, count: int
    ) -> list[list[list[Spoken]]]:
        """See `avsr.engine.Texts`. A greedy search finds one text."""
        if search.kind == "greedy":
            return [[words] for words in self._engine.decode(audio, lips, search)]
        scored = self._steps.scored(audio, lips, search)
        return [[[]] if side is None else _listed(side, count) for side in scored]

    def log_probs_of(
        self,
        audio: list[Heard] | None,
        lips: list[Seen] | None,
        search: Search,
        texts: Sequence[Sequence[Plain]],
    ) -> list[list[float]]:
        """See `avsr.engine.Texts`."""
        scored = self._steps.scored(audio, lips, search)
        return [[self._log_prob(side, text) for text in own] for side, own in zip(scored, texts, strict=True)]

    def _log_prob(self, side: StepScores | None, text: Plain) -> float:
        units = self._engine.units.spelled(text)
        if side is None or units is None:
            return -np.inf
        settings, end_id = side.settings, side.vocabulary - 1
        parts = [(side.decoder, 1 - settings.ctc_weight), (side.ctc, settings.ctc_weight)]
        if side.language_model is not None:
            parts.append((side.language_model, settings.lm_weight))
        return sum(weight * score_units(scorer, units, end_id) for scorer, weight in parts if weight)


def _listed(side: StepScores, count: int) -> list[list[Spoken]]:
    """The words of the best texts of a search; the first are what a search for one text finds."""
    settings = side.settings._replace(best=count)
    lm = side.language_model if settings.lm_weight else None
    found = joint_search_by(side.decoder, side.ctc, side.vocabulary, side.frames, settings, lm).hypotheses
    return [side.spoken(hypothesis.text_units) for hypothesis in found[:count]] or [[]]
