"""avsr serve: the local page with live captions."""

from __future__ import annotations

import argparse
import os
import re
import sys
import webbrowser
from urllib.parse import urlsplit

from avsr.cli.arguments import (
    add_chunk,
    add_language,
    add_look_ahead,
    add_model,
    add_quiet,
    add_search,
    face,
    model_name,
    positive_integer,
    search_of,
)
from avsr.cli.console import Console, UsageError

DESCRIPTION = (
    "Serve a page that shows live captions of the browser's camera and microphone. Everything stays on this\n"
    "machine: only browsers on this machine reach the page, unless --host names another address; the page\n"
    "then asks for a token. Prints the address of the page; Ctrl-C ends it."
)
EXAMPLE = "avsr serve --port 8765"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `avsr serve`."""
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen at; default %(default)s, for this machine only",
    )
    add("--port", type=_port, default=8765, metavar="N", help="port to listen at; 0: any free one; default %(default)s")
    add(
        "--token",
        type=_token,
        metavar="TEXT",
        help="password of the page, 16 characters or more; default: none, or a random one with --host",
    )
    add_model(parser, "model that works live")
    add_chunk(parser)
    add_look_ahead(parser)
    add_language(parser)
    add_search(parser, usual_beam="1")
    add("--face", type=face, default="largest", metavar="largest|ID", help="whose lips to read; default largest")
    add("--max-sessions", type=positive_integer, default=4, metavar="N", help="sessions at a time; default %(default)s")
    add("--max-minutes", type=_minutes, default=60.0, metavar="M", help="length of a session; default 60")
    add(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show the page in the browser; default: if there is a desktop",
    )
    add_quiet(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from avsr.serving.access import Access, address_for_others, is_loopback, new_token
    from avsr.serving.limits import Limits
    from avsr.serving.server import Settings, require_extra, serve

    with Console(quiet=arguments.quiet) as console:
        require_extra()  # missing packages are reported before the model is loaded
        import avsr

        token = arguments.token
        if not arguments.host:
            raise UsageError("--host: expected an address, such as 127.0.0.1, or 0.0.0.0 for all of this machine")
        if token is None and not is_loopback(arguments.host):
            token = new_token()
        settings = Settings(
            host=arguments.host,
            port=arguments.port,
            token=token,
            chunk_ms=arguments.chunk_ms,
            look_ahead_ms=arguments.look_ahead_ms,
            face=arguments.face,
            search=search_of(arguments),
            limits=Limits(max_sessions=arguments.max_sessions, max_minutes=arguments.max_minutes),
        )

        def announce(url: str) -> None:
            console.result(f"{url}\n")
            if not is_loopback(arguments.host):
                if arguments.host in ("0.0.0.0", "::") and (address := address_for_others()):
                    others = Access(address, token).url(urlsplit(url).port or 0)
                    console.note(f"from another machine: {others}")
                console.note("browsers give camera and microphone only to localhost and https: see docs/serve.md")
            console.note("Ctrl-C ends it")
            if _has_desktop() if arguments.open is None else arguments.open:
                webbrowser.open(url)

        serve(avsr.load(model_name(arguments, console.note)), settings, on_ready=announce)
    return 0


def _has_desktop() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 0 to 65535")
    return int(text)


def _token(text: str) -> str:
    from avsr.serving.access import MIN_TOKEN_LENGTH

    # These characters need no quoting in the address of the page.
    other = re.search("[^A-Za-z0-9._~-]", text)
    if other is not None or len(text) < MIN_TOKEN_LENGTH:
        got = f"{len(text)} characters" if other is None else f"the character {other[0]!r}"
        expected = f"at least {MIN_TOKEN_LENGTH} characters, each a letter, a digit, or one of - . _ ~"
        raise argparse.ArgumentTypeError(f"got {got}, expected {expected}")
    return text


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 1e6:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected minutes, as in 90 or 0.5")
    return minutes
