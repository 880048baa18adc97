"""The tables of a report about people, and about how often lips help, change nothing or hurt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from avsr.evaluation.compare import FEW
from avsr.evaluation.conditions import CLEAN, INTACT, MODALITY_NAMES
from avsr.evaluation.lips_effect import LipsEffect, LipsEffects
from avsr.evaluation.noise_mean import SoundGroup, describe_mean, group_conditions, sound_groups
from avsr.evaluation.people import Person, PersonKey, leading_key, people_of
from avsr.evaluation.results import Results
from avsr.evaluation.tables import Table
from avsr.text import one_line

SHOWN_PEOPLE = 10  # of the worst, and of the best
SHOWN_LEVEL_DB = 0.0
NAME_CHARACTERS = 32
OUTCOMES = "helped / unchanged / hurt, %"


class Measures(NamedTuple):
    """What a report shows of lips and people; each is None if there is nothing to compare."""

    by_level: Mapping[str, LipsEffect]
    """The effect of intact lips in clean sound, at each level and at all. Empty if there is nothing to compare."""
    lips: Table | None
    lips_by_noise: Table | None
    lips_by_picture: Table | None
    people: Table | None


def measure(results: Results) -> Measures:
    """The measures of an evaluation."""
    effects = LipsEffects(results)
    by_level = _effects_by_level(results, effects)
    return Measures(
        by_level,
        lips_table(results, by_level) if by_level else None,
        lips_noise_table(results, effects) if by_level and results.noises else None,
        lips_picture_table(results, effects),
        people_table(results, people_of(results, effects)),
    )


def _effects_by_level(results: Results, effects: LipsEffects) -> dict[str, LipsEffect]:
    found = {
        str(group): effects.over(group_conditions(results, "av", group, INTACT)) for group in sound_groups(results)
    }
    return {name: effect for name, effect in found.items() if effect is not None}


def lips_table(results: Results, by_level: Mapping[str, LipsEffect]) -> Table:
    """How often lips helped, changed nothing and hurt, by level of the noise, with intact lips."""
    unit = results.score.unit
    first = next(iter(by_level.values()))
    notes = [
        "Audio-visual against audio only, the same utterance in the same sound. Helped utterances have fewer errors"
        f" with lips; helped {unit} of the reference are right only with lips.",
        f"Errors among {first.words} {unit}: mean over seeds and kinds of noise. Net: audio-visual minus audio only.",
    ]
    if results.noises:
        notes.append(f"In noise: {describe_mean(results)}; intact lips.")
    notes.append(_where_lips_hurt(by_level))
    return Table(_effect_titles(unit), [[name, *_effect_cells(effect)] for name, effect in by_level.items()], notes)


def lips_noise_table(results: Results, effects: LipsEffects) -> Table:
    """The same by kind and level of the noise."""
    rows = []
    for condition, group in effects.conditions().items():
        effect = effects.over(group) if condition.video == INTACT else None
        if effect is not None:
            level = "" if condition.snr_db is None else f" {condition.snr_db:g} dB"
            rows.append([condition.noise + level, *_effect_cells(effect)])
    return Table(_effect_titles(results.score.unit), rows, [])


def lips_picture_table(results: Results, effects: LipsEffects) -> Table | None:
    """The same by condition of the lips, clean and in all noise; None if there is only one, or no comparison."""
    groups = sound_groups(results)
    groups = [group for group in groups if group.noise == CLEAN] + [g for g in groups[-1:] if g.noise != CLEAN]
    found = {
        (picture, group): effect
        for picture in results.pictures
        for group in groups
        if (effect := effects.over(group_conditions(results, "av", group, picture))) is not None
    }
    if len(results.pictures) < 2 or not found:
        return None
    rows = [
        [picture, *(cell for group in groups for cell in _short_cells(found.get((picture, group))))]
        for picture in results.pictures
    ]
    titles = [f"{group}{what}" for group in groups for what in ("", ": net, points")]
    notes = [f"Utterances {OUTCOMES}. Net: audio-visual minus audio only."]
    notes += [f"In noise: {describe_mean(results)}; all seeds."] if results.noises else []
    notes.append(_where_lips_hurt({f"{picture} ({group})": effect for (picture, group), effect in found.items()}))
    return Table(["", *titles], rows, notes)


def _where_lips_hurt(effects: Mapping[str, LipsEffect]) -> str:
    worse = [name for name, effect in effects.items() if effect.errors_added > effect.errors_removed]
    return f"Lips add more errors than they remove: {', '.join(worse) or 'nowhere in this table'}."


def people_table(results: Results, people: Sequence[Person]) -> Table | None:
    """Error rates and the effect of lips for each person, the worst first; None if there are fewer than two.

    Of many people only the worst and the best are shown, and a note says how many there are.
    """
    if len(people) < 2:
        return None
    leading = leading_key(people)
    ranked = sorted(people, key=lambda person: (-person.rates[leading].percent, person.name))
    keys = [key for key in people[0].rates if _is_shown(key, people)]
    groups = [group for group in people[0].lips if _is_shown(("av", group), people)]
    rows = [_person_cells(person, keys, groups) for person in ranked]
    unit = results.score.unit
    notes = [f"By {results.score.title}, {_key_name(leading)}, the worst first; intact lips."]
    if len(people) > 2 * SHOWN_PEOPLE:
        gap = ["...", *[""] * (len(rows[0]) - 1)]
        rows = [*rows[:SHOWN_PEOPLE], gap, *rows[-SHOWN_PEOPLE:]]
        notes.append(f"{SHOWN_PEOPLE} worst and {SHOWN_PEOPLE} best of {len(people)} people; results.json has all.")
    if groups:
        notes.append(f"Lips: utterances {OUTCOMES}.")
    if not all(person.has_intervals for person in people):
        notes.append(f"Intervals are left out for people with fewer than {FEW} utterances.")
    titles = ["", "utterances", unit, *map(_key_name, keys), *(f"lips, {group}" for group in groups)]
    return Table(titles, rows, notes)


def _is_shown(key: PersonKey, people: Sequence[Person]) -> bool:
    """Clean sound, one level, and all levels: more would make the table too wide."""
    group = key[1]
    last = leading_key(people)[1]
    return group is None or group == last or group.levels_db in ((None,), (SHOWN_LEVEL_DB,))


def _key_name(key: PersonKey) -> str:
    return MODALITY_NAMES[key[0]] + ("" if key[1] is None else f", {key[1]}")


def _person_cells(person: Person, keys: Sequence[PersonKey], groups: Sequence[SoundGroup]) -> list[str]:
    rates = [person.rates[key] for key in keys]
    shown = [str(rate) if person.has_intervals else f"{rate.percent:.1f}" for rate in rates]
    lips = [_shares(person.lips[group].utterance_counts) for group in groups]
    return [_shown_name(person.name), str(person.utterances), str(person.words), *shown, *lips]


def _shown_name(name: str) -> str:
    name = one_line(name) or "(no name)"
    return name if len(name) <= NAME_CHARACTERS else name[: NAME_CHARACTERS - 3] + "..."


def _effect_titles(unit: str) -> list[str]:
    return ["", f"utterances {OUTCOMES}", f"{unit} {OUTCOMES}", "errors removed", "errors added", "net, points"]


def _effect_cells(effect: LipsEffect) -> list[str]:
    shares = [_shares(effect.utterance_counts), _shares(effect.word_counts)]
    return [*shares, f"{effect.errors_removed:.1f}", f"{effect.errors_added:.1f}", f"{effect.net_points:+.1f}"]


def _short_cells(effect: LipsEffect | None) -> list[str]:
    return ["", ""] if effect is None else [_shares(effect.utterance_counts), f"{effect.net_points:+.1f}"]


def _shares(counts: Sequence[float]) -> str:
    whole = max(1.0, sum(counts))
    return " / ".join(f"{100 * count / whole:.1f}" for count in counts)
