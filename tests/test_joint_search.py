"""Joint CTC/attention search: equal to the published one, and to sums over all alignments that are done by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avsr.decoding.ctc_prefix import LOGZERO, CTCPrefixScorer
from avsr.decoding.joint import Found, Hypothesis, JointSettings, joint_search
from avsr.errors import AvsrError, ConfigError, ModelError
from tests.attention_models import WholePrefix, decoder, language_model
from tests.media import shared_lip_model

PUBLISHED = ("v", "a", "av", "v_lm", "v_legacy", "usr", "avhubert")
CASES = ("short", "medium", "long")
MODES = ("v", "a", "av")
"""The model `usr` has a decoder output for each, and a search with its name."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_give_the_original_hypotheses(name: str) -> None:
    """All ten texts, their scores and those of each part, steps and number of texts."""
    for search, case in itertools.product(published(name)["search"], CASES):
        expected = published(name)["search"][search]["cases"][case]
        found = searched(name, search, case)
        where = f"{name}, search {search}, case {case}"
        best = found.hypotheses[: len(expected["nbest"])]
        assert [list(hypothesis.units) for hypothesis in best] == [item["yseq"] for item in expected["nbest"]], where
        assert (found.steps, len(found.hypotheses)) == (expected["steps"], expected["ended"]), where
        for hypothesis, item in zip(best, expected["nbest"], strict=True):
            assert hypothesis.score == pytest.approx(item["score"], abs=1e-3), where
            assert hypothesis.scores == pytest.approx(item["scores"], abs=1e-3), where


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_early_stop_keeps_the_best(name: str) -> None:
    fewer = 0
    for search, case in itertools.product(published(name)["search"], CASES):
        whole = searched(name, search, case)
        for best in (1, 10):
            early = searched(name, search, case, best=best)
            assert early.hypotheses[:best] == whole.hypotheses[:best]
            assert early.steps <= whole.steps
            fewer += whole.steps - early.steps
    assert fewer > 0


def published(name: str) -> dict[str, Any]:
    return json.loads((shared_lip_model(name) / "info.json").read_text(encoding="utf-8"))


def searched(name: str, search: str, case: str, best: int | None = None) -> Found:
    """The search of this name in a published model, from its stored encoder output."""
    folder, info = shared_lip_model(name), published(name)
    settings = info["search"][search]["settings"]
    mode = search if search in MODES else None
    arrays = np.load(folder / "reference.npz")
    at = f"{case}.{mode}" if mode else case
    weights = {key.removeprefix("avsr."): value for key, value in load_file(folder / "model.safetensors").items()}
    return joint_search(
        decoder(
            inside(weights, "decoder."),
            torch.from_numpy(arrays[f"{at}.encoder"]),
            info.get("decoder_heads", info["heads"]),
            f"out_layer_{mode}" if mode else "output_layer",
        ),
        arrays[f"{at}.ctc_log_probs"],
        JointSettings(
            settings["beam_size"], settings["ctc_weight"], settings["lm_weight"], settings["penalty"], best=best
        ),
        stored_language_model(folder, info),
    )


def inside(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def stored_language_model(folder: Path, info: dict[str, Any]) -> WholePrefix | None:
    if not info.get("lm"):
        return None
    weights = load_file(folder / "lm.safetensors")
    return language_model(weights, info["lm"]["head"], has_positions=info["lm"]["pos_enc"] == "sinusoidal")


BLANK, END = 0, 4  # units 1 to 3 are spoken


def random_rows(frames: int, vocabulary: int = END + 1, seed: int = 0) -> Any:
    logits = np.random.default_rng(seed).normal(size=(frames, vocabulary)) * 2
    return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)


def text_of(path: tuple[int, ...]) -> tuple[int, ...]:
    """What an alignment says: repeated units are one, blanks are nothing."""
    return tuple(unit for unit, _ in itertools.groupby(path) if unit != BLANK)


def probability(rows_TV: Any, wanted: Any) -> float:
    """The sum over all alignments whose text is wanted."""
    paths = itertools.product(range(END + 1), repeat=len(rows_TV))
    return sum(
        float(np.exp(sum(rows_TV[frame, unit] for frame, unit in enumerate(path))))
        for path in paths
        if wanted(text_of(path))
    )


def prefix_scores(rows_TV: Any, prefix: tuple[int, ...]) -> Any:
    """The scores [V] of all units after a prefix, and the sum of the scores of the prefix itself."""
    scorer = CTCPrefixScorer(rows_TV, BLANK, END)
    state, total = scorer.initial_state(1), 0.0
    scores_BV, state = scorer.score(np.array([END]), state)
    for unit in prefix:
        total += scores_BV[0, unit]
        scores_BV, state = scorer.score(np.array([unit]), state)
    return scores_BV[0], total


@pytest.mark.parametrize("prefix", [(), (1,), (2, 1), (1, 1), (3, 3, 1)])
def test_prefix_scores_are_sums_over_all_alignments(prefix: tuple[int, ...]) -> None:
    rows_TV = random_rows(5)
    scores_V, total = prefix_scores(rows_TV, prefix)
    for unit in range(1, END):
        longer = (*prefix, unit)
        expected = probability(rows_TV, lambda text, longer=longer: text[: len(longer)] == longer)
        assert np.exp(total + scores_V[unit]) == pytest.approx(expected, rel=1e-6)
    assert np.exp(total + scores_V[END]) == pytest.approx(probability(rows_TV, lambda text: text == prefix), rel=1e-6)
    assert scores_V[BLANK] < LOGZERO / 2


def test_a_prefix_that_does_not_fit_is_impossible() -> None:
    """One frame holds one unit; two equal units need a blank between them."""
    scores_V, total = prefix_scores(random_rows(1), (2,))
    assert total == pytest.approx(float(random_rows(1)[0, 2]), rel=1e-6)
    assert scores_V[END] == pytest.approx(0.0, abs=1e-6)
    assert (scores_V[1:END] < LOGZERO / 2).all()
    scores_V, _ = prefix_scores(random_rows(2), (2,))
    assert scores_V[2] < LOGZERO / 2 < scores_V[1]
    assert np.isfinite(prefix_scores(random_rows(1), (1, 1, 1))[0]).all()


def test_prefix_scores_stay_exact_for_sure_rows() -> None:
    """In 400 frames of certain units, single alignments have a probability of e-20000."""
    rows_TV = np.full((400, END + 1), -100.0, np.float32)
    rows_TV[np.arange(400), np.repeat([BLANK, 1, BLANK, 2], 100)] = 0
    scores_V, total = prefix_scores(rows_TV, (1,))
    assert total == pytest.approx(0.0, abs=1e-4)
    assert scores_V[[2, END]] == pytest.approx([0.0, -100 * 100.0], abs=1e-2)
    # Unit 3 takes the place of one frame: of unit 1 after its first, of the blank, or of unit 2 at its first.
    assert scores_V[3] == pytest.approx(-100 + np.log(99 + 100 + 1), abs=1e-4)


def test_selected_rows_go_on_by_themselves() -> None:
    """Hypotheses in any order and number score as each one alone; a state that was used can be used again."""
    rows_TV = random_rows(6, seed=1)
    scorer = CTCPrefixScorer(rows_TV, BLANK, END)
    _, start = scorer.score(np.full(3, END), scorer.initial_state(3))
    _, state = scorer.score(np.array([1, 2, 3]), start)
    chosen = scorer.select(state, np.array([2, 0, 2, 2]))
    last_B = np.array([3, 2, 1, 2])
    together, _ = scorer.score(last_B, chosen)
    for row, prefix in enumerate([(3, 3), (1, 2), (3, 1), (3, 2)]):
        np.testing.assert_allclose(together[row], prefix_scores(rows_TV, prefix)[0], atol=1e-9)
    np.testing.assert_array_equal(scorer.score(last_B, chosen)[0], together)


def fixed_decoder(seed: int = 0, vocabulary: int = END + 1) -> WholePrefix:
    """Log-probabilities that depend on the last unit and the length only."""
    table = torch.from_numpy(np.random.default_rng(seed).normal(size=(20, vocabulary, vocabulary)))
    return WholePrefix(lambda units_BU: table[units_BU.shape[1] - 1, units_BU[:, -1]])


def by_hand(rows_TV: Any, model: WholePrefix, units: tuple[int, ...], ctc_weight: float) -> float:
    """The score of a text without its end."""
    state, total = model.initial_state(1), 0.0
    for last, unit in itertools.pairwise((END, *units, END)):
        scores_BV, state = model.score(np.array([last]), state)
        total += float(scores_BV[0, unit])
    return (1 - ctc_weight) * total + ctc_weight * float(np.log(probability(rows_TV, lambda text: text == units)))


def with_scored_end(found: Found) -> list[Hypothesis]:
    """Texts whose end was chosen: the last step gives an end without a score to the others."""
    return [
        hypothesis
        for hypothesis in found.hypotheses
        if len(hypothesis.units) < found.steps + 2 or hypothesis.units[-2] == END
    ]


@pytest.mark.parametrize("ctc_weight", [0.3, 0.7])
def test_a_wide_search_finds_the_best_of_all_texts(ctc_weight: float) -> None:
    rows_TV, model = random_rows(5, seed=3), fixed_decoder(seed=3)
    found = joint_search(model, rows_TV, JointSettings(beam=400, ctc_weight=ctc_weight))
    texts = [text for length in range(5) for text in itertools.product(range(1, END), repeat=length)]
    texts = [text for text in texts if probability(rows_TV, lambda other, text=text: other == text) > 0]
    expected = sorted(((by_hand(rows_TV, model, text, ctc_weight), text) for text in texts), reverse=True)[:5]
    ended = with_scored_end(found)
    assert [hypothesis.text_units for hypothesis in ended[:5]] == [text for _, text in expected]
    assert [hypothesis.score for hypothesis in ended[:5]] == pytest.approx([score for score, _ in expected], abs=1e-4)


def test_the_last_step_ends_every_hypothesis() -> None:
    """One frame: one step. The end stands twice where it was chosen, and it has no score of its own in the others."""
    rows_TV, model = random_rows(1), fixed_decoder()
    found = joint_search(model, rows_TV, JointSettings(beam=3, ctc_weight=0.5))
    assert (found.steps, len(found.hypotheses)) == (1, 3)
    assert {hypothesis.units for hypothesis in found.hypotheses} <= {
        (END, END, END),
        *((END, n, END) for n in (1, 2, 3)),
    }
    for hypothesis in found.hypotheses:
        assert hypothesis.score == pytest.approx(sum(0.5 * score for score in hypothesis.scores.values()))
    assert joint_search(model, rows_TV[:0], JointSettings()) == Found([], 0)


def test_parts_without_weight_are_left_out() -> None:
    rows_TV = random_rows(4)

    class Untouchable:
        """A scorer that may not be used."""

        def initial_state(self, batch: int) -> None:
            raise AssertionError("a part of weight 0 was used")

        score = select = initial_state

    only_ctc = joint_search(Untouchable(), rows_TV, JointSettings(beam=3, ctc_weight=1.0), lm=Untouchable())
    assert set(only_ctc.hypotheses[0].scores) == {"ctc"}
    # Without a decoder the best text is the most likely one of CTC alone.
    texts = {text for path in itertools.product(range(END), repeat=4) if len(text := text_of(path)) < 4}
    best = max(texts, key=lambda text: probability(rows_TV, lambda other: other == text))
    wide = joint_search(Untouchable(), rows_TV, JointSettings(beam=300, ctc_weight=1.0))
    assert with_scored_end(wide)[0].text_units == best
    only_decoder = joint_search(fixed_decoder(), rows_TV, JointSettings(beam=3, ctc_weight=0.0))
    assert set(only_decoder.hypotheses[0].scores) == {"decoder"}


def test_the_bonus_counts_every_unit_and_the_end() -> None:
    rows_TV, model = random_rows(5), fixed_decoder()
    for hypothesis in joint_search(model, rows_TV, JointSettings(beam=3, bonus=0.5)).hypotheses:
        ended_in_last_step = len(hypothesis.units) == 5 + 2
        assert hypothesis.scores["length_bonus"] == len(hypothesis.units) - 1 - ended_in_last_step


def test_an_early_stop_waits_for_what_a_bonus_can_still_add() -> None:
    """With a high bonus long texts overtake short ones that ended."""
    for seed in range(5):
        rows_TV, model = random_rows(9, seed=seed), fixed_decoder(seed)
        whole, early = (joint_search(model, rows_TV, JointSettings(5, bonus=1.5, best=best)) for best in (None, 1))
        assert early.hypotheses[0] == whole.hypotheses[0]


@pytest.mark.parametrize(
    "settings",
    [
        JointSettings(beam=0),
        JointSettings(ctc_weight=1.5),
        JointSettings(ctc_weight=float("nan")),
        JointSettings(lm_weight=-1.0),
        JointSettings(lm_weight=0.3),
        JointSettings(bonus=float("inf")),
        JointSettings(best=0),
    ],
)
def test_impossible_settings_are_refused(settings: JointSettings) -> None:
    with pytest.raises(ConfigError) as fault:
        joint_search(fixed_decoder(), random_rows(3), settings)
    assert isinstance(fault.value, AvsrError) and "\n" not in str(fault.value)


def test_scores_that_are_no_numbers_are_refused() -> None:
    broken = WholePrefix(lambda units_BU: torch.full((len(units_BU), END + 1), torch.nan))
    with pytest.raises(ModelError, match="no finite score"):
        joint_search(broken, random_rows(3), JointSettings())


def test_a_frame_without_any_probability_raises_no_warning() -> None:
    rows_TV = random_rows(4)
    rows_TV[1, :3] = -np.inf
    found = joint_search(fixed_decoder(), rows_TV, JointSettings(beam=4))
    assert all(np.isfinite(hypothesis.score) for hypothesis in found.hypotheses)
