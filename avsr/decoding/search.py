"""What a search through frames is: the settings, the words it gives, and the contract of every search."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

from avsr.arrays import Present, Rows
from avsr.errors import ConfigError

BeamT = TypeVar("BeamT")


Task = Literal["transcribe", "translate"]


class Search(NamedTuple):
    """The settings of the search for words."""

    kind: str | None = None
    """One of `Card.searches`; None for the first of them."""
    beam: int | None = None
    """How many hypotheses a beam search keeps; None: as many as are usual for the model, `Card.beam`."""
    language: str | None = None
    """Code of the spoken language, such as "ko"; None: the model knows one language only, or finds out."""
    task: Task = "transcribe"
    """"translate": the words in English, for models that can."""
    temperature: float = 0.0
    """0 for the most likely words. Higher values draw words at random, for models that can."""


def check_search(search: object) -> None:
    """Raises ConfigError for settings that no model can have, and for anything but a `Search`."""
    if not isinstance(search, Search):
        remedy = 'write avsr.Search(language="ko")'
        raise ConfigError("search is no avsr.Search", got=f"{search!r:.80}", remedy=remedy)
    if search.beam is not None and (not isinstance(search.beam, int) or search.beam < 1):
        raise ConfigError("wrong beam of the search", got=repr(search.beam), expected="a whole number from 1 on")
    if not isinstance(search.temperature, int | float) or not 0 <= search.temperature <= 1:
        raise ConfigError("wrong temperature of the search", got=repr(search.temperature), expected="0 to 1")
    if search.task not in get_args(Task):
        raise ConfigError("unknown task of the search", got=repr(search.task), expected=" or ".join(get_args(Task)))
    if not isinstance(search.language, str | None):
        raise ConfigError("wrong language of the search", got=repr(search.language), expected='a code such as "ko"')


class Spoken(NamedTuple):
    """One recognised word. Times are seconds from the first decoded frame."""

    word: str
    start_s: float
    end_s: float
    confidence: float | None
    """In [0, 1]; None if the recogniser gives none."""
    language: str | None = None
    """Code of its language; None if the recogniser does not say."""


class Cut(NamedTuple):
    """The frames of a beam in two parts, with no word in both."""

    words: list[Spoken]
    """The words of the first part."""
    frame: int
    """The first frame of the second part."""
    rest: Any
    """The beam of the second part."""


class FrameSearch(Protocol[BeamT]):
    """A search that gets frames once, in order. Its knowledge is the beam; the search itself keeps no state.

    Rows are what the engine gives for each frame. Most searches go through log-probabilities. A search that recognises
    sound by itself gets the samples of each frame.
    """

    def initial_state(self, first_frame: int = 0, after: BeamT | None = None) -> BeamT:
        """The beam before the first frame of an utterance.

        first_frame: the number of that frame; times are counted from frame 0.
        after: the beam of the utterance before, which ends there. None of its words comes again, but a search may use
            them as context.
        """

    def step(self, rows: Rows, beam: BeamT) -> BeamT:
        """The beam after these frames. The given beam does not change."""

    def words(self, beam: BeamT) -> list[Spoken]:
        """The best words so far."""

    def committed(self, beam: BeamT) -> int:
        """How many of the first words later frames can never change: neither text nor times nor confidence."""

    def pause(self, beam: BeamT) -> int:
        """The number of frames since the last recognised unit, or since the first frame without any unit."""

    def cut(self, beam: BeamT) -> Cut:
        """The words before the last pause, and the beam as if the search had begun there; without a pause, all words.

        No committed word is cut in two.
        """

    def silence(self, rows: Rows, where_T: Present) -> Rows:
        """The same rows, made certain of holding nothing `where_T`."""
