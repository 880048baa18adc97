"""The web application: the page, the facts about server and model at `/info`, counts at `/metrics`, the WebSocket."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from avsr import __version__
from avsr.serving.access import Access
from avsr.serving.connection import Connection, Live
from avsr.serving.limits import Limits
from avsr.serving.places import Places, Room
from avsr.shipped import ASSETS

FILES = {
    "/page.js": "text/javascript; charset=utf-8",
    "/captions.js": "text/javascript; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/microphone.js": "text/javascript; charset=utf-8",
}
"""Files that the page loads, with their types. They need no token: they are the same for everybody."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",  # lip crops come as data
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), display-capture=()",
    "referrer-policy": "no-referrer",  # an address may hold a token
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


NO_TOKEN = "The token is missing or wrong: send the one of avsr serve as Authorization: Bearer TOKEN.\n"


def create_app(live: Live, *, limits: Limits, access: Access, places: Places) -> ASGIApp:
    """The application, ready to be served."""
    room = Room(limits)
    page = ASSETS / "page"
    # The files are read now and found by key, so that no request can name a path on the disk.
    content = {path: (page / path[1:]).read_bytes() for path in FILES}
    index = (page / "index.html").read_bytes()
    # FastAPI's own documentation pages load scripts from another site.
    app = FastAPI(title="avsr", docs_url=None, redoc_url=None, openapi_url=None)

    def refusal(what: str) -> Response:
        places.metrics.refuse("token")
        return PlainTextResponse(what, 403, headers=HEADERS)

    def has_token(request: Request) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return access.accepts(token if scheme.lower() == "bearer" else "")

    @app.exception_handler(HTTPException)
    async def say_error(_: Request, error: HTTPException) -> Response:
        return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=HEADERS | dict(error.headers or {}))

    @app.get("/")
    async def show_page(token: str = "") -> Response:
        if not access.accepts(token):
            return refusal(
                "This page needs the token: open it by the address that avsr serve printed, with ?token= at its end.\n"
            )
        return Response(index, media_type="text/html; charset=utf-8", headers=HEADERS)

    @app.get("/info")
    async def show_info(request: Request) -> Response:
        if not has_token(request):
            return refusal(NO_TOKEN)
        known = {"version": __version__, "sessions": room.taken, "max_sessions": room.size} | live.description
        return JSONResponse(known, headers=HEADERS)

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        if not has_token(request):
            return refusal(NO_TOKEN)
        now = {
            "connections_without_session": len(places.strangers),
            "connections_in_session": len(places.in_session),
            "sessions": room.taken,
            "max_sessions": room.size,
        }
        return PlainTextResponse(places.metrics.text(now), headers=HEADERS)

    @app.websocket("/stream")
    async def stream(websocket: WebSocket) -> None:
        await Connection(websocket, live, limits=limits, access=access, room=room).run()

    def add_file(path: str, media_type: str) -> None:
        # A closure made in the loop below would give the last file for every path, so a function binds `path`.
        async def show_file() -> Response:
            return Response(content[path], media_type=media_type, headers=HEADERS)

        app.add_api_route(path, show_file, methods=["GET"])

    for path, media_type in FILES.items():
        add_file(path, media_type)
    return _Gate(app, access, places)


class _Gate:
    """Refuses requests with a wrong host name or from other sites, before the application gets them."""

    def __init__(self, app: ASGIApp, access: Access, places: Places) -> None:
        self._app, self._access, self._metrics = app, access, places.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            is_websocket = scope["type"] == "websocket"
            why_not = self._access.why_not(scope["headers"], is_websocket=is_websocket)
            if why_not is not None:
                self._metrics.refuse("host")
                await PlainTextResponse(f"{why_not}\n", 403, headers=HEADERS)(scope, receive, send)
                return
        await self._app(scope, receive, send)
