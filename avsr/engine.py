"""The contracts between a recogniser and everything that uses one. Nothing here computes.

A family (`avsr.families`) opens a file as a `Model`. Files, streams, evaluation and the page see the model through
these contracts only: they read the values of its `Card` and never ask for its type. Arrays at these seams are numpy
arrays; what an encoder returns is opaque, so that an engine may keep tensors on a GPU.

Letters: S samples, T slots or frames, V units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from avsr.arrays import Crops, LogProbs, Present, Rows, Samples
from avsr.decoding.domain import Sentences
from avsr.decoding.joint import JointSettings
from avsr.decoding.plain import Plain
from avsr.decoding.scorers import Scorer
from avsr.decoding.search import FrameSearch, Search, Spoken, check_search
from avsr.errors import ConfigError, ModelError, nearest
from avsr.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, SLOT_MS, Modality

__all__ = [
    "Card",
    "Chunk",
    "Engine",
    "FrameEngine",
    "FrameSearch",
    "Model",
    "Search",
    "Spoken",
    "StreamEngine",
    "StreamPlan",
]


USUAL_CHUNK_MS = 320
"""The time between two updates of live words, if the model has such chunks."""


class Card(NamedTuple):
    """What a model is and can do. Callers branch on these values, never on a type."""

    name: str
    family: str
    modalities: tuple[Modality, ...]
    languages: tuple[str, ...] = ()
    """Codes such as "en"; empty: the model does not say."""
    domain: str = "open"
    """"open" for ordinary speech, else what the model knows, such as "the 51 words of GRID"."""
    sentences: Sentences | None = None
    """The only sentences that the model knows, by which other speech is told. None: all words are shown."""
    licence: str = ""
    """SPDX identifier of the licence of the weights; empty: not said."""
    window_s: float = 16.0
    """Length of the stretches in which a file is recognised; infinity: the whole file at once."""
    margin_s: float = 2.0
    """How much of the file the model sees on either side of such a stretch."""
    chunks_ms: tuple[int, ...] = ()
    """The chunks in which the model streams; empty: it cannot."""
    searches: tuple[str, ...] = ("greedy",)
    """The kinds of search that it has, the usual one first."""
    beam: int = 1
    """How many hypotheses its beam search usually keeps."""
    tasks: tuple[str, ...] = ("transcribe",)
    """"transcribe", and "translate" if it can write English for speech of other languages."""
    cut_at_pauses: bool = False
    """True: a file is cut into stretches of speech of at most `window_s`, which begin and end in pauses."""
    batch: int = 1
    """How many windows of a file are recognised in one call."""
    has_times: bool = True
    """False: the model gives text alone; word times are estimates and confidences are unknown."""

    def chunk_for(self, look_ahead_ms: int = 0) -> int:
        """The usual chunk with this look-ahead: the shortest of at least 320 ms, else the longest."""
        chunks = sorted(chunk - look_ahead_ms for chunk in self.chunks_ms if chunk > look_ahead_ms)
        return next((chunk for chunk in chunks if chunk >= USUAL_CHUNK_MS), chunks[-1] if chunks else USUAL_CHUNK_MS)

    def require(self, modality: Modality) -> None:
        """Raises ModelError unless the model can recognise from this."""
        if modality in self.modalities:
            return
        if self.modalities == ("a",):
            raise ModelError(
                f"model {self.name} only hears", remedy="use modality a or auto, or a model that reads lips"
            )
        raise ModelError(
            f"model {self.name} was not trained for modality {modality}",
            expected=" or ".join(self.modalities),
            remedy="use modality auto, or another model",
        )

    def require_search(self, search: Search) -> None:
        """Raises ConfigError unless the model can search so, in this language and for this task."""
        check_search(search)
        if search.kind is not None and search.kind not in self.searches:
            raise ConfigError(
                f"model {self.name} has no such search", got=search.kind, expected=" or ".join(self.searches)
            )
        if search.task not in self.tasks:
            raise ConfigError(
                f"model {self.name} cannot {search.task}",
                expected=" or ".join(self.tasks),
                remedy="use a model for many languages",
            )
        if search.language is not None and search.language not in self.languages:
            close = nearest(search.language, self.languages)
            raise ConfigError(
                f"model {self.name} does not know the language",
                got=search.language,
                expected=self._languages_in_words(),
                remedy=f"did you mean {close}?" if close else None,
            )

    def settled(self, search: Search) -> Search:
        """The search with the model's own kind and beam where it states none, for records."""
        return search._replace(kind=search.kind or self.searches[0], beam=search.beam or self.beam)

    def _languages_in_words(self) -> str:
        if len(self.languages) > 12:  # nobody reads a line of 99 codes
            few = ", ".join(self.languages[:3])
            return f"one of its {len(self.languages)} codes, such as {few}: avsr models show NAME lists them"
        return ", ".join(self.languages) or "no choice of a language: the model states none"

    def without_effect(self, search: Search) -> list[str]:
        """A line for each setting of a search that differs from the default and that the model does not use."""
        if "beam" in self.searches:
            return []
        usual = Search()
        given = {"beam": (search.beam, usual.beam), "temperature": (search.temperature, usual.temperature)}
        return [
            f"model {self.name} does not search with a beam: {name} {value} has no effect"
            for name, (value, default) in given.items()
            if value != default
        ]

    @property
    def is_closed(self) -> bool:
        """Whether the model knows a limited set of words only, whatever is said."""
        return self.domain != "open"

    @property
    def notice(self) -> str | None:
        """What a reader of the model's words must know about its domain, in one line; None for an open domain."""
        if not self.is_closed:
            return None
        fate = "comes out as these" if self.sentences is None else "gives no words, or wrong ones"
        return f"model {self.name} knows only {self.domain}: other speech {fate}"


AudioT = TypeVar("AudioT")
LipsT = TypeVar("LipsT")
StateT = TypeVar("StateT")


class Engine(Protocol[AudioT, LipsT]):
    """Recognises whole windows: arrays in, words out. The sequences of one call are one batch, in the same order."""

    def encode_audio(self, samples: Sequence[Samples]) -> AudioT:
        """What `decode` needs of these sounds. Raises ValueError for other arrays."""

    def encode_lips(self, crops: Sequence[Crops], present: Sequence[Present], audio: AudioT | None) -> LipsT:
        """What `decode` needs of these lips.

        audio: the encoded sound they will be decoded with; None to decode the lips alone. Lips that end before the
        sound are absent for the rest of it. The result may also be decoded with other sounds of the same lengths, and
        alone.
        """

    def decode(self, audio: AudioT | None, lips: LipsT | None, search: Search) -> list[list[Spoken]]:
        """The words of each item, with times from the beginning of the item."""


class FrameEngine(Engine[AudioT, LipsT], Protocol[AudioT, LipsT]):
    """An engine that gives a row of log-probabilities for each frame.

    Its windows are joined frame by frame before the search, so that no word is lost or doubled where two windows meet.
    """

    @property
    def frame_ms(self) -> int:
        """From one row to the next."""

    def log_probs(self, audio: AudioT | None, lips: LipsT | None) -> list[LogProbs]:
        """Log-probabilities [T, V + 1] of each item, without padding."""

    def frame_search(self, search: Search) -> FrameSearch[Any]:
        """The search through such rows, of a kind that the card lists."""


class StreamPlan(NamedTuple):
    """How a stream is cut, in samples and slots; the session knows nothing else of the model's time."""

    frame_ms: int
    chunk_frames: int
    """Frames after which the engine's state moves on."""
    step_frames: int
    """Frames after which words are shown. Fewer than chunk_frames: the beginning of a chunk is shown first, and may
    still change until the chunk is whole."""
    edge_samples: int
    """Frame n ends at n * frame_samples + edge_samples, for n > 0."""
    look_ahead_samples: int
    """How far past the end of a frame its features read."""
    look_ahead_slots: int
    """How many slots the lips run ahead of the sound."""
    joins_chunks: bool = False
    """Whether several chunks can be one step. The session then leaves out steps while the work is behind the sound."""

    @property
    def frame_s(self) -> float:
        return self.frame_ms / 1000

    @property
    def frame_samples(self) -> int:
        return self.frame_ms * SAMPLE_RATE_HZ // 1000

    def edge(self, frames: int) -> int:
        """The sample at which the first `frames` frames end."""
        # The edge of causal subsampling is negative, and no frame ends before the stream begins.
        return frames * self.frame_samples + self.edge_samples if frames else 0

    def samples_needed(self, frames: int) -> int:
        """The number of samples needed to compute the first `frames` frames."""
        return self.edge(frames) + self.look_ahead_samples

    def slots_needed(self, frames: int) -> int:
        """The number of slots needed to compute the first `frames` frames."""
        return frames * self.frame_ms // SLOT_MS + self.look_ahead_slots

    def slots_of(self, frame: int) -> range:
        """The slots of a frame."""
        return range(frame * self.frame_ms // SLOT_MS, -(-(frame + 1) * self.frame_ms // SLOT_MS))

    def whole_frames(self, samples: int) -> int:
        """How many frames these samples are when nothing follows: the last one may be begun only."""
        return -(-(samples // HOP_SAMPLES) * HOP_SAMPLES // self.frame_samples)


class Chunk(NamedTuple):
    """One chunk of a stream: the samples and slots that follow the previous chunk."""

    frames: int
    samples: Samples
    """The samples since the last chunk, up to `StreamPlan.samples_needed` of this chunk's end."""
    crops: Crops
    present: Present
    """The slots since the last chunk, up to `StreamPlan.slots_needed`; empty in a session without lips."""
    heard: bool = True
    """False: the sound is lost or silent and must be ignored."""
    is_last: bool = False
    """Whether the sound ends here; the last frame may then be shorter than others."""


class StreamEngine(Protocol[StateT]):
    """Turns one stream into rows, chunk by chunk. The engine keeps nothing; the memory of a stream is its state.

    The rows go to the `FrameSearch` that was opened with the engine: log-probabilities from a network that works in
    chunks. An engine without such a network passes the samples on, and its search recognises them.

    A step does not change the given state. So the beginning of a chunk can be shown, and the whole chunk be computed
    later from the same state.
    """

    plan: StreamPlan

    def initial_state(self) -> StateT:
        """The state before the first chunk."""

    def step(self, chunk: Chunk, state: StateT) -> tuple[Rows, StateT]:
        """Rows [frames, ...] of the chunk, such as log-probabilities [frames, V + 1], and the state after it."""


class Streams(Protocol):
    """Opens a model's streams."""

    def __call__(
        self, chunk_ms: int, look_ahead_ms: int, *, lips: bool, search: Search
    ) -> tuple[StreamEngine[Any], FrameSearch[Any]]:
        """An engine and a search for one stream or many. Raises ConfigError for what the model cannot do."""


class Texts(Protocol):
    """Lists and judges whole texts, so that two models can choose a text together. Encoded arguments: as `decode`."""

    def candidates(self, audio: Any | None, lips: Any | None, search: Search, count: int) -> list[list[list[Spoken]]]:
        """Of each item: first the words that `decode` gives, then other likely texts, `count` in all at most."""

    def log_probs_of(
        self, audio: Any | None, lips: Any | None, search: Search, texts: Sequence[Sequence[Plain]]
    ) -> list[list[float]]:
        """Of each item: natural logarithms of the probability of its texts.

        Minus infinity for a text that the model cannot write.
        """


class Steps(Protocol):
    """Scores texts unit by unit, so that two models with the same units can search together."""

    units: tuple[str, ...]
    """All units by number. Models with equal units search together."""

    def scored(self, audio: Any | None, lips: Any | None, search: Search) -> list[StepScores | None]:
        """The scorers of each item; None if nothing of it can be seen or heard."""


class StepScores(NamedTuple):
    """One item as a joint search scores it."""

    decoder: Scorer[Any]
    ctc: Scorer[Any]
    vocabulary: int
    frames: int
    """The most units of a text."""
    language_model: Scorer[Any] | None
    settings: JointSettings
    spoken: Callable[[Sequence[int]], list[Spoken]]
    """The words of units with times and confidences."""


class Told(NamedTuple):
    """An engine for one recording, and its lines about the work there."""

    engine: Engine[Any, Any]
    lines: Callable[[], list[str]]
    """One line each, when the whole recording is recognised."""


class Model(NamedTuple):
    """What a family opens. A capability that the model lacks is None."""

    card: Card
    engine: Engine[Any, Any]
    frames: FrameEngine[Any, Any] | None = None
    """The same engine, if its results are frames of log-probabilities."""
    stream: Streams | None = None
    in_chunks: Callable[[int], FrameEngine[Any, Any]] | None = None
    """Makes an engine that gives the results of a stream in chunks of this many ms, at the cost of one pass."""
    texts: Texts | None = None
    """Lists and judges whole texts."""
    steps: Steps | None = None
    """Scores texts unit by unit."""
    for_recording: Callable[[], Told] | None = None
    """Makes an engine that tells how it recognised one recording, if that differs between recordings."""
    identity: Callable[[], Mapping[str, str]] = dict
    """SHA-256 of the loaded files, by name, for records of results. Computed when asked for: gigabytes take seconds."""
    device: str = "cpu"
    """Where it computes, such as "cuda:0"."""
    network: Any = None
    """The torch module, for training and export."""
