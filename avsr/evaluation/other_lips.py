"""Lips that do not belong to the sound: of another sentence, or of another speaker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avsr.arrays import Crops, Present
from avsr.datasets.manifest import Utterance, load_lips, read_manifest
from avsr.errors import DataError
from avsr.evaluation.conditions import OTHER_SENTENCE, OTHER_SPEAKER, Grid, LipCondition, change_picture
from avsr.randomness import generator


class LipSource:
    """The lips of utterances under a condition, from the files of a prepared data set.

    Wrong lips come from any split of the manifest, so that a split of one speaker can be shown another one's. They
    follow from the ids alone. They begin with the utterance, and end with the shorter of the two.
    """

    def __init__(self, manifest: Path) -> None:
        self._root = manifest.parent
        self._with_lips = sorted((u for u in read_manifest(manifest) if u.video is not None), key=lambda u: u.id)

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
        """The lips of an utterance under a condition; `own` are those of `own(utterance)`."""
        if picture.name in (OTHER_SENTENCE, OTHER_SPEAKER):
            return self.own(self.other(picture, utterance))
        return change_picture(picture, *own, utterance.id)

    def other(self, picture: LipCondition, utterance: Utterance) -> Utterance:
        """The utterance whose lips are shown in the place of an utterance's own."""
        same_speaker = picture.name == OTHER_SENTENCE
        others = [
            u
            for u in self._with_lips
            if (u.speaker == utterance.speaker) == same_speaker and u.text != utterance.text and u.id != utterance.id
        ]
        if not others:
            wanted = "another sentence of the same speaker" if same_speaker else "another speaker"
            raise DataError(
                f"lips {picture.name}: {utterance.id} has no such utterance beside it in the manifest",
                expected=f"lips of {wanted}",
                remedy=f"leave {picture.name} out of --video",
            )
        random = generator("evaluation other lips", picture.seed, picture.name, utterance.id)
        return others[int(random.integers(len(others)))]
