"""The readers of strangers' model files: what is hostile is refused in one line, soon, and what is honest is read."""

from __future__ import annotations

import gzip
import io
import os
import random
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from avsr.config import build, read_yaml
from avsr.decoding.tokenizer import SentencePieceTokenizer, WordTokenizer
from avsr.errors import AvsrError, ConfigError, ModelError
from avsr.families.own.config import ModelConfig
from avsr.shipped import ASSETS, CONFIGURATIONS
from avsr.text import one_line, without_controls
from avsr.untrusted import files, settings
from avsr.untrusted.archive import Archive
from avsr.untrusted.files import open_file, read_file
from avsr.untrusted.settings import parse_json, parse_yaml
from tests.nemo_archive import write_archive

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" for number in range(1, 12)
)
MERGES = "m0: &m0 {a: 1}\n" + "".join(
    f"m{number}: &m{number} {{<<: [{', '.join([f'*m{number - 1}'] * 9)}]}}\n" for number in range(1, 10)
)

HOSTILE_YAML = {
    "aliases of aliases": (ALIASES, "too many values"),
    "many aliases": ("a: &a 1\nb: [" + "*a, " * 200 + "]", "too many aliases"),
    "merge keys of merge keys": (MERGES, "merge key"),
    "a merge key": ("a: &a {b: 1}\nc: {<<: *a}", "merge key"),
    "itself": ("a: &a [*a]", "an alias of nothing"),
    "8 MB": ("# x\n" * 2_000_000, "too large"),
    "a date that is none": ("vocabulary_size: 2020-13-45", "wrong value for vocabulary_size"),
    "6000 digits": ("layers: " + "9" * 6000, "a number is too long"),
    "digits in base 60": ("layers: 1" + ":59" * 3000, "a number is too long"),
    "hexadecimal digits": ("layers: 0x" + "f" * 6000, "a number is too long"),
    "lists in lists": ("[" * 100_000, "nested too deep"),
    "lists in lines": ("- " * 100_000, "nested too deep"),
    "mappings in lines": ("".join(" " * level + "x:\n" for level in range(300)), "nested too deep"),
    "keys of keys": ("? " * 100_000, "nested too deep"),
    "a key that is a list": ("? [a]\n: 1", "a key that is no text"),
    "keys of one hash": ("".join(f"{k * (2**61 - 1)}: 1\n" for k in range(1, 9000)), "a key that is a large number"),
    "one key twice": ("name: a\nname: b", "the key 'name' twice"),
    "an object": ("a: !!python/object/apply:os.system [ls]", "a tag is not read"),
    "a set": ("a: !!set {b}", "a tag is not read"),
    "a number that is none": ("a: !!int b", "a wrong value: got 'b', expected int"),
    "a flag that is none": ("a: !!bool b", "a wrong value: got 'b', expected bool"),
    "a null byte": ("a: \0", "not valid YAML"),
    "an escape": ("a: \x1b[2J", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "a second document"),
    "no end": ("a: [1", "not valid YAML: got line 2"),
    "an escaped escape": ('name: "\\e]0;x\\a"', "wrong value for name"),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, newline="")
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match=message) as caught:
            build(ModelConfig, read_yaml(path), str(path))
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("data", [b"\xff\xfea\0:\0", b"a: \xc3\x28", "a: 1".encode("utf-16")])
def test_yaml_in_another_encoding(data: bytes) -> None:
    with pytest.raises(ConfigError, match="not valid YAML: got no UTF-8 at byte"):
        parse_yaml(data, "x")


def test_every_shipped_configuration_reads_as_before() -> None:
    paths = [*ASSETS.rglob("*.yaml"), *CONFIGURATIONS.glob("*.yaml")]
    assert len(paths) > 5
    for path in paths:
        data = path.read_bytes()
        assert repr(parse_yaml(data, "x")) == repr(yaml.safe_load(data))


def test_yaml_at_random_reads_as_the_library_does() -> None:
    draw = random.Random(1)

    def value(level: int) -> Any:
        kind = draw.randrange(9 if level < 4 else 7)
        plain = [None, True, draw.randrange(-9, 99), draw.random() * 1e9, "x: y", "12", "한국어 \N{SNOWMAN}"]
        if kind < 7:
            return plain[kind]
        items = [value(level + 1) for _ in range(draw.randrange(4))]
        return items if kind == 7 else {f"k{index}": item for index, item in enumerate(items)}

    for _ in range(200):
        content = {"a": value(0), "b": value(0)}
        text = yaml.safe_dump(content, allow_unicode=draw.random() < 0.5, default_flow_style=draw.random() < 0.5)
        assert parse_yaml(text.encode(), "x") == yaml.safe_load(text) == content


def test_aliases_of_an_honest_file() -> None:
    shared = {"left": 4, "right": 2}
    text = yaml.safe_dump({"audio": shared, "lips": shared})
    assert "*id001" in text
    assert parse_yaml(text.encode(), "x") == {"audio": shared, "lips": shared}


def test_the_vocabulary_of_a_multilingual_archive_is_short_enough() -> None:
    from avsr.families.nemo.config import MAX_CONFIG_BYTES

    units = [f"\u2581{number:05x}" for number in range(8192)]
    text = yaml.safe_dump({"labels": units, "joint": {"vocabulary": units}, "decoder": {"vocabulary": units}})
    assert parse_yaml(text.encode(), "x", most_bytes=MAX_CONFIG_BYTES)["labels"] == units


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "too deep nesting"),
        ('{"a": ' * 100_000, "too deep nesting"),
        ("9" * 6000, "a number of 6000 digits"),
        ('{"a": NaN}', "the number NaN"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_hostile_json(text: str | bytes, message: str) -> None:
    with pytest.raises(ModelError, match=f"x: not JSON: got .*{message}|{message}"):
        parse_json(text, "x", ModelError)


# -- files ------------------------------------------------------------------------------------------------------------


def special(folder: Path, kind: str) -> Path:
    path = folder / kind.replace(" ", "-")
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a loop":
        path.symlink_to(path)
    elif kind == "a broken link":
        path.symlink_to("nowhere")
    elif kind == "a sparse file":
        with path.open("wb") as file:
            file.truncate(6 << 30)
    return path


KINDS = {
    "a pipe": "got a pipe",
    "a device": "got a device",
    "a folder": "got a folder",
    "a loop": "Too many levels",
    "a sparse file": "too large",
    "nothing": "no such file",
    "a broken link": "link to a missing file",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", [read_yaml, WordTokenizer.read, SentencePieceTokenizer.read, Archive])
def test_folders_hold_more_than_files(reader: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avsr.untrusted.archive.MAX_ARCHIVE_BYTES", 5 << 30)
    with pytest.raises(AvsrError, match=KINDS[kind]):
        reader(special(tmp_path, kind))


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"content")
    (tmp_path / "link").symlink_to("blob")  # as the cache of the hub has them
    assert read_file(tmp_path / "link", 7) == b"content"
    with pytest.raises(ModelError, match="too large: got 7 bytes, expected 6 bytes at most"):
        read_file(tmp_path / "link", 6)


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    monkeypatch.setattr(files, "_check", lambda *arguments: None)  # it was shorter then
    with pytest.raises(ModelError, match="too large"):
        read_file(path, 4)


def test_names_that_no_file_has(tmp_path: Path) -> None:
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(ModelError, match="cannot be read"):
            open_file(tmp_path / name, 10)


# -- archives ---------------------------------------------------------------------------------------------------------


def header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


HOSTILE_ARCHIVES = {
    "a chain of long names": (header("././@LongLink", 10, b"L") + b"a" * 10 + bytes(502)) * 5000,
    "a chain of long links": (header("././@LongLink", 10, b"K") + b"a" * 10 + bytes(502)) * 5000,
    "a chain of pax headers": (header("pax", 19, b"x") + b"19 path=aaaaaaaaaa\n" + bytes(493)) * 5000,
    "many members": b"".join(header(f"f{number}", 0, b"0") for number in range(5000)),
    "many folders": b"".join(header(f"f{number}", 0, b"5") for number in range(5000)),
    "gzip in small parts": gzip.compress(b"") * 20_000,
    "gzip of zeros": gzip.compress(bytes(200_000_000), 9),
    "gzip behind gzip": gzip.compress(bytes(100)) + gzip.compress(bytes(100)),
    "gzip of gzip of zeros": gzip.compress(gzip.compress(bytes(200_000_000), 9), 9),
    "gzip cut off": gzip.compress(random.Random(1).randbytes(5000))[:3000],
}


@pytest.mark.parametrize("data", HOSTILE_ARCHIVES.values(), ids=HOSTILE_ARCHIVES)
def test_hostile_archives(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.nemo"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="x.nemo: ") as caught, Archive(path) as archive:
        archive.read("model_config.yaml", 1 << 20)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_honest_archive_is_read(is_compressed: bool, tmp_path: Path) -> None:
    with Archive(write_archive(tmp_path / "x.nemo", compressed=is_compressed)) as archive:
        assert b"EncDecCTCModelBPE" in archive.read("model_config.yaml", 1 << 20)


# -- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit", ["\x1b]0;x\x07", "a\x9b2J", "a\rb", "a\u202eb", "\u2066a", "a\x7f", "a\u2028b", "a\x85b", "a\0b", "\x08"]
)
def test_units_that_a_terminal_obeys(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.txt"
    path.write_text(f"bin\n{unit}\nred\n", encoding="utf-8", newline="")
    with pytest.raises(ModelError, match="vocabulary is wrong: got unit 1") as caught:
        WordTokenizer.read(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("unit", ["한국어", "e\u0301", "می\u200cروم", "क्\u200dष", "\N{WOMAN}\u200d\N{ROCKET}", "don't"])
def test_units_of_all_scripts(unit: str) -> None:
    assert WordTokenizer(["bin", unit]).decode([1]) == unit
    assert without_controls(unit) == unit
    assert one_line(unit).replace("é", "e\u0301") == unit


def trained_pieces(**options: Any) -> bytes:
    """A SentencePiece model of a few pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["place blue by r nine again"] * 3), model_writer=model, vocab_size=290,
        bos_id=-1, eos_id=-1, minloglevel=2, hard_vocab_limit=False, **options,
    )  # fmt: skip
    return model.getvalue()


def test_pieces_that_a_terminal_obeys() -> None:
    with pytest.raises(ModelError, match="vocabulary is wrong: got unit 1,"):
        SentencePieceTokenizer(trained_pieces(user_defined_symbols=["\x1b[2J"]))


def test_bytes_that_form_an_escape() -> None:
    tokenizer = SentencePieceTokenizer(trained_pieces(byte_fallback=True))
    escape = [tokenizer._processor.piece_to_id(piece) for piece in ("<0x1B>", "<0x5B>", "<0x32>", "<0x4A>")]
    assert tokenizer.decode(escape) == "[2J"


def test_limits_have_one_place() -> None:
    assert settings.MAX_YAML_BYTES == 256 << 10
