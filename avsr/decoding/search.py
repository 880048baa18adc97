"""What a search through frames is: the settings, the words it gives, and the contract of every search."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar

from avsr.arrays import LogProbs, Present

BeamT = TypeVar("BeamT")


class Search(NamedTuple):
    """How words are looked for. A model's card says which kinds it has."""

    kind: str = "greedy"
    language: str | None = None
    """Code such as "en"; None: the model's own, or whatever it finds."""


class Spoken(NamedTuple):
    """One recognised word. Times are seconds from the beginning of what was decoded."""

    word: str
    start_s: float
    end_s: float
    confidence: float | None
    """In [0, 1]; None if the recogniser gives none."""


class FrameSearch(Protocol[BeamT]):
    """A search that goes through frames once, in order. What it knows so far is its beam; the search keeps nothing."""

    def initial_state(self, first_frame: int = 0) -> BeamT:
        """A beam of which no frame has come. first_frame: the number of the first one, from which times are counted."""

    def step(self, log_probs_TV: LogProbs, beam: BeamT) -> BeamT:
        """The beam after these frames. The one that is given stays as it was."""

    def words(self, beam: BeamT) -> list[Spoken]:
        """The best words so far."""

    def pause(self, beam: BeamT) -> int:
        """How many frames have passed since the last unit that was recognised; all of them if there was none."""

    def silence(self, log_probs_TV: LogProbs, where_T: Present) -> LogProbs:
        """The same rows, made certain of holding nothing `where_T`."""


AnySearch = FrameSearch[Any]
