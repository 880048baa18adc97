"""Whole-file writes: the old file or the new one, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from avsr.files import write_text, write_whole


def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), write_whole(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError("the disk is full, say")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_ends_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "results.json"
    with write_whole(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_text_is_utf_8_with_unix_line_ends_and_survives_lone_surrogates(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "één\n\udcff")
    assert target.read_bytes() == "één\n\\udcff".encode()


def test_the_longest_name_that_fits_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("a" * 255)
    write_text(target, "x")
    assert target.read_text() == "x"
