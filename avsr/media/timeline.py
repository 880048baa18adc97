"""One clock for the packets of a file, which may be several recordings joined end to end.

Every recording has a clock of its own, so the clock of a joined file steps at each joint. All tracks of a recording get
one common offset, and sound and picture stay together. A recording begins where the longest track of the one before it
ended: players show it there, and nothing overlaps.

Packets come in the order of the file. All tracks are followed, whichever of them is read. So two readers of one file
find the same joints.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from av.packet import Packet

from avsr.account import Account
from avsr.media.budget import Budget

MAX_GAP_S = 600.0
"""A clock that goes further ahead is at a joint, not at a gap. Filled with silence, a few bytes of a broken or hostile
file would cost hours."""

MAX_BROADCAST_GAP_S = 10.0
"""The same for MPEG transport and programme streams and Ogg, which are made to be joined: players go on there without a
pause (FFmpeg, option `dts_delta_threshold`)."""

_BACK_S = 0.5  # a clock that steps back by more is at a joint; less is jitter, or an overlap
_BROADCAST_BACK_S = 0.1
_BROADCAST = {"mpegts", "mpeg", "ogg"}

# A track that goes on for longer than this while another one steps shows that only the other one's time stamps are
# wrong. Less may be the rest of the old recording.
_GOES_ON_S = 1.0

# The tracks cross a joint some packets apart: this many are looked at to find where each crosses.
_LOOK_AHEAD_PACKETS = 1024
_LOOK_AHEAD_BYTES = 256 << 20  # ten seconds of film of the cinema
_RECENT_PARTS = 8


class _Part(NamedTuple):
    """One recording of the file."""

    start_s: float
    """Its first time, on its own clock."""
    offset_s: float
    """What to add to its own clock."""


class _Joint(NamedTuple):
    """Where one recording ends and the next one begins."""

    crossings: dict[int, Packet]
    """By track: the first packet behind it."""
    ended_s: float
    """When the longest track ends before it, on the common clock."""


@dataclasses.dataclass(slots=True)
class _Clock:
    """Where a track is."""

    tick_s: float
    """Unit of its time stamps."""
    last_s: float
    """Decoding time of its last packet, on the clock of its part."""
    end_s: float
    """End of its last packet."""
    part: int = 0
    is_new: bool = True
    """Whether no packet has come yet."""

    def follow(self, packet: Packet) -> None:
        """Go on to the end of a packet."""
        time_s = self.time_s(packet)
        if time_s is None:
            return
        self.last_s, self.is_new = time_s, False
        duration_s = (packet.duration or 0) * self.tick_s
        # In MP4 the last packet before a gap lasts until its end.
        end_s = self.start_s(packet) + (duration_s if duration_s <= MAX_GAP_S else 0.0)
        if end_s > self.end_s:
            self.end_s = end_s

    def time_s(self, packet: Packet) -> float | None:
        """Decoding time, which rises even where pictures are stored out of order."""
        ticks = packet.dts
        if ticks is None:
            ticks = packet.pts
        return None if ticks is None else ticks * self.tick_s

    def start_s(self, packet: Packet) -> float:
        """When it is shown."""
        ticks = packet.pts
        if ticks is None:
            ticks = packet.dts
        return 0.0 if ticks is None else ticks * self.tick_s


class Timeline:
    """Places the packets of one file on one clock that goes on over joints.

    format_name: of the container, as FFmpeg calls it.
    origin_s: time of the container's clock at media time 0.
    ticks_s: unit of the time stamps of each followed track, by the index of its stream.
    budget: says how many steps of the clock are looked into.
    """

    def __init__(
        self, format_name: str, origin_s: float, ticks_s: Mapping[int, float], account: Account, budget: Budget
    ) -> None:
        is_broadcast = bool(_BROADCAST & set(format_name.split(",")))
        self._max_gap_s = MAX_BROADCAST_GAP_S if is_broadcast else MAX_GAP_S
        self._back_s = _BROADCAST_BACK_S if is_broadcast else _BACK_S
        self._origin_s = origin_s
        self._account = account
        self._clocks = {index: _Clock(tick_s, origin_s, origin_s) for index, tick_s in ticks_s.items()}
        self._parts = [_Part(origin_s, 0.0)]
        self._crossings: dict[int, Packet] = {}  # by track: the first packet of the newest part, if it is known ahead
        self._budget = budget
        self._ended_s = origin_s  # the end of the longest track in the parts that were left, on the common clock

    @property
    def has_joints(self) -> bool:
        """Whether the file has turned out to be several recordings."""
        return len(self._parts) > 1

    @property
    def reached_s(self) -> float:
        """Media time at which the longest track ends so far."""
        ends_s = [clock.end_s + self._parts[clock.part].offset_s for clock in self._clocks.values()]
        return max(self._ended_s, *ends_s) - self._origin_s

    def place(self, packets: Iterator[Packet]) -> Iterator[Packet]:
        """The packets of the followed tracks, in the same order, with their times on the common clock."""
        waiting: deque[Packet] = deque()
        while True:
            packet = waiting.popleft() if waiting else next(packets, None)
            if packet is None:
                return
            clock = self._clocks.get(packet.stream_index)
            if clock is None:
                continue
            if packet is self._crossings.get(packet.stream_index):
                del self._crossings[packet.stream_index]
                self._enter(clock, packet, len(self._parts) - 1)
            elif self._steps(packet, clock):
                part = self._part_of_others(packet, clock)
                if part is not None:
                    self._enter(clock, packet, part)
                elif not self._budget.take_step():
                    self._stop_trusting(packet)
                else:
                    self._look_ahead(waiting, packets)
                    joint = self._find_joint([packet, *waiting])
                    if joint is not None and joint.crossings.get(packet.stream_index) is packet:
                        self._open_part(joint)
                        waiting.appendleft(packet)
                        continue
                    if joint is not None:
                        self._forget_times(packet, clock)
            clock.follow(packet)
            if self._is_shown_late(packet, clock):
                self._forget_shown(packet, clock)
            yield packet if clock.part == 0 else self._shifted(packet, clock)

    def _look_ahead(self, waiting: deque[Packet], packets: Iterator[Packet]) -> None:
        """Add packets to those that wait, as many as may be looked at."""
        size = sum(packet.size for packet in waiting)
        while len(waiting) < _LOOK_AHEAD_PACKETS and size < _LOOK_AHEAD_BYTES:
            packet = next(packets, None)
            if packet is None:
                return
            size += packet.size
            waiting.append(packet)

    def _steps(self, packet: Packet, clock: _Clock) -> bool:
        """Whether a packet does not go on from the last one of its track."""
        time_s = clock.time_s(packet)
        if time_s is None:
            return False
        if clock.is_new:  # tracks may begin some time apart, and one may begin late beside others that have got there
            end_s = max(clock.end_s, self.reached_s + self._origin_s) if len(self._parts) == 1 else clock.end_s
            return not clock.end_s - self._max_gap_s <= time_s <= end_s + self._max_gap_s
        return time_s < clock.last_s - self._back_s or time_s > clock.end_s + self._max_gap_s

    def _part_of_others(self, packet: Packet, clock: _Clock) -> int | None:
        """The part that another track has entered before and that this packet belongs to, None without one."""
        time_s = clock.time_s(packet) or 0.0
        for number in range(max(clock.part + 1, len(self._parts) - _RECENT_PARTS), len(self._parts)):
            part, later = self._parts[number], self._parts[number + 1 : number + 2]
            end_s = later[0].start_s + later[0].offset_s if later else self.reached_s + self._origin_s
            if part.start_s - 1.0 <= time_s <= end_s - part.offset_s + self._max_gap_s:
                return number
        return None

    def _find_joint(self, packets: Sequence[Packet]) -> _Joint | None:
        """The joint in these packets. None: one track steps, and the others go on.

        packets: in the order of the file; the first one steps.

        A step counts if the next packet of the track does not go back to the old clock: one wrong time stamp is no
        joint. The other tracks must step too, or have ended. Otherwise the time stamps of one track are at fault: what
        overlaps is left out by its reader, and a gap stays a gap.
        """
        crossings: dict[int, Packet] = {}
        goes_on = False
        ended_s = self._ended_s
        by_track: dict[int, list[Packet]] = {}
        for packet in packets:
            if packet.dts is not None or packet.pts is not None:
                by_track.setdefault(packet.stream_index, []).append(packet)
        for index, now in self._clocks.items():
            clock = dataclasses.replace(now)
            of_track = by_track.get(index, [])
            for packet, following in itertools.zip_longest(of_track, of_track[1:]):
                if not self._steps(packet, clock):
                    clock.follow(packet)
                elif following is None or self._steps(following, clock):
                    crossings[index] = packet
                    break
            goes_on |= index not in crossings and clock.end_s - now.end_s > _GOES_ON_S and not now.is_new
            ended_s = max(ended_s, clock.end_s + self._parts[clock.part].offset_s)
        first = packets[0]
        if not goes_on or crossings.get(first.stream_index) is not first:
            return _Joint(crossings, ended_s)
        clock = self._clocks[first.stream_index]
        if (clock.time_s(first) or 0.0) <= clock.end_s + MAX_GAP_S:
            return None
        # Nobody waits so long for one track: it goes on where it ended.
        return _Joint({first.stream_index: first}, clock.end_s + self._parts[clock.part].offset_s)

    def _open_part(self, joint: _Joint) -> None:
        start_s = min(self._clocks[index].start_s(packet) for index, packet in joint.crossings.items())
        step_s = start_s + self._parts[-1].offset_s - joint.ended_s
        self._parts.append(_Part(start_s, joint.ended_s - start_s))
        self._crossings = joint.crossings
        self._ended_s = max(self._ended_s, joint.ended_s)
        at_s = joint.ended_s - self._origin_s
        how = f"steps back by {-step_s:.2f} s" if step_s < 0 else f"jumps ahead by {step_s:.2f} s"
        line = f"the clock {how} at {at_s:.2f} s: the file is taken as recordings joined end to end, and goes on there"
        self._account.note("joint", line, cause=len(self._parts))

    def _enter(self, clock: _Clock, packet: Packet, part: int) -> None:
        clock.part = part
        clock.last_s = clock.end_s = clock.time_s(packet) or 0.0

    def _stop_trusting(self, packet: Packet) -> None:
        """One step too many: the packet is taken to follow the one before."""
        packet.pts = packet.dts = None
        line = "the clock steps too often for so few bytes: time stamps that step are not used"
        self._account.note("steps of the clock", line)

    def _forget_times(self, packet: Packet, clock: _Clock) -> None:
        """A single wrong time stamp: the packet is taken to follow the one before."""
        time_s = (clock.time_s(packet) or 0.0) - self._origin_s
        packet.pts = packet.dts = None
        line = f"a time stamp of {time_s:.2f} s fits neither before nor after, and is not used"
        self._account.note("time stamp", line, cause=(packet.stream_index, time_s))

    def _is_shown_late(self, packet: Packet, clock: _Clock) -> bool:
        """Whether it is shown absurdly long after it was decoded."""
        return abs(clock.start_s(packet) - clock.last_s) > self._max_gap_s and packet.pts is not None

    def _forget_shown(self, packet: Packet, clock: _Clock) -> None:
        """The packet is taken to follow the one before."""
        time_s = clock.start_s(packet) - self._origin_s
        packet.pts = None
        line = f"a time stamp of {time_s:.2f} s is far from the time of its decoding, and is not used"
        self._account.note("time of showing", line, cause=(packet.stream_index, time_s))

    def _shifted(self, packet: Packet, clock: _Clock) -> Packet:
        """The packet on the common clock."""
        ticks = round(self._parts[clock.part].offset_s / clock.tick_s)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        return packet
