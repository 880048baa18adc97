"""The documentation says what is: its commands, options, files and names exist, and every command is in it."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

import avsr
from avsr import output
from avsr.cli.main import COMMANDS, argument_parser, command_actions, command_module

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
FOLDERS = "benchmarks|examples|experiments|recipes|scripts|tools"
"""Folders of programs that the pages may name."""

PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "recipes" / "README.md"]

LINES = [(command, action) for command in COMMANDS for action in command_actions(command) or [None]]
"""Every command with each of its actions; None for a command without actions."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code_blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for language, code in found if language in languages]


def command_lines(page: Path) -> list[list[str]]:
    """The words of every avsr and make command: after `$ ` in code blocks, and in inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = [block.replace("\\\n", " ") for block in code_blocks(page, "console")]
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`]+)`", prose)
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith(("avsr ", "make "))]
    return [words[: words.index(">")] if ">" in words else words for words in commands]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_gap_is_left_to_fill(page: Path) -> None:
    assert re.findall(r"\{\{.*?\}\}", page.read_text(encoding="utf-8"), re.DOTALL) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page: Path) -> None:
    for program, *words in command_lines(page):
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
        elif words[0] in COMMANDS:
            action = words[1] if words[1:2] and words[1] in command_actions(words[0]) else None
            known = argument_parser(words[0], action).format_help()
            for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
                assert re.search(rf"{option}\b", known), f"avsr {words[0]} {action or ''} has no {option}"
        else:
            assert words[0] in ("--help", "--version"), f"no command {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_scripts_and_their_options_exist(page: Path) -> None:
    for script, options in re.findall(
        rf"\bpython3? ((?:{FOLDERS})/\S+\.py)([^\n#`]*)", page.read_text(encoding="utf-8")
    ):
        code = (ROOT / script).read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z][a-z0-9-]*", options):
            assert f'"{option}"' in code, f"{script} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_options_in_prose_exist(page: Path) -> None:
    known = argument_parser().format_help()
    known += "".join(argument_parser(command, action).format_help() for command, action in LINES)
    for option in re.findall(r"`(--[a-z-]+)", page.read_text(encoding="utf-8")):
        assert re.search(rf"{option}\b", known), f"nothing has {option}"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_documentation_shows_every_command(command: str) -> None:
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]
    assert [words for page in pages for words in command_lines(page) if words[:2] == ["avsr", command]]


@pytest.mark.parametrize("format_name", output.FORMATS)
def test_readme_explains_every_format(format_name: str) -> None:
    assert re.search(rf"^\| .*`{format_name}`", README.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_mentioned_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    paths = re.findall(rf"\b(?:avsr|configs|data|docs|tests|{FOLDERS})/[\w./-]*\w", text)
    if page.name == "CHANGELOG.md":
        paths = []  # what was new in a version may lie elsewhere now
    for path in links + paths:
        base = page.parent if path in links else ROOT
        assert (base / path).exists(), f"{path} is not there"


def test_python_examples_use_names_that_exist() -> None:
    for page in PAGES:
        for code in code_blocks(page, "python"):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "avsr":
                    assert node.attr in avsr.__all__


def test_version_is_the_same_everywhere() -> None:
    assert f"avsr {avsr.__version__}\n" in README.read_text(encoding="utf-8")
    assert f"version: {avsr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(
        rf"^## \[{avsr.__version__}\]|^## \[Unreleased\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


@pytest.mark.parametrize(("command", "action"), LINES)
def test_examples_in_help_can_be_parsed(command: str, action: str | None) -> None:
    example = command_module(command).EXAMPLE if action is None else command_actions(command)[action].example
    first = ["avsr", command] if action is None else ["avsr", command, action]
    words = shlex.split(example)
    assert words[: len(first)] == first
    assert f"example:\n  {example}\n" in argument_parser(command, action).format_help()
    argument_parser(command, action).parse_intermixed_args(words[len(first) :])


@pytest.mark.parametrize("command", [command for command in COMMANDS if command_actions(command)])
def test_example_of_a_command_with_actions_is_one_of_an_action(command: str) -> None:
    assert command_module(command).EXAMPLE in {action.example for action in command_actions(command).values()}
