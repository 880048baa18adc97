"""The developer tools, on small texts and folders made here."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """The tool that a test names with `@uses`."""
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module(request.param)


def uses(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tool", [name], indirect=True, ids=[name])


MODULE = '''\
"""Reads sound. A file whose rate is wrong is refused."""

RATE_HZ = 16_000
"""Samples a second."""

LIMIT = 3  # so many files are
# open at once, besides the log


class Reader:
    """A reader."""

    def read(self, path: str, *, limit=None):
        """Plain English."""

        def inner(block: bytes) -> bytes:
            return block

        return inner(path.encode())

    def _close(self) -> None:
        # noqa: those of a tool are no prose
        pass


def open_all(
    *paths: str,
) -> None:
    print("a string, whose words are not counted")
'''

PAGE = """\
# Title

Plain English, two
lines.

```console
$ whose code is not counted
```

What is left of it is
all that there is.
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout: one module, a test, a README, a page and dependencies."""
    for name, text in {
        "avsr/__init__.py": "",
        "avsr/reader.py": MODULE,
        "tests/test_reader.py": "assert True\n" * 3,
        "README.md": "Plain English here.\n\nTwo lines more.\n",
        "docs/page.md": PAGE,
        "pyproject.toml": '[project]\ndependencies = [\n    # Arrays.\n    "numpy<2",\n    "av[x]>=17", # media\n]\n'
        'dev = [\n    "pytest",\n]\n',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@uses("riddles")
def test_a_riddle_is_found_and_its_plain_form_is_not(tool: ModuleType, tmp_path: Path) -> None:
    riddle = tool.Text(tmp_path, "Markdown", 1, "First. Keeps what is\nleft, as those of the last chunk. Last.")
    plain = tool.Text(tmp_path, "Markdown", 1, "First. Keeps the samples left over from the last chunk. Last.")
    found = list(tool.find_riddles(riddle))
    assert [one.name for one in found] == ["what is, what it, what comes", "that of, those of"]
    assert [one.line for one in found] == [1, 2]
    assert {one.sentence for one in found} == {"Keeps what is left, as those of the last chunk."}
    assert list(tool.find_riddles(plain)) == []


@uses("riddles")
def test_the_value_none_is_no_riddle(tool: ModuleType, tmp_path: Path) -> None:
    text = tool.Text(tmp_path, "docstrings", 7, "If it is None, all faces count.\nIf there are none, it fails.")
    assert [(one.line, one.name) for one in tool.find_riddles(text)] == [(8, "there are none, has none")]


@uses("riddles")
def test_every_phrase_finds_its_own_name_and_is_documented(tool: ModuleType, tmp_path: Path) -> None:
    for name in tool.PHRASES:
        text = tool.Text(tmp_path, "Markdown", 1, name.replace("raises X", "raises ValueError"))
        assert {one.name for one in tool.find_riddles(text)} == {name}
        assert f"    {name} " in tool.__doc__


@uses("riddles")
def test_docstrings_comments_and_pages_are_counted_by_themselves(tool: ModuleType, checkout: Path) -> None:
    found = tool.sections(checkout)
    assert list(found) == ["avsr", "README.md", "docs"]
    docstrings = [text for text in found["avsr"] if text.kind == "docstrings"]
    comments = [text for text in found["avsr"] if text.kind == "comments"]
    # 10 words, 3, 2 and 2; the comment goes on in its second line.
    assert tool.count(docstrings) == (17, 1)
    assert [(text.line, text.text) for text in comments] == [(6, "so many files are\nopen at once, besides the log")]
    assert tool.count(comments) == (10, 2)
    assert tool.count(found["README.md"]) == (6, 0)
    assert [(one.line, one.name) for text in found["docs"] for one in tool.find_riddles(text)] == [
        (10, "what is, what it, what comes"),
        (11, "all that"),
    ]
    assert tool.count(found["docs"]).rate == pytest.approx(1000 * 2 / 15)


@uses("riddles")
def test_the_exit_code_says_whether_there_are_too_many(
    tool: ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main([str(checkout / "README.md")]) == 0
    assert tool.main(["--list", str(checkout)]) == 1
    output = capsys.readouterr().out
    assert f"{checkout}/avsr/reader.py:1: whose: A file whose rate is wrong is refused." in output
    assert tool.main(["--max", "1000", str(checkout)]) == 0
    (checkout / "avsr" / "broken.py").write_text("def")
    assert tool.main([str(checkout)]) == 2


@uses("figures")
def test_figures_of_a_small_checkout(tool: ModuleType, checkout: Path) -> None:
    rows = dict(tool.measure(checkout).rows)
    lines = MODULE.count("\n")
    code_lines = sum(bool(line) for line in MODULE.splitlines())
    assert rows["function lines, median / p90 / max"] == "3 / 7 / 7"  # 2, 3, 4 and 7
    assert rows["file lines, median / p90 / max"] == f"0 / {lines} / {lines}"
    assert rows["arguments annotated %"] == "75"  # all but `limit`
    assert rows["test lines / package lines"] == f"{3 / lines:.2f}"
    assert rows["public functions with docstring %"] == "50"  # `read`, not `open_all`
    assert rows["comments per 100 code lines"] == f"{100 * 3 / code_lines:.1f}"
    assert rows["core dependencies"] == "2"
    assert rows["README lines (words)"] == "3 (6)"
    assert rows["riddles per 1000 docstring words"] == f"{1000 / 17:.1f}"


@uses("figures")
def test_long_functions_and_files_are_listed_with_their_reason(tool: ModuleType, checkout: Path) -> None:
    body = "    pass\n" * tool.MAX_FUNCTION_LINES
    source = f"def f() -> None:\n{body}\n\n# Longer than a screen: one table.\ndef g() -> None:\n{body}    pass\n"
    source += f'\n\ndef h() -> None:\n    """Longer than it\n    should be."""\n{body}'
    (checkout / "avsr" / "long.py").write_text(source)
    blank = "\n" * tool.MAX_FILE_LINES
    (checkout / "avsr" / "table.py").write_text(f'"""A table. Longer than a page, as it is data."""\n{blank}')
    (checkout / "avsr" / "text.py").write_text(
        f"{blank}x = 1\n\n\ndef f() -> None:\n    # Longer than needed.\n    ...\n"
    )
    modules = tool.measure(checkout).modules
    functions = {function.name: function.has_reason for _, function in tool.long_functions(modules)}
    assert functions == {"h": True, "g": True, "f": False}
    assert [(m.path.name, m.has_reason) for m in tool.long_files(modules)] == [("text.py", False), ("table.py", True)]


@uses("figures")
def test_two_checkouts_side_by_side(tool: ModuleType, checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(checkout), str(checkout)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert next(row for row in rows if row.startswith("core dependencies")).split() == [
        "core",
        "dependencies",
        "2",
        "2",
    ]
    assert tool.main([str(checkout / "docs")]) == 2
    assert "expected a checkout" in capsys.readouterr().err


@uses("compare_versions")
def test_one_bit_is_a_difference(tool: ModuleType) -> None:
    values = np.array([[-1.0, -np.inf]], np.float32)
    same = {mode: [values] for mode in tool.MODES}
    nearly = np.array([[np.nextafter(np.float32(-1), np.float32(0)), -np.inf]], np.float32)
    other = same | {"A": [nearly], "V": [values[:0]]}
    assert all(row.equal and row.difference == 0 for row in tool.compare(same, same))
    rows = {row.mode: row for row in tool.compare(same, other)}
    assert not rows["A"].equal and 0 < rows["A"].difference < 1e-6
    assert not rows["V"].equal and math.isnan(rows["V"].difference)
    assert rows["AV"].equal


@uses("transcription_parts")
@pytest.mark.parametrize(
    ("stacks", "part"),
    [
        ([[("<frozen importlib._bootstrap>", "f"), ("/x/avsr/media/audio.py", "f")]], "imports"),
        ([[("/x/avsr/nn/masks.py", "f"), ("/x/avsr/__init__.py", "load")]], "load the model"),
        ([[("/site/av/frame.py", "f"), ("/x/avsr/media/video.py", "f"), ("/x/avsr/lips/a.py", "g")]], "decode media"),
        ([[("/usr/threading.py", "wait"), ("/x/avsr/media/ahead.py", "f")], [("/x/avsr/lips/a.py", "f")]],
         "faces and lips"),
        ([[("/x/avsr/cli/main.py", "f")], [("/x/avsr/lips/a.py", "f")]], "rest"),
        ([[("/usr/queue.py", "get")], [("/usr/threading.py", "wait")]], "rest"),
    ],
)  # fmt: skip
def test_a_sample_counts_for_the_part_that_the_rest_waits_for(
    tool: ModuleType, stacks: list[list[tuple[str, str]]], part: str
) -> None:
    assert tool.part_of(stacks) == part


@uses("compare_versions")
def test_padded_log_probs_of_the_old_version_equal_a_list_of_the_new(tool: ModuleType) -> None:
    padded = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    lengths = np.array([3, 1])

    class Old:
        def log_probs(self, *inputs: object) -> tuple[np.ndarray, np.ndarray]:
            return padded, lengths

    class New:
        def log_probs(self, *inputs: object) -> list[np.ndarray]:
            return [padded[0], padded[1, :1]]

    old, new = (tool.log_probs(recognizer, None, None, None) for recognizer in (Old(), New()))
    assert [item.tolist() for item in old] == [item.tolist() for item in new]
    assert [len(item) for item in old] == [3, 1]


def test_parameters_become_a_list_and_paragraphs_stay() -> None:
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    from tools.docstring_lists import with_lists

    text = (
        "A session.\n\nchunk_ms: how much sound\n    at a time.\nstart_s, end_s: seconds.\n\n"
        "Raises ConfigError: never.\nA note: not a parameter because of the blank."
    )
    assert with_lists(text) == (
        "A session.\n\n- `chunk_ms`: how much sound\n    at a time.\n- `start_s`, `end_s`: seconds.\n\n"
        "Raises ConfigError: never.\nA note: not a parameter because of the blank."
    )
