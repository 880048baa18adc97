"""Who may use the server.

On a loopback address, every user of this machine may use it, but no other web site. A page of another site that makes
the browser connect to this server is recognised by the Origin header. A site that points its own name at 127.0.0.1 (DNS
rebinding) is recognised by the Host header. On any other address, every client that has the token may use the server.
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
"""Characters. A shorter token could be guessed."""


def new_token() -> str:
    """A random token that cannot be guessed, made of characters that need no quoting in a URL."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_for_others() -> str | None:
    """The address of this machine on its network; None if it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        try:
            unused.connect(("192.0.2.1", 9))  # chooses the network; for datagrams this sends nothing
        except OSError:
            return None
        return str(unused.getsockname()[0])


def _names_of_this_machine() -> frozenset[str]:
    return frozenset(name.lower() for name in (socket.gethostname(), socket.getfqdn()) if name)


@dataclass(frozen=True)
class Access:
    """The rules for requests."""

    host: str
    """The address at which the server listens."""
    token: str | None = None
    """The token that every client must send; None if no token is needed."""
    names: frozenset[str] = field(default_factory=_names_of_this_machine)
    """Names of this machine, in lower case, which a Host header may have unless `host` is a loopback address."""

    def why_not(self, headers: Iterable[tuple[bytes, bytes]], *, is_websocket: bool) -> str | None:
        """Why a request is refused, in one line; None if it is accepted. headers: names in lower case."""
        # latin-1 decodes every byte, so that a hostile header cannot raise an error here.
        known = [(name, value.decode("latin-1").lower()) for name, value in headers]
        hosts = [value for name, value in known if name == b"host"]
        # With two Host headers nobody knows which one the application would take, so both are refused.
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            named = f"{hosts[0]!r:.80}" if hosts else "nothing"
            ours = "localhost, 127.0.0.1 or [::1]"
            if not is_loopback(self.host):  # its names are not listed: this client may be a stranger
                ours = "localhost, an address, or the name of the machine"
            return f"this server was asked for as {named}: expected {ours}"
        if is_websocket:
            # Browsers always send an Origin, and no web page can remove it. Other programs need not send it.
            origins = [value for name, value in known if name == b"origin"]
            if any(origin not in (f"http://{hosts[0]}", f"https://{hosts[0]}") for origin in origins):
                return f"connected to from {origins[0]!r:.80}: only the server's own page may"
        return None

    def accepts(self, token: str) -> bool:
        """Whether the token is right. The time does not depend on how much of a wrong token is right."""
        # A token from JSON may hold lone surrogates, which UTF-8 cannot encode without "replace".
        return self.token is None or hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def url(self, port: int) -> str:
        """The address of the page for a browser on this machine, with the token."""
        # A browser cannot open a wildcard address, which means all addresses of the machine.
        name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
        return address if self.token is None else f"{address}?token={quote(self.token)}"

    def _is_ours(self, host: str) -> bool:
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^\[\]:@/]+)(:[0-9]{1,5})?", host)
        if match is None:
            return False
        name = match[1].strip("[]")
        # A rebound page has its own name in the Host header, never a loopback name.
        if is_loopback(name):
            return True
        # Only this machine reaches a loopback address, and it has no reason to use another name: that is rebinding.
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names or name == self.host.lower()
        return True  # DNS rebinding needs a name; an address is safe
