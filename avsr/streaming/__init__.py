"""Live recognition with lips, and a fallback to sound alone."""

from avsr.streaming.events import Chunk, Event
from avsr.streaming.session import Session

__all__ = ["Chunk", "Event", "Session"]
