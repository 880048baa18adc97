"""A hub on this machine, for the real client of the hub."""

from __future__ import annotations

import http.server
import re
import threading
from typing import Any

from tests.fake_sources import sha256


class HubServer:
    """Serves files like the hub while its context lasts.

    stall_after: bytes of a body after which the server waits until it is closed; None: it never waits.
    """

    def __init__(self, files: dict[str, bytes], stall_after: int | None = None) -> None:
        self.files = files
        self.stall_after = stall_after
        self.paths: list[str] = []
        """Of all requests."""
        self.starts: list[tuple[str, int]] = []
        """The file of each body, and the byte at which it began."""
        self.stalled = threading.Event()
        self._closed = threading.Event()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _send(self, body: bytes, output: Any) -> None:
        first = body[: self.stall_after]
        output.write(first)
        if len(first) < len(body):
            self.stalled.set()
            self._closed.wait(60)

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.head()

            def do_GET(self) -> None:
                if (body := self.head()) is not None:
                    hub._send(body, self.wfile)

            def head(self) -> bytes | None:
                hub.paths.append(self.path)
                name = self.path.rpartition("/")[2]
                data = hub.files.get(name)
                if data is None:
                    self.send_error(404)
                    return None
                start = int((re.findall(r"bytes=(\d+)-", self.headers.get("Range", "")) or ["0"])[0])
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", f'"{sha256(data)}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                if self.command == "GET":
                    hub.starts.append((name, start))
                return data[start:]

            def log_message(self, *args: Any) -> None:
                return None

        return Handler
