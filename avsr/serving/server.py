"""The process of `avsr serve`: its model, its socket, and uvicorn."""

from __future__ import annotations

import errno
import functools
import gc
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from avsr.engine import Card, Search
from avsr.errors import AvsrError
from avsr.grid import SAMPLE_RATE_HZ
from avsr.processes import limit_threads
from avsr.serving.access import Access
from avsr.serving.limits import Limits
from avsr.serving.metrics import Metrics
from avsr.serving.stream import LiveSession

if TYPE_CHECKING:
    import asyncio

    import uvicorn

SHUTDOWN_S = 3
"""How long clients may take to close their connections when the server stops."""


class LiveRecognizer(Protocol):
    """The part of `avsr.Recognizer` that the server needs."""

    @property
    def name(self) -> str: ...
    @property
    def card(self) -> Card: ...
    def stream(
        self, *, chunk_ms: int, look_ahead_ms: int, video: bool, face: str, search: Search | None
    ) -> LiveSession: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of `avsr serve`."""

    host: str = "127.0.0.1"
    """Address at which the server listens."""
    port: int = 8765
    """0 for any free port."""
    token: str | None = None
    """Token that clients must send; None if they need none."""
    chunk_ms: int | None = None
    """None: the usual one of the model."""
    look_ahead_ms: int = 0
    face: str = "largest"
    search: Search | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Prepared:
    """A server that listens and is ready to run."""

    server: uvicorn.Server
    listener: socket.socket
    url: str
    """Address of the page, with the token."""
    metrics: Metrics

    def run(self) -> None:
        """Serve until a signal, or until `server.should_exit` is set."""
        from avsr.serving.watch import quiet_libraries

        try:
            with quiet_libraries(self.metrics):
                self.server.run(sockets=[self.listener])
        finally:
            self.listener.close()
            self.metrics.tell()


def require_extra() -> None:
    """Raises AvsrError if the optional packages are missing."""
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise AvsrError("avsr serve needs more packages", got=error, remedy="pip install '.[serve]'") from error


def prepare(recognizer: LiveRecognizer, settings: Settings) -> Prepared:
    """A server that listens, with a recogniser that has run once.

    Raises AvsrError if it cannot listen at the address, ConfigError if the recogniser cannot stream with the settings.
    """
    require_extra()
    import uvicorn

    from avsr.serving.app import create_app
    from avsr.serving.connection import Live
    from avsr.serving.places import Places
    from avsr.serving.transport import ClientSocket, WebSocketTransport
    from avsr.serving.watch import ACCEPTS_AT_ONCE, WatchedServer

    can_read = "av" in recognizer.card.modalities
    chunk_ms = settings.chunk_ms or recognizer.card.chunk_for(settings.look_ahead_ms)

    def open_session(video: bool) -> LiveSession:
        # The page offers pictures without knowing the model; a model for sound alone would refuse the session.
        return recognizer.stream(
            chunk_ms=chunk_ms,
            look_ahead_ms=settings.look_ahead_ms,
            video=video and can_read,
            face=settings.face,
            search=settings.search,
        )

    listener = _listen(settings.host, settings.port)
    try:
        description: dict[str, Any] = {
            "model": recognizer.name,
            "modalities": list(recognizer.card.modalities),
            "notice": recognizer.card.notice,
            "chunk_ms": chunk_ms,
            "look_ahead_ms": settings.look_ahead_ms,
            "latency_ms": _try(open_session),
        }
        access, places = Access(settings.host, settings.token), Places(Metrics())
        live = Live(open_session=open_session, description=description)
        app = create_app(live, limits=settings.limits, access=access, places=places)
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", functools.partial(ClientSocket, places)),
            ws=WebSocketTransport,
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,  # addresses may hold a token
            server_header=False,
            proxy_headers=False,
            # Twice the limit of a message: a client that is slightly above the limit gets our reason, not uvicorn's.
            ws_max_size=2 * settings.limits.message_bytes,
            ws_per_message_deflate=False,  # a small message could become a very large one
            timeout_graceful_shutdown=SHUTDOWN_S,
            backlog=ACCEPTS_AT_ONCE,
        )
    except BaseException:
        listener.close()
        raise
    url = access.url(listener.getsockname()[1])
    return Prepared(WatchedServer(config, places.metrics), listener, url, places.metrics)


def serve(recognizer: LiveRecognizer, settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal. on_ready(url) is called when the page can be opened. Raises what `prepare` does."""
    # Every session computes in threads of its own. More threads inside each step would slow the others down.
    limit_threads(1)
    prepared = prepare(recognizer, settings)
    # What is there now stays. A full collection of it takes 40 ms and more, and clients decide when the next one comes.
    gc.collect()
    gc.freeze()
    on_ready(prepared.url)
    prepared.run()


def _try(open_session: Callable[[bool], LiveSession]) -> float:
    """Run a short session. Returns its latency in ms.

    Errors of the settings come now, not with the first client, and that client does not wait for lazily loaded models.
    """
    with open_session(True) as session:
        session.push_video(np.zeros((480, 640, 3), np.uint8), 0.0)
        session.push_audio(np.zeros(SAMPLE_RATE_HZ, np.float32), 0.0)
        latency_ms = session.latency_ms
        session.finish()
    return latency_ms


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _no_address(host) from error
    try:
        # Without SO_REUSEADDR, a server that is started again at once finds its old port still in use.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_address(host) from error
        remedy = "choose another with --port, or 0 for any that is free"
        raise AvsrError(f"cannot listen at {host}, port {port}", got=error, remedy=remedy) from error
    return listener


def _no_address(host: str) -> AvsrError:
    remedy = "choose one with --host: 127.0.0.1 for this machine alone, 0.0.0.0 for all of its addresses"
    return AvsrError(f"--host {host}: is no address of this machine", remedy=remedy)
