"""Who may use the server.

On a loopback address everybody on this machine, but no other web site: a page from elsewhere that has the browser
connect to us shows in the Origin header, and one whose name was pointed at 127.0.0.1 (DNS rebinding) in the Host
header. On any other address whoever has the token.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

MIN_TOKEN_LENGTH = 16


def new_token() -> str:
    """A token that nobody can guess, fit for a URL."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _names_of_this_machine() -> frozenset[str]:
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()) if name)


@dataclass(frozen=True)
class Access:
    """The rules. host: the address that the server listens at. token: what a client must know, None for nothing."""

    host: str
    token: str | None = None
    names: frozenset[str] = field(default_factory=_names_of_this_machine)

    def why_not(self, headers: Iterable[tuple[bytes, bytes]], *, is_websocket: bool) -> str | None:
        """Why a request is refused, in one line; None where it is not. headers: names in lower case."""
        known = [(name, value.decode("latin-1").lower()) for name, value in headers]
        hosts = [value for name, value in known if name == b"host"]
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            named = f"{hosts[0]!r:.80}" if hosts else "nothing"
            return f"asked for as {named}: this server answers to its own address only"
        if is_websocket:
            # Browsers always send one; a program on this machine needs none, and no web page can leave it out.
            origins = [value for name, value in known if name == b"origin"]
            if any(origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins):
                return f"connected to from {origins[0]!r:.80}: only the server's own page may"
        return None

    def accepts(self, token: str) -> bool:
        """Whether the token is right; takes as long for a wrong one, however it begins."""
        return self.token is None or hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def url(self, port: int) -> str:
        """Where a browser on this machine finds the page."""
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
        return address if self.token is None else f"{address}?token={quote(self.token)}"

    def _is_ours(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(:[0-9]{1,5})?", host)
        if match is None:
            return False
        name = match[1].strip("[]")
        if is_loopback(name):
            return True
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names or name == self.host.lower()
        return True  # rebinding needs a name, so an address is the one that was typed
