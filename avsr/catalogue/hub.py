"""Files from the Hugging Face hub, through its client `huggingface_hub`. The only module that knows this client."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import importlib.util
import io
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avsr.catalogue.entries import Entry
from avsr.catalogue.source import SourceError, Task, watched
from avsr.errors import ModelError
from avsr.files import remedy_for

ANSWER_TIMEOUT_S = 10.0
MAX_FILE_BYTES = 20_000_000_000  # where the list does not know the size
MAX_MESSAGE = 200  # letters of what the client says


def has_client() -> bool:
    """Whether the client is installed."""
    try:
        return importlib.util.find_spec("huggingface_hub") is not None
    except ValueError:  # a stand-in without a specification, or None in its place
        return sys.modules.get("huggingface_hub") is not None


def fetch(task: Task) -> None:
    """Fetch the missing files of a task. An interrupted file goes on where it stopped. Raises ModelError."""
    client = _client(task.entry.name)
    watched(functools.partial(_check_answer, client, task.entry.name), task.tick)
    folder = task.work / "hub"
    folder.mkdir(exist_ok=True)
    for name in task.missing:
        try:
            path = watched(functools.partial(_download, client, task.entry, name, folder), task.tick)
        except ModelError:
            raise
        except Exception as error:
            raise _explained(error, f"{task.entry.name}: {name} cannot be fetched from the hub") from None
        task.deliver(name, path)


def _download(client: Any, entry: Entry, name: str, folder: Path) -> Path:
    """One file of a model. What an earlier attempt left in `folder` is gone on with.

    The client's own hf_hub_download begins again in every process, so that only its parts are used here.
    """
    from huggingface_hub.file_download import http_get

    assert entry.hub is not None, "only models of the hub are fetched from it"
    url = client.hf_hub_url(entry.hub.id, name, revision=entry.hub.revision)
    remote = client.get_hf_file_metadata(url)
    largest = entry.files[name].bytes or MAX_FILE_BYTES
    if remote.size is not None and remote.size > largest:
        raise ModelError(f"{entry.name}: {name} on the hub is too large", got=f"{remote.size} bytes", expected=largest)
    # The tag changes with the content, so that two contents are never joined.
    tag = hashlib.sha256(f"{remote.etag}".encode()).hexdigest()[:16]
    path = folder / f"{name}.{tag}.part"
    with _Part(io.FileIO(path, "ab"), largest) as part:
        headers = client.utils.build_hf_headers()
        http_get(url, part, resume_size=part.tell(), expected_size=remote.size, headers=headers)
    return path


class _Part(io.BufferedWriter):
    """A file that cannot grow beyond a size, whatever the other side sends."""

    def __init__(self, raw: io.FileIO, largest: int) -> None:
        super().__init__(raw)
        self._largest = largest

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._largest:
            raise ValueError(f"more than {self._largest} bytes")
        return super().write(data)


def snapshot(repository: str, patterns: Sequence[str]) -> Path:
    """The files of a repository that match the patterns, in the cache of the client. Raises ModelError."""
    client = _client(repository, ", or download the model and give its path")
    try:
        return Path(client.snapshot_download(repository, allow_patterns=list(patterns)))
    except Exception as error:
        explained = _explained(error, f"model {repository!r} cannot be fetched from the hub")
        remedy = "check the name and the connection, or download the model and give its path"
        raise ModelError(explained.what, got=explained.got, remedy=remedy) from None


def _client(wanted: str, otherwise: str = "") -> Any:
    """The client. wanted: for the error. otherwise: another remedy. Raises SourceError."""
    try:
        import huggingface_hub
    except ImportError:
        raise SourceError(
            f"no model {wanted!r} here, and asking the hub needs huggingface_hub",
            remedy=f"pip install '.[hub]'{otherwise}",
        ) from None
    # Its bars and hints would stand between our lines.
    with contextlib.suppress(ImportError):  # of a stand-in, which has neither
        import huggingface_hub.utils

        huggingface_hub.utils.disable_progress_bars()
        huggingface_hub.utils.logging.set_verbosity_error()
    return huggingface_hub


def _check_answer(client: Any, wanted: str) -> None:
    """Ask the hub for anything. The client itself tries six times before it gives up. Raises SourceError."""
    try:
        urllib.request.urlopen(client.constants.ENDPOINT, timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # an answer
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        raise SourceError(f"{wanted}: the hub does not answer", got=cause, remedy="check the connection") from None


def _explained(error: Exception, what: str) -> SourceError:
    """Any error of the client as one line. Its kinds differ between versions: it has changed its HTTP library."""
    if isinstance(error, OSError) and remedy_for(error):  # of our disk, not of the network
        raise error
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return SourceError(what, got=lines[0][:MAX_MESSAGE], remedy="check the connection")
