"""Live recognition with lips, and a fallback to sound alone."""

from avsr.streaming.events import Event, Step
from avsr.streaming.session import Session

__all__ = ["Event", "Session", "Step"]
