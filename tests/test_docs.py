"""The documentation is true: commands are parsed, the cheap ones are run, and options, files, links and names exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import avsr
from avsr import output
from avsr.cli.main import COMMANDS, argument_parser, command_actions, command_module, main

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = "benchmarks|examples|experiments|recipes|scripts|tools"
"""Folders of programs that the pages may name."""

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(ROOT.glob("[!.]*/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINES = [(command, action) for command in COMMANDS for action in command_actions(command) or [None]]
"""Every command with each of its actions; None for a command without actions."""

DEMO = "avsr/assets/demo.mp4"
CHEAP = ("transcribe", "doctor", "models", "--version")
"""Commands that are run if a page shows their output and they need nothing but the demo clip and grid-tiny."""

FORMER_OPTIONS = ("--noises",)
"""Options that the changelog may still name."""

MAX_README_LINES = 200
MAX_ARCHITECTURE_WORDS = 1500


class Command(NamedTuple):
    """A command of a console block. words: as a shell reads them. shown: the output that the page shows, by line."""

    words: list[str]
    shown: list[str]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def console_commands(page: Path) -> Iterator[Command]:
    """Every command after `$ ` in the console blocks of a page, without redirection and assignments before it."""
    for block in code_blocks(page, "console"):
        for text in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
            line, *shown = text.splitlines()
            words = shlex.split(line, comments=True)
            words = words[: words.index(">")] if ">" in words else words
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            yield Command(words, shown)


def avsr_commands(page: Path) -> list[Command]:
    return [command for command in console_commands(page) if command.words[:1] == ["avsr"]]


def inline_commands(page: Path) -> list[list[str]]:
    """The words of every avsr and make command in inline code; often without the arguments that it needs."""
    lines = re.findall(r"`([^`]+)`", prose(page))
    return [shlex.split(line) for line in lines if line.startswith(("avsr ", "make "))]


def options_help(command: str) -> str:
    """The help of a command, or of all its actions."""
    return "".join(argument_parser(*line).format_help() for line in LINES if line[0] == command)


def assert_is_parsed(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Go through the front door, where everything but the work itself happens. A former name of an option fails too."""
    if words[0] in COMMANDS:
        actions = command_actions(words[0])
        for name_, action in actions.items():
            monkeypatch.setitem(actions, name_, action._replace(run=lambda arguments: 0))
        if not actions:
            monkeypatch.setattr(command_module(words[0]), "run", lambda arguments: 0)
    code = main(words)
    messages = capsys.readouterr().err
    assert (code, messages) == (0, ""), f"avsr {shlex.join(words)}: {messages}"


def assert_alike(got: list[str], shown: list[str]) -> None:
    """The same text; numbers may differ in the last digit or by 3 %, as they do between machines.

    A last line "..." in `shown` stands for all lines that are left out.
    """
    number = r"\d+(?:\.\d+)?"
    if shown[-1:] == ["..."]:
        shown = shown[:-1]
        got = got[: len(shown)]
    assert [re.sub(number, "N", line) for line in got] == [re.sub(number, "N", line) for line in shown]
    for line, expected in zip(got, shown, strict=True):
        values = [float(value) for value in re.findall(number, line)]
        assert values == pytest.approx([float(value) for value in re.findall(number, expected)], rel=0.03, abs=0.021)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_gap_is_left_to_fill(page: Path) -> None:
    assert re.findall(r"\{\{.*?\}\}", page.read_text(encoding="utf-8"), re.DOTALL) == []


@pytest.mark.parametrize("page", [page for page in PAGES if avsr_commands(page)], ids=name)
def test_commands_are_parsed(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in avsr_commands(page):
        assert_is_parsed(command.words[1:], monkeypatch, capsys)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("page", [page for page in PAGES if avsr_commands(page)], ids=name)
def test_shown_output_is_what_comes_out(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for (_, *words), shown in avsr_commands(page):
        if shown and words[0] in CHEAP and {*words[1:]} <= {DEMO, "--model", "grid-tiny"}:
            assert main(words) == 0
            printed = capsys.readouterr()
            notes = [line for line in shown if line.startswith("avsr: ")]
            assert_alike(printed.out.splitlines(), [line for line in shown if line not in notes])
            assert set(notes) <= set(printed.err.splitlines())


def test_readme_shows_output_of_commands() -> None:
    shown = {command.words[1] for command in avsr_commands(README) if command.shown}
    assert shown >= set(CHEAP)


def test_python_of_readme_prints_what_readme_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (code,), (shown,) = code_blocks(README, "python"), code_blocks(README, "")
    exec(compile(code, "README.md", "exec"), {})
    assert_alike(capsys.readouterr().out.splitlines(), shown.splitlines())


def test_json_of_the_pages_has_the_keys_of_real_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (shown,) = (block for block in code_blocks(ROOT / "docs/transcribe.md", "") if block.startswith("{"))
    assert main(["transcribe", DEMO, "--model", "grid-tiny", "--format", "json"]) == 0
    printed = capsys.readouterr().out
    key = r'"(\w+)":'
    assert set(re.findall(key, shown)) == set(re.findall(key, printed))
    assert re.findall(r'"schema": \d+', shown) == re.findall(r'"schema": \d+', printed)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_in_prose_exist(page: Path) -> None:
    for program, *words in inline_commands(page):
        words = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if program == "make":
            for target in words:
                assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
        elif words[0] in COMMANDS:
            known = options_help(words[0])
            for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
                assert re.search(rf"{option}\b", known), f"avsr {words[0]} has no {option}"
        else:
            assert words[0] in ("COMMAND", "--help", "--version"), f"no command {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_programs_and_their_options_exist(page: Path) -> None:
    programs = rf"\bpython3? ((?:{FOLDERS})/\S+\.py)([^\n#`]*)"
    for program, options in re.findall(programs, page.read_text(encoding="utf-8").replace("\\\n", " ")):
        code = (ROOT / program).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z][a-z0-9-]*", options):
            assert f'"{option}"' in code, f"{program} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_prose_exist(page: Path) -> None:
    known = "".join(map(options_help, COMMANDS)) + argument_parser().format_help()
    for option in re.findall(r"`(--[a-z-]+)", page.read_text(encoding="utf-8")):
        former = page.name == "CHANGELOG.md" and option in FORMER_OPTIONS
        assert former or re.search(rf"{option}\b", known), f"nothing has {option}"


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_shows_every_command(command: str) -> None:
    assert [shown for shown in avsr_commands(README) if shown.words[1] == command]


@pytest.mark.parametrize("format_name", output.FORMATS)
def test_readme_explains_every_format(format_name: str) -> None:
    assert re.search(rf"^\| .*`{format_name}`", README.read_text(encoding="utf-8"), re.MULTILINE)


def test_readme_is_for_a_stranger_in_a_hurry() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES
    first_screen = "\n".join(lines[:15])
    for limit in ("51 words", "one man's face and voice", ".nemo", "Hugging Face"):
        assert limit in first_screen


def test_architecture_can_be_read_in_one_sitting() -> None:
    assert len((ROOT / "docs/architecture.md").read_text(encoding="utf-8").split()) <= MAX_ARCHITECTURE_WORDS


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_mentioned_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    paths = re.findall(rf"\b(?:avsr|configs|data|docs|tests|{FOLDERS})/[\w./-]*\w", text)
    if page.name == "CHANGELOG.md":  # a file that was new in one version may lie elsewhere in a later one
        paths = []
    for path in links + paths:
        base = page.parent if path in links else ROOT
        assert (base / path).exists(), f"{path} is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_headings_that_are_linked_exist(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
        assert anchor in slugs, f"{path} has no heading {anchor}"


def test_python_examples_use_names_that_exist() -> None:
    for page in PAGES:
        for code in code_blocks(page, "python"):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "avsr":
                    assert node.attr in avsr.__all__


def test_version_is_the_same_everywhere() -> None:
    assert f"avsr {avsr.__version__}\n" in README.read_text(encoding="utf-8")
    assert f"version: {avsr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{avsr.__version__}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("command", "action"), LINES)
def test_examples_in_help_are_parsed(
    command: str,
    action: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    example = command_module(command).EXAMPLE if action is None else command_actions(command)[action].example
    program, *words = shlex.split(example)
    assert [program, *words][: 2 if action is None else 3] == ["avsr", command, *([] if action is None else [action])]
    assert f"example:\n  {example}\n" in argument_parser(command, action).format_help()
    assert_is_parsed(words[: words.index(">")] if ">" in words else words, monkeypatch, capsys)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command_actions(command)])
def test_example_of_a_command_with_actions_is_one_of_an_action(command: str) -> None:
    assert command_module(command).EXAMPLE in {action.example for action in command_actions(command).values()}


def test_no_file_holds_the_marks_of_a_merge() -> None:
    folders = ("avsr", "benchmarks", "configs", "docs", "examples", "scripts", "tests", "tools")
    texts = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".md", ".yaml"}
    ]
    marked = [path for path in [*texts, *ROOT.glob("*.md")] if re.search(r"(?m)^(<{7}|>{7}) ", path.read_text())]
    assert marked == []
