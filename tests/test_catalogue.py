"""The list of published models, the folder of installed ones, and the default model."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import stat
from pathlib import Path
from typing import Any

import pytest

import avsr
from avsr.catalogue.entries import read_catalogue
from avsr.cli.main import main
from avsr.errors import ConfigError, ModelError
from avsr.families import find
from avsr.families import hub as families_hub
from tests.fake_sources import FILES, FakeHub, described, sha256, toy, write_catalogue


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed models, which does not exist yet."""
    monkeypatch.setenv("AVSR_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("AVSR_MODEL", raising=False)
    return tmp_path / "models"


def put(folder: Path, files: dict[str, bytes] = FILES) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


class TestList:
    def test_the_list_in_the_package_is_consistent(self) -> None:
        entries = read_catalogue()
        for entry in entries.values():
            assert entry.hub or entry.page, f"{entry.name} comes from nowhere"
            assert entry.size_bytes > 0
            for name, file in entry.files.items():
                pieces = [
                    entry.piece(member)
                    for package in entry.packages
                    for member in package.members
                    if member.file == name
                ]
                assert not pieces or sum(piece.bytes for piece in pieces) == file.bytes
            if entry.family == "whisper":
                assert entry.hub and re.fullmatch("[0-9a-f]{40}", entry.hub.revision)
                assert all(file.sha256 for file in entry.files.values())
        ranked = sorted((entry for entry in entries.values() if entry.rank), key=lambda entry: -entry.rank)
        assert [entry.name.removeprefix("whisper-") for entry in ranked] == [
            "large-v3-turbo",
            "large-v3",
            "medium",
            "small",
            "base",
            "tiny.en",
        ]
        assert all(entry.must_accept and entry.terms for entry in entries.values() if entry.family == "auto_avsr")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"files": {"../x": {}}}, r"'\.\./x' is no plain name"),
            ({"files": {"/etc/x": {}}}, "'/etc/x' is no plain name"),
            ({"files": {".x": {}}}, r"'\.x' is no plain name"),
            ({"files": {}}, "expected one of the files"),
            ({"opens": "other"}, "opens is 'other'; expected one of the files"),
            ({"files": {"x": {"sha256": "12"}}}, "'12' is no SHA-256"),
            ({"files": {"x": {"bytes": -1}}}, "bytes is -1"),
            ({"licens": "MIT"}, "unknown key licens.*did you mean licence"),
            ({"licence": None}, "key licence is missing"),
            ({"packages": [{"name": "-r x", "version": "1", "sha256": "", "members": []}]}, "-r x==1 is no package"),
            ({"packages": [{"name": "x", "version": "1 -r", "sha256": "", "members": []}]}, "x==1 -r is no package"),
            (
                {"packages": [{"name": "x", "version": "1", "sha256": "", "members": [{"path": "a", "file": "b"}]}]},
                "the packages do not hold the files",
            ),
            (
                {
                    "files": {"b": {}},
                    "packages": [{"name": "x", "version": "1", "sha256": "", "members": [{"path": "a", "file": "b"}]}],
                },
                "a: a piece needs its size and its hash",
            ),
        ],
    )
    def test_a_wrong_list_is_refused(self, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=message):
            read_catalogue(write_catalogue(tmp_path / "list.yaml", toy=toy(**changes)))

    @pytest.mark.parametrize("name", ["../toy", "/etc", "a b", ".toy", "x" * 101])
    def test_a_name_that_is_no_plain_name_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "list.yaml").write_text(json.dumps({name: toy()}))
        with pytest.raises(ConfigError, match="is no plain name"):
            read_catalogue(tmp_path / "list.yaml")

    def test_states(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(
            tmp_path / "list.yaml", toy=toy(), later=toy(family="no-such-family"), hubs=toy(hub={"id": "a/b"})
        )
        known = {model.name: model for model in avsr.models.list(catalogue=catalogue)}
        assert known["grid-tiny"].state == "shipped" and known["grid-tiny"].opens
        assert known["toy"].state == "by hand" and known["toy"].problem == ""
        assert not known["later"].opens and known["hubs"].state == "available"
        with pytest.raises(ModelError, match="later is a model of the kind no-such-family, which this version"):
            avsr.models.pull("later", catalogue=catalogue)
        put(models / "toy")
        assert avsr.models.show("toy", catalogue=catalogue).problem == "holds files that were not checked"
        assert avsr.models.pull("toy", catalogue=catalogue).state == "installed"

    @pytest.mark.parametrize("name", ["../toy", "/etc/passwd", "toy/../toy", "", ".", "toy\n"])
    def test_hostile_names_reach_no_folder(self, name: str, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        for do in (avsr.models.show, avsr.models.pull, avsr.models.remove):
            with pytest.raises(ModelError, match="in the catalogue"):
                do(name, catalogue=catalogue)
        assert not models.exists()

    def test_shipped_models_are_neither_pulled_nor_removed(self, models: Path) -> None:
        with pytest.raises(ModelError, match="grid-tiny comes with the package; use it as it is"):
            avsr.models.pull("grid-tiny")
        with pytest.raises(ModelError, match="grid-tiny comes with the package and stays"):
            avsr.models.remove("grid-tiny")


class TestDefault:
    @pytest.mark.usefixtures("models")
    def test_a_wrong_name_in_the_environment_is_said_to_come_from_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AVSR_MODEL", "zzz")
        with pytest.raises(ModelError, match=r"^no model 'zzz' \(AVSR_MODEL names it\);"):
            avsr.load()
        with pytest.raises(ModelError, match="^no model 'yyy';"):
            avsr.load("yyy")


class TestFolder:
    def test_places(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        def folder() -> str:
            return avsr.models.show("whisper-base").folder

        monkeypatch.setenv("AVSR_MODELS", str(tmp_path))
        assert folder() == str(tmp_path / "whisper-base")
        monkeypatch.delenv("AVSR_MODELS")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert folder() == str(tmp_path / "data/avsr/models/whisper-base")
        monkeypatch.setenv("XDG_DATA_HOME", "relative")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert folder() == str(tmp_path / "home/.local/share/avsr/models/whisper-base")

    def test_without_a_home_there_is_one_line(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        def no_entry(number: int) -> None:
            raise KeyError(f"getpwuid(): uid not found: {number}")

        for name in ("HOME", "AVSR_MODELS", "AVSR_MODEL", "XDG_DATA_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pwd, "getpwuid", no_entry)
        monkeypatch.chdir(tmp_path)
        for words in (["pull", "whisper-base", "--quiet"], ["remove", "whisper-base"]):
            assert main(["models", *words]) == 1
            assert capsys.readouterr().err == (
                "avsr: no place for models: HOME is not set, and the system knows no home folder of this user;"
                " set AVSR_MODELS to a folder\n"
            )
        assert main(["models"]) == 0 and main(["models", "show", "whisper-base"]) == 0
        assert "set AVSR_MODELS to a folder" in capsys.readouterr().out
        assert main(["transcribe", avsr.__file__]) == 2
        assert list(tmp_path.iterdir()) == []

    def test_a_file_in_its_place_is_one_line(
        self, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        models.write_text("a file")
        fault = f"{models}, the place of installed models, is no folder"
        assert main(["models"]) == 0
        assert capsys.readouterr().err == f"avsr: {fault}; set AVSR_MODELS to a folder\n"
        with pytest.raises(ModelError, match=re.escape(f"is installed: got {fault}; avsr.models.pull(")):
            avsr.load()
        with pytest.raises(ModelError, match="toy cannot be written to .*set AVSR_MODELS to another folder"):
            avsr.models.pull("toy", catalogue=write_catalogue(tmp_path / "list.yaml", toy=toy()))

    def test_one_process_at_a_time(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(models / "toy")
        with open(models / ".toy.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(ModelError, match="another process is pulling or removing this model; wait"):
                avsr.models.pull("toy", catalogue=catalogue)
        assert avsr.models.pull("toy", catalogue=catalogue).state == "installed"

    @pytest.mark.parametrize(
        "record",
        [
            "",
            "{}",
            "[]",
            '{"files": {"weights.bin": 3}}',
            '{"files": {"weights.bin": {"bytes": 1}}}',
            "[" * 9999,
            "x" * 70_000,
        ],
    )
    def test_a_damaged_record_vouches_for_nothing(self, record: str, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(models / "toy", FILES | {"avsr-model.json": record.encode()})
        assert avsr.models.show("toy", catalogue=catalogue).state == "by hand"
        assert avsr.models.pull("toy", catalogue=catalogue).state == "installed"

    def test_another_version_is_not_the_one_of_the_list(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(models / "toy")
        avsr.models.pull("toy", catalogue=catalogue)
        other = FILES | {"weights.bin": FILES["weights.bin"][::-1]}
        write_catalogue(catalogue, toy=toy(files=described(other)))
        assert "another version: weights.bin" in avsr.models.show("toy", catalogue=catalogue).problem


class TestByHand:
    def test_right_files_are_taken_without_a_source(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy(page="https://example.org/toy"))
        (tmp_path / "models").mkdir()
        with pytest.raises(ModelError) as failure:
            avsr.models.pull("toy", catalogue=catalogue)
        assert str(failure.value) == (
            "toy is offered by its authors only; download it from https://example.org/toy, put config.yaml, weights.bin"
            f" into {models / 'toy'} and run the same command again"
        )
        put(models / "toy")
        lines: list[str] = []
        model = avsr.models.pull("toy", catalogue=catalogue, on_message=lines.append)
        assert (model.state, model.pulled_from) == ("installed", "by hand")
        assert lines == ["toy is installed, and all its files are right"]
        assert Path(find("toy", catalogue=catalogue)) == models / "toy"
        assert not list(models.glob(".toy.partial"))

    def test_the_rest_is_fetched(self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hub = FakeHub(monkeypatch)
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy(hub={"id": "some/toy"}))
        put(models / "toy", {"weights.bin": FILES["weights.bin"]})
        assert avsr.models.pull("toy", catalogue=catalogue).state == "installed"
        assert hub.asked == ["some/toy@main/config.yaml"]

    def test_a_wrong_file_is_named_and_kept(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(models / "toy", FILES | {"weights.bin": b"wrong"})
        with pytest.raises(
            ModelError, match=f"weights.bin is not the file of the catalogue: got 5 bytes, SHA-256 {sha256(b'wrong')}"
        ):
            avsr.models.pull("toy", catalogue=catalogue)
        assert (models / "toy/weights.bin").read_bytes() == b"wrong"

    def test_links_pipes_and_other_files_are_refused(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(tmp_path / "elsewhere")
        put(models / "toy", {"config.yaml": FILES["config.yaml"]})
        weights = models / "toy/weights.bin"
        weights.symlink_to(tmp_path / "elsewhere/weights.bin")
        with pytest.raises(ModelError, match="weights.bin cannot be read: got a link, expected a file; copy"):
            avsr.models.pull("toy", catalogue=catalogue)
        weights.unlink()
        os.mkfifo(weights)
        with pytest.raises(ModelError, match="weights.bin cannot be read"):
            avsr.models.pull("toy", catalogue=catalogue)
        weights.unlink()
        (models / "toy/notes.txt").write_text("mine")
        with pytest.raises(ModelError, match="toy holds more: got notes.txt, expected config.yaml, weights.bin"):
            avsr.models.pull("toy", catalogue=catalogue)

    def test_a_folder_that_is_a_link_is_refused(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        put(tmp_path / "elsewhere")
        models.mkdir()
        (models / "toy").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(ModelError, match="toy is no folder"):
            avsr.models.pull("toy", catalogue=catalogue)
        with pytest.raises(ModelError, match="toy is not installed"):
            avsr.models.remove("toy", catalogue=catalogue)
        assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == sorted(FILES)


class TestRemove:
    def test_only_its_own_files_go(self, models: Path, tmp_path: Path) -> None:
        catalogue = write_catalogue(tmp_path / "list.yaml", toy=toy())
        with pytest.raises(ModelError, match="toy is not installed"):
            avsr.models.remove("toy", catalogue=catalogue)
        put(models / "toy")
        with pytest.raises(ModelError, match="toy is not installed"):  # nobody checked these files, so they stay
            avsr.models.remove("toy", catalogue=catalogue)
        avsr.models.pull("toy", catalogue=catalogue)
        (models / "toy/notes.txt").write_text("mine")
        assert avsr.models.remove("toy", catalogue=catalogue).state == "by hand"
        assert [path.name for path in (models / "toy").iterdir()] == ["notes.txt"]


class TestUse:
    def test_names_paths_and_ids(self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        catalogue = write_catalogue(
            tmp_path / "list.yaml", toy=toy(hub={"id": "some/toy"}), one_file=toy(opens="weights.bin")
        )
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelError, match="toy is not installed; avsr models pull toy"):
            find("toy", catalogue=catalogue)
        with pytest.raises(ModelError, match="no model 'toyy'.*did you mean toy"):
            find("toyy", catalogue=catalogue)
        for name in ("toy", "one-file"):
            put(models / name)
            avsr.models.pull(name, catalogue=catalogue)
        (tmp_path / "toy").mkdir()  # a name means the same model in every folder
        assert Path(find("toy", catalogue=catalogue)) == models / "toy"
        assert Path(find("some/toy", catalogue=catalogue)) == models / "toy"
        assert Path(find("hf:some/toy", catalogue=catalogue)) == models / "toy"
        assert Path(find("one-file", catalogue=catalogue)) == models / "one-file/weights.bin"

    @pytest.mark.usefixtures("models")
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "models/mine",
                "models/mine: no such file or model; check the path; a model of the hub is named hf:ACCOUNT/NAME",
            ),
            ("nvidia/parakeet-ctc-1.1c", "no such file or model; check the path; a model of the hub is named hf:"),
            ("runs/mine", "runs/mine: no such file or model; check the path; a model of the hub"),
            ("./models/mine", "./models/mine: no such file or model; check the path"),
            ("runs/mine/model", "runs/mine/model: no such file or model; check the path"),
            ("models/mine.nemo", "models/mine.nemo: no such file: expected a .nemo archive; check the path"),
            ("nvidia/parakeet-ctc-1.1b", "is not installed; avsr models pull parakeet-ctc-1.1b"),
            ("https://hub/models/mine", "no such file or model; check the path"),
            ("hf:mine", "hf:mine: no id of the hub: expected hf:ACCOUNT/NAME"),
            ("hf:../mine", "hf:../mine: no id of the hub: expected hf:ACCOUNT/NAME"),
            ("hf:models/../mine", "no id of the hub"),
            ("HF:some/model", "HF:some/model: no such file or model; this model of the hub is named hf:some/model"),
            ("https://huggingface.co/some/model", "this model of the hub is named hf:some/model"),
            ("huggingface.co/some/model/tree/main", "this model of the hub is named hf:some/model"),
            ("https://hf.co/some/model?library=nemo", "this model of the hub is named hf:some/model"),
            ("https://huggingface.co/some", "no such file or model; check the path"),
        ],
    )
    def test_a_mistyped_path_asks_nobody(
        self, name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = FakeHub(monkeypatch)
        monkeypatch.setattr(families_hub, "snapshot", lambda *args: pytest.fail("the hub was asked"))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs").mkdir()
        monkeypatch.setenv("AVSR_MODEL", name)
        for open_it in (find, avsr.load, lambda _: avsr.load()):
            with pytest.raises(ModelError) as caught:
                open_it(name)
            assert message in str(caught.value).replace(" (AVSR_MODEL names it)", "")
        with pytest.raises(ModelError, match="no model .* in the catalogue"):
            avsr.models.pull(name)
        assert hub.asked == []

    def test_the_hub_is_asked_by_its_prefix(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def snapshot(repository: str, patterns: object) -> Path:
            asked.append(repository)
            return tmp_path / "fetched"

        monkeypatch.setattr(families_hub, "snapshot", snapshot)
        (tmp_path / "fetched").mkdir()
        (tmp_path / "fetched/one.nemo").touch()
        monkeypatch.chdir(tmp_path)
        (tmp_path / "models/mine").mkdir(parents=True)
        assert find("hf:models/mine") == str(tmp_path / "fetched/one.nemo")
        assert find("models/mine") == "models/mine"
        assert asked == ["models/mine"]

    def test_default(self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        catalogue = write_catalogue(
            tmp_path / "list.yaml",
            small=toy(rank=1, cores=1),
            medium=toy(rank=2, cores=2),
            large=toy(rank=3, cores=1000),
            lips=toy(modalities=["v"]),
            later=toy(rank=9, family="no-such-family"),
        )

        def default() -> str:
            return avsr.models.default(catalogue=catalogue)

        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        with pytest.raises(ModelError, match=r"pull\(\"whisper-base\"\) installs one, and avsr\.load\(\"grid-tiny\"\)"):
            default()
        for name in ("lips", "large"):
            put(models / name)
            avsr.models.pull(name, catalogue=catalogue)
        assert default() == "large"  # better a slow one than none
        for name in ("small", "medium"):
            put(models / name)
            avsr.models.pull(name, catalogue=catalogue)
        assert default() == ("large" if os.path.exists("/dev/nvidia0") else "medium")
        monkeypatch.setattr(os, "cpu_count", lambda: 1000)
        assert default() == "large"
        (models / "large/weights.bin").write_bytes(b"")  # damaged
        assert default() == "medium"
        monkeypatch.setenv("AVSR_MODEL", "mine")
        assert default() == "mine"


def test_files_of_a_pull_have_usual_permissions(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users of the machine may read a model, as the mask of the process says."""
    FakeHub(monkeypatch)
    avsr.models.pull("toy", catalogue=write_catalogue(tmp_path / "list.yaml", toy=toy(hub={"id": "some/toy"})))
    mask = os.umask(0)
    os.umask(mask)
    for path in (models / "toy").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
