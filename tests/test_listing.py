"""Listing folders: every file and folder counted once, links followed once, nothing left out without a reason."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from avsr.account import Account
from avsr.media.folders import Lister, Listing

OGG = b"OggS" + bytes(60)


def put(folder: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def listed(folder: Path, account: Account | None = None, *, recursive: bool = True) -> Listing:
    return Lister(account or Account(), recursive=recursive).list_folder(str(folder))


def names(folder: Path, paths: list[str]) -> list[str]:
    return [os.path.relpath(path, folder) for path in paths]


def reasons(folder: Path, listing: Listing) -> dict[str, str]:
    return {os.path.relpath(entry.path, folder): entry.reason for entry in listing.left_out}


def test_media_and_other_files_come_in_a_fixed_order(tmp_path: Path) -> None:
    put(tmp_path, "b/x.wav", "a/y.MKV", "z.mp4", "a.mp4", "a/b/c.opus", "notes.txt", "a/list.jsonl")
    listing = listed(tmp_path)
    assert names(tmp_path, listing.media) == ["a.mp4", "z.mp4", "a/y.MKV", "a/b/c.opus", "b/x.wav"]
    assert names(tmp_path, listing.others) == ["notes.txt", "a/list.jsonl"]
    assert listing.line() is None


def test_a_name_that_says_nothing_is_decided_by_the_first_bytes(tmp_path: Path) -> None:
    put(tmp_path, "Ep. 12 final", "recording", "talk.mp4 (1)", "2024-05-01.1", content=OGG)
    put(tmp_path, "photo.heic", "half.mp4.part", content=OGG)  # these say what they are
    put(tmp_path, "README", "photograph", content=b"\0\0\0\x18ftypheic")
    listing = listed(tmp_path)
    assert names(tmp_path, listing.media) == ["2024-05-01.1", "Ep. 12 final", "recording", "talk.mp4 (1)"]
    assert names(tmp_path, listing.others) == ["README", "half.mp4.part", "photo.heic", "photograph"]


def test_circles_and_second_names_count_once(tmp_path: Path) -> None:
    put(tmp_path, "a/talk.mp4", "a/talk.txt")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "0_link").symlink_to("a")
    (tmp_path / "0_talk.mp4").symlink_to("a/talk.mp4")
    os.link(tmp_path / "a/talk.mp4", tmp_path / "a/talk2.mp4")
    os.link(tmp_path / "a/talk.txt", tmp_path / "a/talk2.txt")
    account = Account()
    listing = listed(tmp_path, account)
    assert names(tmp_path, listing.media) == ["a/talk.mp4"]
    # Equal texts are often one file with many names.
    assert names(tmp_path, listing.others) == ["a/talk.txt", "a/talk2.txt"]
    assert reasons(tmp_path, listing) == {
        "0_talk.mp4": "second name of a file",
        "a/talk2.mp4": "second name of a file",
        "0_link": "second way into a folder",
        "a/self": "second way into a folder",
        "a/up": "second way into a folder",
    }
    assert {Path(entry.detail).name for entry in listing.left_out if entry.kind == "files"} == {"talk.mp4"}
    assert account.document() == {
        "files": {"found": 5, "used": 0, "lost": {"second name of a file": 2}},
        "folders": {"found": 5, "used": 2, "lost": {"second way into a folder": 3}},
    }


def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "store/deep/one.mp4", "store/two.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/corpus").symlink_to(tmp_path / "store/deep")
    (tmp_path / "in/two.mp4").symlink_to(tmp_path / "store/two.mp4")
    assert names(tmp_path / "in", listed(tmp_path / "in").media) == ["two.mp4", "corpus/one.mp4"]


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.mp4", ".cache/a.mp4", "b.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket.mp4")
        os.chdir(here)
    listing = listed(tmp_path)
    assert names(tmp_path, listing.media) == ["b.mp4"]
    assert listing.line() == (
        f"left out of {tmp_path}: 2 broken links, 2 pipes, sockets or devices, 1 hidden file, 1 hidden folder"
    )


def test_a_folder_that_cannot_be_read_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a/one.mp4", "b/two.mp4")
    scan = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path) == "a":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    account = Account()
    listing = listed(tmp_path, account)
    assert names(tmp_path, listing.media) == ["b/two.mp4"]
    assert [entry[2:] for entry in listing.left_out] == [("cannot be read", "Permission denied")]
    assert account["folders"].missing == 0


def test_subfolders_are_counted_but_not_entered(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "below/b.mp4", "below/c/d.mp4")
    account = Account()
    lister = Lister(account, recursive=False)
    assert reasons(tmp_path, lister.list_folder(str(tmp_path))) == {"below": "subfolder"}
    assert names(tmp_path, lister.list_folder(str(tmp_path / "below")).media) == ["below/b.mp4"]
    assert lister.list_folder(f"{tmp_path}/./below").was_listed
    assert account["folders"].missing == 0
    assert account["files"].found == 2


def test_a_folder_of_results_is_not_entered(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "out/lips/b.mp4")
    lister = Lister(Account(), without=tmp_path / "out")
    assert reasons(tmp_path, lister.list_folder(str(tmp_path))) == {"out": "folder of the results"}


def test_names_of_any_bytes(tmp_path: Path) -> None:
    odd = [os.fsdecode(b"caf\xe9.mp4"), "two\nlines.mp4", "-x.mp4", " .mp4", "é.mp4", "e\u0301.mp4", "x" * 251 + ".mp4"]
    put(tmp_path, *odd)
    assert sorted(names(tmp_path, listed(tmp_path).media)) == sorted(odd)
