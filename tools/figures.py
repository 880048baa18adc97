"""Figures of a checkout's code: sizes, types, tests, docstrings, comments, dependencies, README and riddles.

    python tools/figures.py                 # the checkout in the current folder
    python tools/figures.py BEFORE AFTER    # two checkouts side by side

A checkout is a folder with the package `avsr`. All figures but the test, dependency and README lines are of that
package. Every line of a file or function counts, from `def` to the last statement; nested functions count too. Code
lines are all lines with something in them. A function is public if it is not nested in a function and no part of its
name within the file begins with an underscore.

After the table come the functions of more than 80 lines and the files of more than 450, the longest first. A long one
says why, in its docstring or a comment: the sentence has the words "Longer than" ("Longer than a screen, because ...").
The comment stands in the function or directly above it; for a file, above its first function or class.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import riddles

MAX_FUNCTION_LINES = 80
MAX_FILE_LINES = 450
REASON = "Longer than"

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


class Function(NamedTuple):
    """One function or method.

    name: with its classes and outer functions, "Session.push_audio".
    line: of `def`, from 1.
    arguments, annotated: number of arguments without `self` and `cls`, and how many of them have a type.
    has_reason: whether its docstring or a comment says why it is long.
    """

    name: str
    line: int
    lines: int
    arguments: int
    annotated: int
    is_public: bool
    has_docstring: bool
    has_reason: bool


class Module(NamedTuple):
    """One Python file. comments: lines with a comment. code_lines: lines with something in them."""

    path: Path
    lines: int
    code_lines: int
    comments: int
    has_reason: bool
    functions: tuple[Function, ...]


class Figures(NamedTuple):
    """The figures of a checkout as (name, value) in the order of the table, and the modules of its package."""

    rows: tuple[tuple[str, str], ...]
    modules: tuple[Module, ...]


def measure(checkout: Path) -> Figures:
    """All figures of a checkout. Raises FileNotFoundError if it has no package `avsr`."""
    package = checkout / riddles.PACKAGE
    if not package.is_dir():
        raise FileNotFoundError(f"{package}: no such folder; expected a checkout with the package {riddles.PACKAGE}")
    modules = tuple(read_module(path) for path in sorted(package.rglob("*.py")))
    functions = [function for module in modules for function in module.functions]
    public = [function for function in functions if function.is_public]
    lines = sum(module.lines for module in modules)
    test_lines = sum(len(_read(path).splitlines()) for path in (checkout / "tests").rglob("*.py"))
    readme = _read(checkout / "README.md")
    docstrings = [text for text in riddles.texts_of(package) if text.kind == "docstrings"]
    rows = (
        ("package files", str(len(modules))),
        ("package lines", str(lines)),
        ("function lines, median / p90 / max", _spread([function.lines for function in functions])),
        ("file lines, median / p90 / max", _spread([module.lines for module in modules])),
        (
            "arguments annotated %",
            _percent(sum(function.annotated for function in functions), sum(f.arguments for f in functions)),
        ),
        ("test lines / package lines", _ratio(test_lines, lines, "{:.2f}")),
        ("public functions with docstring %", _percent(sum(f.has_docstring for f in public), len(public))),
        (
            "comments per 100 code lines",
            _ratio(100 * sum(m.comments for m in modules), sum(m.code_lines for m in modules), "{:.1f}"),
        ),
        ("core dependencies", str(len(core_dependencies(checkout / "pyproject.toml")))),
        ("README lines (words)", f"{len(readme.splitlines())} ({len(readme.split())})"),
        ("riddles per 1000 docstring words", f"{riddles.count(docstrings).rate:.1f}"),
        (f"functions over {MAX_FUNCTION_LINES} lines", str(len(long_functions(modules)))),
        (f"files over {MAX_FILE_LINES} lines", str(len(long_files(modules)))),
    )
    return Figures(rows, modules)


def read_module(path: Path) -> Module:
    """The figures of one Python file. Raises SyntaxError if it cannot be parsed."""
    source = _read(path)
    tree = ast.parse(source, filename=str(path))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    lines = source.splitlines()
    starts = [node.lineno for node in tree.body if isinstance(node, FunctionNode | ast.ClassDef)]
    return Module(
        path,
        len(lines),
        sum(bool(line.strip()) for line in lines),
        len(comments),
        _has_reason(tree, comments, 1, min(starts, default=len(lines))),
        tuple(_functions(tree, comments)),
    )


def core_dependencies(pyproject: Path) -> list[str]:
    """The requirements of `[project] dependencies`; empty if there is no file or no such list.

    A TOML array of strings is a Python list too, comments included; Python 3.10 has no TOML reader.
    """
    found = re.search(r"^dependencies\s*=\s*(\[[^\n]*\]\s*$|\[.*?^\])", _read(pyproject), re.MULTILINE | re.DOTALL)
    return list(ast.literal_eval(found[1])) if found else []


def long_functions(modules: Sequence[Module]) -> list[tuple[Module, Function]]:
    """The functions of more than MAX_FUNCTION_LINES lines, the longest first."""
    found = [(module, f) for module in modules for f in module.functions if f.lines > MAX_FUNCTION_LINES]
    return sorted(found, key=lambda pair: -pair[1].lines)


def long_files(modules: Sequence[Module]) -> list[Module]:
    """The files of more than MAX_FILE_LINES lines, the longest first."""
    return sorted((module for module in modules if module.lines > MAX_FILE_LINES), key=lambda module: -module.lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table and the long functions and files. Returns 2 if a checkout cannot be read, else 0."""
    parser = argparse.ArgumentParser(description="Figures of one checkout, or of two side by side.")
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(".")], metavar="CHECKOUT")
    arguments = parser.parse_args(argv)
    try:
        figures = [measure(checkout) for checkout in arguments.checkouts]
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    print(f"{'':36}" + "".join(f" {checkout.resolve().name:>18}" for checkout in arguments.checkouts))
    for (name, _), *values in zip(figures[0].rows, *(each.rows for each in figures), strict=True):
        print(f"{name:36}" + "".join(f" {value:>18}" for _, value in values))
    for checkout, each in zip(arguments.checkouts, figures, strict=True):
        for module, function in long_functions(each.modules):
            place = f"{module.path}:{function.line}: {function.name}"
            print(f"{function.lines:5} lines  {_reason_word(function.has_reason)}  {place}")
        for module in long_files(each.modules):
            print(f"{module.lines:5} lines  {_reason_word(module.has_reason)}  {module.path}")
        if not long_functions(each.modules) and not long_files(each.modules):
            print(f"{checkout}: no function over {MAX_FUNCTION_LINES} lines, no file over {MAX_FILE_LINES}")
    return 0


def _functions(tree: ast.AST, comments: dict[int, str], outer: str = "", is_public: bool = True) -> Iterator[Function]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FunctionNode | ast.ClassDef):
            name = f"{outer}{node.name}"
            is_own_public = is_public and not node.name.startswith("_")
            if isinstance(node, FunctionNode):
                yield _function(node, name, comments, is_public=is_own_public)
            yield from _functions(node, comments, f"{name}.", is_own_public and isinstance(node, ast.ClassDef))
        else:
            yield from _functions(node, comments, outer, is_public)


def _function(node: FunctionNode, name: str, comments: dict[int, str], *, is_public: bool) -> Function:
    positional = [*node.args.posonlyargs, *node.args.args]
    if positional and positional[0].arg in ("self", "cls"):
        del positional[0]
    every = [*positional, *node.args.kwonlyargs, *filter(None, (node.args.vararg, node.args.kwarg))]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    while first - 1 in comments:  # the comment directly above
        first -= 1
    end = node.end_lineno or node.lineno
    return Function(
        name,
        node.lineno,
        end - node.lineno + 1,
        len(every),
        sum(argument.annotation is not None for argument in every),
        is_public,
        ast.get_docstring(node) is not None,
        _has_reason(node, comments, first, end),
    )


def _has_reason(node: FunctionNode | ast.Module, comments: dict[int, str], first: int, end: int) -> bool:
    """Whether the docstring of `node`, or a comment from line `first` to line `end`, has the words of REASON."""
    return REASON in (ast.get_docstring(node) or "") or any(
        REASON in comments.get(k, "") for k in range(first, end + 1)
    )


def _reason_word(has_reason: bool) -> str:
    return "says why  " if has_reason else "no reason "


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _spread(counts: Sequence[int]) -> str:
    """Median, 90th percentile (the nearest rank) and maximum."""
    if not counts:
        return "-"
    ordered = sorted(counts)
    p90 = ordered[-(-9 * len(ordered) // 10) - 1]
    return f"{statistics.median_low(ordered)} / {p90} / {ordered[-1]}"


def _percent(part: int, whole: int) -> str:
    return _ratio(100 * part, whole, "{:.0f}")


def _ratio(part: float, whole: float, form: str) -> str:
    return form.format(part / whole) if whole else "-"


if __name__ == "__main__":
    sys.exit(main())
