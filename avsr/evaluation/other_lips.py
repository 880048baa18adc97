"""Lips that do not belong to the sound: of another sentence, or of another speaker."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from avsr.arrays import Crops, Present
from avsr.datasets.manifest import Utterance, load_lips, read_manifest
from avsr.errors import DataError
from avsr.evaluation.conditions import OTHER_SENTENCE, OTHER_SPEAKER, Grid, LipCondition, change_picture
from avsr.randomness import generator

DRAWS = 20


class LipSource:
    """Gives the lips of utterances under a condition, from the files of a prepared data set.

    Wrong lips come from any split of the manifest, so that a split of one speaker can be shown another one's. They
    follow from the ids alone. They begin with the utterance, and end with the shorter of the two.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest, self._root = manifest, manifest.parent

    # Read on first use: most evaluations show no wrong lips.
    @functools.cached_property
    def _with_lips(self) -> list[Utterance]:
        return sorted((u for u in read_manifest(self._manifest) if u.video is not None), key=lambda u: u.id)

    @functools.cached_property
    def _of_speaker(self) -> dict[str, list[Utterance]]:
        found: dict[str, list[Utterance]] = {}
        for utterance in self._with_lips:
            found.setdefault(utterance.speaker, []).append(utterance)
        return found

    def require(self, grid: Grid, utterances: Sequence[Utterance]) -> None:
        """Raise DataError if the grid asks for wrong lips that the manifest does not have."""
        for picture in grid.pictures:
            if picture.name in (OTHER_SENTENCE, OTHER_SPEAKER):
                for utterance in utterances:
                    self.other(picture, utterance)

    def own(self, utterance: Utterance) -> tuple[Crops, Present]:
        """The utterance's own lips: crops uint8 [T, 96, 96] and presence bool [T]."""
        return load_lips(utterance, self._root)

    def under(self, picture: LipCondition, utterance: Utterance, own: tuple[Crops, Present]) -> tuple[Crops, Present]:
        """The lips of an utterance under a condition. own: what `own` gives for the utterance."""
        if picture.name in (OTHER_SENTENCE, OTHER_SPEAKER):
            return self.own(self.other(picture, utterance))
        return change_picture(picture, *own, utterance.id)

    def other(self, picture: LipCondition, utterance: Utterance) -> Utterance:
        """The utterance whose lips are shown in the place of an utterance's own."""
        same_speaker = picture.name == OTHER_SENTENCE
        random = generator("evaluation other lips", picture.seed, picture.name, utterance.id)

        def fits(u: Utterance) -> bool:
            return (
                (u.speaker == utterance.speaker) == same_speaker and u.text != utterance.text and u.id != utterance.id
            )

        drawn_from = self._of_speaker.get(utterance.speaker, []) if same_speaker else self._with_lips
        # In a large corpus nearly every draw fits, and a list of all others for each utterance would take long.
        for _ in range(DRAWS if drawn_from else 0):
            drawn = drawn_from[int(random.integers(len(drawn_from)))]
            if fits(drawn):
                return drawn
        others = [u for u in drawn_from if fits(u)]
        if not others:
            wanted = "another sentence of the same speaker" if same_speaker else "another speaker"
            raise DataError(
                f"lips {picture.name}: {utterance.id} has no such utterance beside it in the manifest",
                expected=f"lips of {wanted}",
                remedy=f"leave {picture.name} out of --video",
            )
        return others[int(random.integers(len(others)))]
