"""What a search through frames is: the settings, the words it gives, and the contract of every search."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol, TypeVar

from avsr.arrays import LogProbs, Present

BeamT = TypeVar("BeamT")


class Search(NamedTuple):
    """The settings of the search for words."""

    kind: str | None = None
    """One of `Card.searches`; None for the first of them."""
    beam: int = 5
    """How many hypotheses a beam search keeps."""
    language: str | None = None
    """Code of the spoken language, such as "ko"; None: the model knows one language only, or finds out."""
    task: Literal["transcribe", "translate"] = "transcribe"
    """"translate": the words in English, for models that can."""
    temperature: float = 0.0
    """0 for the most likely words. Higher values draw words at random, for models that can."""


class Spoken(NamedTuple):
    """One recognised word. Times are seconds from the first decoded frame."""

    word: str
    start_s: float
    end_s: float
    confidence: float | None
    """In [0, 1]; None if the recogniser gives none."""
    language: str | None = None
    """Code of its language; None if the recogniser does not say."""


class FrameSearch(Protocol[BeamT]):
    """A search that goes through frames once, in order. Its knowledge is the beam; the search itself keeps no state."""

    def initial_state(self, first_frame: int = 0) -> BeamT:
        """The beam before the first frame. first_frame: the number of that frame; times are counted from frame 0."""

    def step(self, log_probs_TV: LogProbs, beam: BeamT) -> BeamT:
        """The beam after these frames. The given beam does not change."""

    def words(self, beam: BeamT) -> list[Spoken]:
        """The best words so far."""

    def pause(self, beam: BeamT) -> int:
        """The number of frames since the last recognised unit, or since the first frame without any unit."""

    def silence(self, log_probs_TV: LogProbs, where_T: Present) -> LogProbs:
        """The same rows, made certain of holding nothing `where_T`."""
