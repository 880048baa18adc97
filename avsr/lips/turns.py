"""Whose turn it is to be looked at, if a picture shows more faces than can be searched in time.

A gallery of a video call shows 9, 16 or more faces. To search each in every picture would cost 3 ms a face. So a few
are searched in each picture and the others stay where they were: people in a gallery hardly leave their places. Faces
that move their mouths come up more often, because one of them speaks.
"""

from __future__ import annotations

import dataclasses

from avsr.account import Account
from avsr.lips.movement import MOVES_FROM

AT_ONCE = 6
"""Up to this many faces are searched in every picture; if there are more, they take turns."""

LOOKS = 4
"""Faces searched in a picture while faces take turns: less than AT_ONCE, because each face costs 0.3 ms a picture even
without a search, for its lips and for their comparison with the sound."""

SETTLED_S = 2.0
"""The faces of a crowd are found one after another. They are counted for this long before their number is told."""

_PRIORITY = 8.0  # a face that speaks counts as having waited this many times as long as it has
_NEW_WEIGHT = 0.3  # of the newest movement in the mean


@dataclasses.dataclass
class Waiting:
    """A face that waits for its turn."""

    looked_s: float
    """When it was last looked at."""
    opening: float
    """The opening of its lips then, in eye distances."""
    movement: float = 0.0
    """The mean change of the opening from look to look, newer changes weigh more."""

    def look(self, time_s: float, opening: float) -> None:
        """Record that the face was looked at. opening: NaN if the face was not found."""
        self.looked_s = time_s
        change = abs(opening - self.opening)
        if change == change:  # False for NaN: nothing is known about the movement
            self.movement += _NEW_WEIGHT * (change - self.movement)
        self.opening = opening

    def urgency(self, time_s: float) -> float:
        """How long it has waited, in seconds; up to _PRIORITY times as long if it moves its mouth."""
        moves = min(1.0, self.movement / MOVES_FROM)
        return (time_s - self.looked_s) * (1 + (_PRIORITY - 1) * moves)


def whose_turn(waiting: dict[int, Waiting], time_s: float) -> list[int]:
    """The LOOKS faces to look at in the picture at this time, the most urgent ones.

    Nobody waits for ever: a face that never moves its mouth is looked at once it has waited _PRIORITY times as long as
    the others.
    """
    # The id decides between equals, so that the same video gives the same turns.
    return sorted(waiting, key=lambda face: (-waiting[face].urgency(time_s), face))[:LOOKS]


class Crowd:
    """Counts the faces of one video in its account, and says once that they take turns. None: no account is kept."""

    def __init__(self, account: Account | None) -> None:
        self._account = account
        self._known: frozenset[int] = frozenset()
        self._num_beyond = 0
        self._most = 0  # the most faces in one picture that were too many to search all of them
        self._since_s: float | None = None

    def see(self, followed: frozenset[int], num_seen: int, num_beyond: int, time_s: float) -> None:
        """Take in the next picture.

        followed: ids of all followed faces.
        num_seen: how many of them are in sight.
        num_beyond: the most faces so far that a picture showed beyond the limit of followed faces.
        """
        if self._account is None:
            return
        self._account.found("faces", len(followed - self._known))
        self._account.used("faces", len(followed - self._known))
        self._known |= followed
        if num_beyond > self._num_beyond:
            more, self._num_beyond = num_beyond - self._num_beyond, num_beyond
            self._account.lost("faces", "too many to follow", more, is_found=False)
        if num_seen > AT_ONCE:
            self._most = max(self._most, num_seen + num_beyond)
            self._since_s = time_s if self._since_s is None else self._since_s
            if time_s - self._since_s >= SETTLED_S:
                self.finish()

    def finish(self) -> None:
        """Say it now, if there was a crowd."""
        if self._account is None or not self._most:
            return
        followed = f"the {self._most - self._num_beyond} largest are followed, " if self._num_beyond else ""
        self._account.note(
            "faces take turns",
            f"{self._most} faces are in the picture, {followed}and {LOOKS} are searched at a time: they take turns",
            cause="faces take turns",
        )
