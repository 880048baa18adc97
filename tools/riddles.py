"""Counts riddles in the English of docstrings, comments and Markdown: sentences that name a thing by what it does.

    python tools/riddles.py                    # the checkout in the current folder
    python tools/riddles.py --list avsr/media  # every riddle of one folder, as FILE:LINE: PHRASE: sentence

PATH is a checkout (a folder with a package `avsr`; its package, README.md and docs/ are counted), another folder or one
file. Exits with 1 if a total is above --max riddles per 1000 words.

The phrases, and what to write instead:

    so many, so much               the number, or the parameter's name
    whose                          two sentences, or "of the" and the noun
    that of, those of              the noun again: "the last chunk's log-probs"
    what is, what it, what comes   the noun: "the samples left over", not "what is left"
    where there is                 "if there is"
    none where, raises X where     "None if", "raises X if"
    where nothing, where neither   "if nothing", "if neither"
    there are none, has none       the noun: "there are no lips"
    besides                        "and", "also"
    anew                           "again"
    of which                       two sentences
    all that                       "all" and the noun
    as it is, as they are          the property: "unchanged", "in the file's own order"

The count is crude. It sees phrases and not meaning: some phrases that it finds are good English, and a riddle in other
words escapes it. It shows where to read. Other packages, counted the same way, have 0.2 to 0.7 in 1000 words.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

PACKAGE = "avsr"

_IS = "(?:is|are|was|were)"
_VERB = "(?:is|are|was|were|has|have|had)"
# The name of a phrase is how the docstring above spells it. "none" is in lower case only: `None` is a value.
PHRASES: dict[str, str] = {
    "so many, so much": "so (?:many|much)(?! as)",
    "whose": "whose",
    "that of, those of": "(?:that|those) of",
    "what is, what it, what comes": (
        f"what (?:{_VERB}|it|they|one|each|this|that|comes|came|happens|happened|follows|goes|makes|belongs|stands"
        "|remains|nothing|others)"
    ),
    "where there is": f"where there {_IS}",
    "none where, raises X where": r"(?:none|nothing|no|raises \w+(?: or \w+)?) where",
    "where nothing, where neither": "where (?:none|nothing|neither|not|no|that)",
    "there are none, has none": f"{_VERB} (?-i:none)|(?-i:none) {_IS}",
    "besides": "besides",
    "anew": "anew",
    "of which": "of which",
    "all that": "all that",
    "as it is, as they are": f"as (?:it|they|one) (?:{_VERB}|does|do|would)",
}
_NAMES = tuple(PHRASES)
_RIDDLE = re.compile(
    r"\b(?:" + "|".join(f"({pattern})" for pattern in PHRASES.values()).replace(" ", r"\s+") + r")(?!\w)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S*[^\W\d_]\S*")  # anything between spaces that has a letter
_SENTENCE_END = re.compile(r"[.:;!?](?=\s)|\n\s*\n")
_FENCED = re.compile(r"^[ \t]*```.*?^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_PRAGMA = re.compile(r"#\s*(?:noqa|type:|mypy:|ruff:|fmt:|pragma:|!)")


class Text(NamedTuple):
    """A piece of English in a file.

    kind: "docstrings", "comments" or "Markdown".
    line: number of the text's first line in the file, from 1.
    """

    path: Path
    kind: str
    line: int
    text: str


class Riddle(NamedTuple):
    """One phrase that was found. line: in the file, from 1. name: a key of PHRASES. sentence: on one line."""

    path: Path
    line: int
    name: str
    sentence: str


class Count(NamedTuple):
    """How many words and riddles some texts have."""

    words: int
    riddles: int

    @property
    def rate(self) -> float:
        """Riddles per 1000 words; 0 without words."""
        return 1000 * self.riddles / self.words if self.words else 0.0


def find_riddles(text: Text) -> Iterator[Riddle]:
    """The riddles of `text`, in order."""
    for match in _RIDDLE.finditer(text.text):
        ends = [end.end() for end in _SENTENCE_END.finditer(text.text, 0, match.start())]
        start = ends[-1] if ends else 0
        end = _SENTENCE_END.search(text.text, match.end())
        sentence = text.text[start : end.end() if end else len(text.text)]
        line = text.line + text.text.count("\n", 0, match.start())
        yield Riddle(text.path, line, _NAMES[(match.lastindex or 1) - 1], " ".join(sentence.split()))


def count(texts: Iterable[Text]) -> Count:
    """Words and riddles of all `texts` together."""
    words = riddles = 0
    for text in texts:
        words += len(_WORD.findall(text.text))
        riddles += sum(1 for _ in _RIDDLE.finditer(text.text))
    return Count(words, riddles)


def texts_of(path: Path) -> list[Text]:
    """The English of one file, or of all Python and Markdown files of a folder.

    Raises OSError if the path cannot be read, SyntaxError if a Python file cannot be parsed.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in (".py", ".md") and not _is_hidden(file, path))
        return [text for file in files for text in texts_of(file)]
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [Text(path, "Markdown", 1, _FENCED.sub(lambda block: "\n" * block[0].count("\n"), source))]
    return [*docstrings(path, source), *comments(path, source)]


def docstrings(path: Path, source: str) -> Iterator[Text]:
    """The docstrings of Python source, and the strings that explain a name in the line above them."""
    for node in ast.walk(ast.parse(source, filename=str(path))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield Text(path, "docstrings", statement.lineno, text)


def comments(path: Path, source: str) -> Iterator[Text]:
    """The comments of Python source. Comments that stand on lines one below the other are one text.

    Comments for tools (noqa, type: ignore) are left out.
    """
    first, parts = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT or _PRAGMA.match(token.string):
            continue
        line = token.start[0]
        if parts and line != first + len(parts):
            yield Text(path, "comments", first, "\n".join(parts))
            parts = []
        if not parts:
            first = line
        parts.append(token.string.lstrip("#: "))
    if parts:
        yield Text(path, "comments", first, "\n".join(parts))


def sections(path: Path) -> dict[str, list[Text]]:
    """The texts of a path under the titles of the report: package, README and docs of a checkout, else the path."""
    if not (path / PACKAGE).is_dir():
        return {str(path): texts_of(path)}
    parts = [path / PACKAGE, path / "README.md", path / "docs"]
    return {part.name: texts_of(part) for part in parts if part.exists()}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report. Returns 1 if a section is above --max, 2 if a file cannot be read, else 0."""
    parser = argparse.ArgumentParser(description="Riddles per 1000 words of docstrings, comments and Markdown.")
    parser.add_argument("paths", nargs="*", type=Path, default=[Path(".")], metavar="PATH", help="checkout or file")
    parser.add_argument("--max", type=float, default=2.0, metavar="N", help="most per 1000 words; default 2")
    parser.add_argument("--list", action="store_true", help="print every riddle with file and line")
    arguments = parser.parse_args(argv)

    is_over = False
    for path in arguments.paths:
        try:
            found = sections(path)
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            print(f"riddles: {path}: cannot be read: {error}", file=sys.stderr)
            return 2
        if arguments.list:
            for riddle in (riddle for texts in found.values() for text in texts for riddle in find_riddles(text)):
                print(f"{riddle.path}:{riddle.line}: {riddle.name}: {riddle.sentence}")
        print(f"{path.resolve().name:24} {'kind':12} {'words':>8} {'riddles':>8} {'per 1000':>9}")
        for title, texts in found.items():
            kinds = sorted({text.kind for text in texts})
            rows = [(kind, count(text for text in texts if text.kind == kind)) for kind in kinds]
            total = count(texts)
            for kind, counted in rows if len(rows) > 1 else []:
                print(f"{title:24} {kind:12} {counted.words:8} {counted.riddles:8} {counted.rate:9.1f}")
            label = "total" if len(rows) != 1 else rows[0][0]
            mark = f"  above {arguments.max:g}" if total.rate > arguments.max else ""
            print(f"{title:24} {label:12} {total.words:8} {total.riddles:8} {total.rate:9.1f}{mark}")
            is_over |= total.rate > arguments.max
    return int(is_over)


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether the file lies in a folder such as .venv or __pycache__."""
    return any(part.startswith((".", "__pycache__")) for part in file.relative_to(folder).parts)


if __name__ == "__main__":
    sys.exit(main())
