"""Manifests, noise plans, lists and records from strangers: refused in one line, soon; what is honest is read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avsr.catalogue.entries import read_catalogue
from avsr.catalogue.store import RECORD, read_record
from avsr.datasets.files import read_transcript_file
from avsr.datasets.grid import read_align
from avsr.datasets.manifest import (
    Utterance,
    load_lips,
    load_samples,
    parse_utterance,
    read_manifest,
    save_lips,
    write_manifest,
)
from avsr.errors import AvsrError, DataError
from avsr.families.external import spread
from avsr.noise.plan import NoisePlan, hash_manifest, read_plan, write_plan
from avsr.text import escape_controls
from avsr.untrusted import lines
from avsr.untrusted.lines import json_lines, numbered_lines

UTTERANCE = Utterance(
    id="s1/a", speaker="s1", split="test", text="bin blue", audio="a.wav", video="a.mp4", duration=1.0, fps=25.0,
    coverage=1.0, sha256="0" * 64, words=(("bin", 0.0, 0.5),), absent=((0, 3, "no_face"),),
)  # fmt: skip
PLAN = NoisePlan(
    protocol="p", level="active", manifest="m", split="test", voices="dev", folders={}, part="test", effects="",
    noises={}, unusable={}, lines=(),
)  # fmt: skip
LINE = {
    "utterance": "s1/a", "condition": "white_0", "noise": "white", "snr_db": 0, "seed": 1,
    "noises": [{"noise_sha256": "white", "offset": 1, "gain_db": 0.0}], "gain_db": 1.5, "scale_db": 0.0,
    "achieved_snr_db": 0.1, "effects": [{"effect": "clip"}], "sha256": "0",
}  # fmt: skip


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def plan_of(path: Path, **changes: Any) -> Path:
    write_plan(path, PLAN)
    return written(path, path.read_text() + json.dumps(LINE | changes) + "\n")


def row(**changes: Any) -> str:
    return json.dumps(UTTERANCE.document() | changes)


HOSTILE_LINES = {
    "lists in lists": ("[" * 100_000, "not JSON: got too deep nesting"),
    "dicts in dicts": ('{"a":' * 100_000, "not JSON: got too deep nesting"),
    "6000 digits": (row(duration=1).replace('"duration": 1', '"duration": ' + "9" * 6000), "a number of 6000 digits"),
    "no number": (row(duration=float("nan")), "the number NaN"),
    "beyond all numbers": (row(duration=1).replace('"duration": 1', '"duration": 1e999'), "wrong value of duration"),
    "one key twice": (row()[:-1] + ', "id": "b"}', "the key 'id' twice"),
    "a key that a terminal obeys": (row(**{"\x1b]0;x\x07": 1}), "unknown key"),
    "a long value": (row(fps="x" * 100_000), "wrong value of fps"),
    "another encoding": (b"\xff\xfe", "cannot read the manifest"),
    "a null byte": ("\0", "not JSON"),
    "an object of another kind": ("[]", "not a JSON object"),
    "words without times": (row(words=[["a", "b", "c"]]), "wrong value of words"),
    "a word at no time": (row(words=[["a", 0, 1]]).replace("0, 1]", "0, Infinity]"), "the number Infinity"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE_LINES.values(), ids=HOSTILE_LINES)
def test_hostile_manifests(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(written(tmp_path / "manifest.jsonl", text))
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_the_numbers_of_lines_count_those_that_are_blank(tmp_path: Path) -> None:
    path = written(tmp_path / "manifest.jsonl", "\n\n\ufeff\n".replace("\ufeff", "") + row() + "\n\n{\n")
    with pytest.raises(DataError, match=r"manifest.jsonl:6: not JSON"):
        read_manifest(path)
    with pytest.raises(DataError, match=r"manifest.jsonl:2: the id occurs twice: got s1/a, also in line 1"):
        read_manifest(written(path, row() + "\n" + row()))


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    others = [parse_utterance(json.loads(row(id=f"s1/{name}", text=name)), "x") for name in ("한국어", "می\u200cروم")]
    write_manifest(tmp_path / "manifest.jsonl", [UTTERANCE, *others])
    assert read_manifest(tmp_path / "manifest.jsonl") == [UTTERANCE, *others]


def special(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    return path


def sound(path: Path) -> Any:
    return load_samples(parse_utterance(json.loads(row(audio=str(path))), "x"), path.parent)


def lips(path: Path) -> Any:
    return load_lips(parse_utterance(json.loads(row(video=str(path))), "x"), path.parent)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing"])
@pytest.mark.parametrize(
    "reader", [read_manifest, read_plan, hash_manifest, read_align, lambda path: list(json_lines(path)), sound, lips]
)
def test_folders_hold_more_than_files(reader: Callable[[Path], Any], kind: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, OSError), match="cannot|no transcript|Too many levels"):
        reader(special(tmp_path, kind))


def test_lists_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "list", "a" * 10 + "\n" + "b" * 21)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    with pytest.raises(DataError, match="list:2: line too long: expected at most 20 bytes"):
        list(numbered_lines(path))
    monkeypatch.setattr(lines, "MAX_LIST_BYTES", 30)
    with pytest.raises(DataError, match="cannot be read: got too large: 32 bytes"):
        list(numbered_lines(path))


def test_a_long_transcript_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too large: got 1048577 bytes"):
        read_transcript_file(written(tmp_path / "a.txt", b"a" * ((1 << 20) + 1)))


HOSTILE_PLANS = {
    "effects that are none": ({"effects": 5}, "wrong value of effects: got 5"),
    "an effect that is a text": ({"effects": ["clip"]}, "wrong value of effects"),
    "noises that are none": ({"noises": None}, "wrong value of noises"),
    "a noise without its hash": ({"noises": [{"offset": 1}]}, "wrong keys"),
    "an offset that is a text": (
        {"noises": [{"noise_sha256": "white", "offset": "1", "gain_db": 0.0}]},
        "wrong value of offset",
    ),
    "a gain of nothing": ({"gain_db": float("inf")}, "the number Infinity"),
    "a gain that is true": ({"scale_db": True}, "wrong value of scale_db: got True"),
    "an id that is a list": ({"utterance": ["a"] * 1000}, "wrong value of utterance"),
    "a key too many": ({"\x1b[2J": 1}, "wrong keys"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE_PLANS.values(), ids=HOSTILE_PLANS)
def test_hostile_plans(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"plan.jsonl:2: .*{message}") as caught:
        read_plan(plan_of(tmp_path / "plan.jsonl", **changes))
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_an_honest_plan_is_read(tmp_path: Path) -> None:
    (line,) = read_plan(plan_of(tmp_path / "plan.jsonl")).lines
    assert (line.utterance, line.snr_db, line.noises[0].offset, line.effects) == ("s1/a", 0, 1, ({"effect": "clip"},))


def test_headers_of_plans(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"plan": "2"}', '{"plan": 2}', '{"plan": 99999999999999}'):
        with pytest.raises(DataError, match="plan"):
            read_plan(written(tmp_path / "plan.jsonl", text))
    write_plan(tmp_path / "plan.jsonl", PLAN)
    header = json.loads((tmp_path / "plan.jsonl").read_text())
    with pytest.raises(DataError, match="wrong value of folders"):
        read_plan(written(tmp_path / "plan.jsonl", json.dumps(header | {"folders": {"a": 1}})))


@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, '{"files": []}', '{"files": {"a": {"bytes": 1e999}}}', "9" * 6000, "[]", "\xff", "{" * 70_000],
)
def test_a_record_of_an_installed_model_that_is_damaged_counts_for_nothing(text: str, tmp_path: Path) -> None:
    assert read_record(written(tmp_path / RECORD, text.encode("latin-1"))) == {}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing"])
def test_a_record_that_is_no_file_counts_for_nothing(kind: str, tmp_path: Path) -> None:
    assert read_record(special(tmp_path, kind)) == {}


def test_the_catalogue_is_within_the_limits() -> None:
    assert len(read_catalogue()) > 3


def test_the_text_of_another_recogniser_is_safe_to_print() -> None:
    words = [spoken.word for spoken in spread("\x1b]0;x\x07bin\x9b2J \u202eblue\r\n 한국어", 1.0)]
    assert words == ["]0;xbin2J", "blue", "한국어"]
    assert np.all([word.isprintable() for word in words])


@pytest.mark.parametrize("changes", [{"noises": []}, {"gain_db": None}, {"snr_db": None}, {"achieved_snr_db": None}])
def test_a_line_of_a_plan_has_all_of_its_noise_or_none(changes: dict[str, object], tmp_path: Path) -> None:
    header = {"plan": 2, "protocol": "p", "level": "active", "manifest": "m", "split": "dev", "voices": "dev"}
    header |= {"folders": {}, "part": "test", "effects": "", "noises": {}, "unusable": {}}
    line = {"utterance": "u", "condition": "white_0", "noise": "white", "snr_db": 0.0, "seed": 1, "gain_db": -1.0}
    line |= {"noises": [{"noise_sha256": "white", "offset": 1, "gain_db": 0.0}], "scale_db": 0.0, "effects": []}
    line |= {"achieved_snr_db": 0.0, "sha256": "0"}
    path = tmp_path / "plan.jsonl"
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line)}\n")
    assert len(read_plan(path).lines) == 1
    path.write_text(f"{json.dumps(header)}\n{json.dumps(line | changes)}\n")
    with pytest.raises(DataError, match=r"plan.jsonl:2: wrong values?: expected snr_db|wrong value of"):
        read_plan(path)


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    row = {"id": "\ud800", "speaker": "s", "split": "dev", "text": "a", "audio": None, "video": None, "duration": 1.0}
    row |= {"fps": 0, "coverage": 0, "sha256": "0"}
    with pytest.raises(DataError, match="x:1: wrong value of id"):
        parse_utterance(row, "x:1")
    assert parse_utterance(row | {"id": "\udcff"}, "x:1").id == "\udcff"  # a byte of a file name


def test_lips_that_are_no_prepared_lips(tmp_path: Path) -> None:
    import av

    one = dataclasses.replace(UTTERANCE, id="u", audio=None, video="lips.mp4", duration=1.0, absent=())
    with av.open(str(tmp_path / "lips.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1024, 1024, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((1024, 1024), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="cannot read the lips of u"):
        load_lips(one, tmp_path)
    crops = np.zeros((90, 96, 96), np.uint8)
    save_lips(tmp_path / "lips.mp4", crops)
    assert len(load_lips(one, tmp_path)[0]) == 50  # a second, and one more
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'lips.mp4'}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {tmp_path / 'lips.mp4'}\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(DataError, match="cannot read the lips of u"):
            load_lips(dataclasses.replace(one, video=name), tmp_path)


def test_json_for_a_terminal_is_the_same_json() -> None:
    content = {"a": "\x9b31m\u202ex\x7f\t\n", "b": ["한국어", "\x1b"]}
    text = escape_controls(json.dumps(content, ensure_ascii=False))
    assert json.loads(text) == content
    assert text.isprintable()


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["settings.json", "units/part.jsonl"])
def test_a_folder_of_results_with_a_pipe(name: str, kind: str, tmp_path: Path) -> None:
    from avsr.evaluation import folder

    path = tmp_path / (folder.SETTINGS_NAME if name == "settings.json" else name)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(AvsrError, match="cannot be read: got|no regular file"):
        if name == "settings.json":
            folder.is_ours(tmp_path, {})
        else:
            with folder.own_units(tmp_path, "part"):
                pass
