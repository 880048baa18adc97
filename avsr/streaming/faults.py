"""Simulated faults of a live source: lost, late and repeated sound and pictures, the same in every run.

Each kind of fault has a random generator of its own, seeded by (seed, kind), so one kind does not change another. The
faults follow from the seed alone and do not depend on the speed of the run.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Iterable, Iterator

from avsr.errors import ConfigError
from avsr.randomness import generator
from avsr.streaming.source import LivePicture, LiveSound

MAX_DELAY_MS = 10_000.0
MAX_DRIFT_PPM = 10_000.0
MAX_FPS = 240.0
# Time stamps are floats: a picture that belongs to a tick may lie a rounding error beside it.
_ROUNDING_S = 1e-6

Span = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Faults:
    """The faults to simulate. Raises ConfigError for values out of range."""

    drop_video: tuple[Span, ...] = ()
    """Spans (start, end) in media seconds without pictures."""
    drop_audio: tuple[Span, ...] = ()
    """Spans (start, end) in media seconds without sound."""
    delay_video_ms: float = 0.0
    """Pictures arrive later by this; their time stamps stay."""
    delay_audio_ms: float = 0.0
    """Sound arrives later by this; its time stamps stay."""
    jitter_ms: float = 0.0
    """Each block and picture arrives later by a random time up to this. Pictures may overtake each other; sound stays
    in order."""
    drop_frames: float = 0.0
    """Share of the pictures that is lost, 0 to 1."""
    duplicate_frames: float = 0.0
    """Share of the pictures that comes twice, 0 to 1."""
    skew_ms: float = 0.0
    """Added to the time stamps of the pictures."""
    drift_ppm: float = 0.0
    """The clock of the pictures runs fast by this many parts in a million."""
    video_fps: float | None = None
    """Pictures a second, by leaving out or repeating pictures; None for the rate of the source."""
    seed: int = 1
    """Seed of all random choices."""

    def __post_init__(self) -> None:
        for name in ("drop_video", "drop_audio"):
            for start_s, end_s in getattr(self, name):
                if not 0 <= start_s < end_s:
                    raise ConfigError(f"wrong {name}", got=f"{start_s:g}:{end_s:g}", expected="START:END, START first")
        for name, low, high in (
            ("delay_video_ms", 0.0, MAX_DELAY_MS),
            ("delay_audio_ms", 0.0, MAX_DELAY_MS),
            ("jitter_ms", 0.0, MAX_DELAY_MS),
            ("drop_frames", 0.0, 1.0),
            ("duplicate_frames", 0.0, 1.0),
            ("skew_ms", -MAX_DELAY_MS, MAX_DELAY_MS),
            ("drift_ppm", -MAX_DRIFT_PPM, MAX_DRIFT_PPM),
        ):
            if not low <= getattr(self, name) <= high:  # not "value < low or value > high", which NaN would pass
                raise ConfigError(f"wrong {name}", got=f"{getattr(self, name):g}", expected=f"{low:g} to {high:g}")
        if self.video_fps is not None and not 0.1 <= self.video_fps <= MAX_FPS:
            raise ConfigError("wrong video_fps", got=f"{self.video_fps:g}", expected=f"0.1 to {MAX_FPS:g}")

    def of_sound(self, sound: Iterable[LiveSound]) -> Iterator[LiveSound]:
        """The blocks that arrive, in order of arrival, with their new arrival times."""
        jitter = generator("faults", self.seed, "sound jitter")
        last_s = -math.inf
        for block in sound:
            # Drawn for dropped blocks too, so that a span of lost sound leaves the jitter of later blocks unchanged.
            late_s = (self.delay_audio_ms + self.jitter_ms * jitter.random()) / 1000
            if not _is_in(block.time_s, self.drop_audio):
                # A block never overtakes the one before it, unlike a picture.
                last_s = max(last_s, block.arrival_s + late_s)
                yield block._replace(arrival_s=last_s)

    def of_pictures(self, pictures: Iterable[LivePicture]) -> Iterator[LivePicture]:
        """The pictures that arrive, in order of arrival, with their new times."""
        drop, twice, jitter = (generator("faults", self.seed, what) for what in ("drop", "twice", "jitter"))
        waiting: list[tuple[float, int, LivePicture]] = []  # pictures that a later one may still overtake
        count = 0
        for picture in self._at_rate(pictures):
            soonest_s = picture.arrival_s + self.delay_video_ms / 1000
            # No later picture arrives before `soonest_s`, so nothing can overtake these any more.
            while waiting and waiting[0][0] <= soonest_s:
                yield heapq.heappop(waiting)[2]
            # A draw for every picture, also inside a span and for lost ones: then one kind of fault does not change
            # another.
            is_lost = drop.random() < self.drop_frames or _is_in(picture.time_s, self.drop_video)
            copies = 2 if twice.random() < self.duplicate_frames else 1
            stamp_s = picture.time_s * (1 + self.drift_ppm * 1e-6) + self.skew_ms / 1000
            for _ in range(copies):
                # `count` decides between equal arrivals, because arrays of pixels have no order.
                arrival_s = soonest_s + self.jitter_ms / 1000 * jitter.random()
                if not is_lost:
                    heapq.heappush(waiting, (arrival_s, count, LivePicture(arrival_s, stamp_s, picture.rgb)))
                count += 1
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _at_rate(self, pictures: Iterable[LivePicture]) -> Iterator[LivePicture]:
        """The newest picture at each tick of `video_fps`. A repeated picture gets the time of the tick."""
        if self.video_fps is None:
            yield from pictures
            return
        tick = 0
        newest: LivePicture | None = None
        is_new = False
        for picture in pictures:
            if newest is None:
                tick = math.ceil(picture.time_s * self.video_fps - _ROUNDING_S)
            while newest is not None and (tick_s := tick / self.video_fps) < picture.time_s - _ROUNDING_S:
                yield newest if is_new else LivePicture(tick_s, tick_s, newest.rgb)
                tick, is_new = tick + 1, False
            newest, is_new = picture, True
        if newest is not None and is_new and tick / self.video_fps <= newest.time_s + 1 / self.video_fps:
            yield newest


def _is_in(time_s: float, spans: tuple[Span, ...]) -> bool:
    return any(start_s <= time_s < end_s for start_s, end_s in spans)
