"""YAML and JSON of strangers as plain values.

YAML has parts that cost far more than the file: aliases that repeat each other, merge keys, nesting, and numbers of
thousands of digits. Here the events of the parser are counted while they come, so that no part of a file costs more
than its limit allows.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from avsr.errors import AvsrError, ConfigError
from avsr.untrusted.values import shown

MAX_YAML_BYTES = 256 << 10
MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_ALIASES = 100
MAX_NUMBER_LETTERS = 60
MAX_KEY_NUMBER = 1 << 60

# The parser of libyaml gives the same events, twenty times as fast.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("null", "bool", "int", "float", "str")}


def parse_yaml(
    data: bytes, where: str, error: type[AvsrError] = ConfigError, *, most_bytes: int = MAX_YAML_BYTES
) -> Any:
    """The plain value that a YAML text stands for: of dicts, lists, texts, numbers, booleans and None.

    A date is a text. where: names the text in errors. Raises `error` if the text is too large, no YAML, or has what no
    configuration needs: merge keys, other tags, one key twice.
    """
    if len(data) > most_bytes:
        raise error(f"{where}: too large", got=f"{len(data)} bytes", expected=f"{most_bytes} bytes at most")
    try:
        return _Builder().build(yaml.parse(data.decode("utf-8"), Loader=_PARSER))
    except _RefusedError as reason:
        raise error(f"{where}: {reason.what}", got=reason.got, expected=reason.expected) from None
    except UnicodeDecodeError as reason:
        raise error(f"{where}: not valid YAML", got=f"no UTF-8 at byte {reason.start}") from None
    except (yaml.YAMLError, ValueError, RecursionError, MemoryError, OverflowError) as reason:
        raise error(f"{where}: not valid YAML", got=_place_of(reason)) from None


def parse_json(data: bytes | str, where: str, error: type[AvsrError] = ConfigError) -> Any:
    """The plain value that a JSON text stands for. The caller has bounded its size.

    Raises `error` if it is no JSON, has numbers that are not finite, or one key twice.
    """
    try:
        return _decoder().decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    # Nesting raises RecursionError, or MemoryError in the C parser.
    except (ValueError, RecursionError, MemoryError) as reason:
        got = "too deep nesting" if isinstance(reason, RecursionError | MemoryError) else shown(reason)
        raise error(f"{where}: not JSON", got=got) from None


@functools.cache
def _decoder() -> json.JSONDecoder:
    """One for all texts: a manifest has a text a line, and making a decoder takes longer than reading a line."""
    return json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_int, object_pairs_hook=_unique)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"the number {name}, which JSON does not have")


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_LETTERS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} twice")
    return content


class _RefusedError(Exception):
    """A part of YAML that is not read."""

    def __init__(self, what: str, event: Any, *, got: object = None, expected: str | None = None) -> None:
        mark = event.start_mark
        self.what = f"line {mark.line + 1}: {what}"
        self.got, self.expected = got, expected
        super().__init__(what)


class _Open:
    """A list or mapping whose end has not come yet."""

    def __init__(self, value: list[Any] | dict[Any, Any], anchor: str | None) -> None:
        self.value, self.anchor = value, anchor
        self.size = 1  # values inside, itself included, aliases as often as they stand for it
        self.key: Any = None
        self.has_key = False

    def add(self, value: Any, event: Any) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.has_key:
            self.value[self.key] = value
            self.has_key = False
        else:
            if isinstance(value, list | dict):
                raise _RefusedError("a key that is no text", event, expected="key: value")
            # Larger numbers may all have one hash, so that each key would be compared with all others.
            if isinstance(value, int | float) and abs(value) >= MAX_KEY_NUMBER:
                raise _RefusedError("a key that is a large number", event, got=shown(value))
            if value in self.value:
                raise _RefusedError(f"the key {shown(value)} twice", event, expected="each key once")
            self.key, self.has_key = value, True


class _Builder:
    """Makes values of events, without recursion."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliases = self._values = 0
        self._scalars = yaml.SafeLoader("")  # knows how a plain scalar reads, and makes its value

    def build(self, events: Iterator[Any]) -> Any:
        result: list[Any] = []
        for event in events:
            match event:
                case yaml.ScalarEvent():
                    self._place(self._scalar(event), event, event.anchor, 1, result)
                case yaml.AliasEvent():
                    self._place(*self._alias(event), result)
                case yaml.CollectionStartEvent():
                    self._begin(event)
                case yaml.CollectionEndEvent():
                    ended = self._open.pop()
                    self._place(ended.value, event, ended.anchor, ended.size, result, is_counted=True)
                case yaml.DocumentStartEvent() if result:
                    raise _RefusedError("a second document", event, expected="one")
        return result[0] if result else None

    def _begin(self, event: Any) -> None:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", _TAG + ("seq" if is_list else "map")):
            raise _RefusedError("a tag is not read", event, got=shown(event.tag), expected="plain values")
        if len(self._open) >= MAX_DEPTH:
            raise _RefusedError("nested too deep", event, expected=f"{MAX_DEPTH} levels at most")
        self._count(1, event)
        self._open.append(_Open([] if is_list else {}, event.anchor))

    def _place(
        self, value: Any, event: Any, anchor: str | None, size: int, result: list[Any], *, is_counted: bool = False
    ) -> None:
        """Add a value to the list or mapping around it."""
        if not is_counted:
            self._count(size, event)
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._open:
            result.append(value)
            return
        self._open[-1].size += size
        self._open[-1].add(value, event)

    def _count(self, size: int, event: Any) -> None:
        self._values += size
        if self._values > MAX_VALUES:
            raise _RefusedError("too many values", event, expected=f"{MAX_VALUES} at most, aliases counted as copies")

    def _alias(self, event: Any) -> tuple[Any, Any, None, int]:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _RefusedError("too many aliases", event, expected=f"{MAX_ALIASES} at most")
        if event.anchor not in self._anchors:  # also inside the value that it names, which would have no end
            raise _RefusedError("an alias of nothing", event, got=shown(event.anchor))
        value, size = self._anchors[event.anchor]
        return value, event, None, size

    def _scalar(self, event: Any) -> Any:
        text, tag = event.value, event.tag
        if tag in (None, "!"):
            tag = self._scalars.resolve(yaml.ScalarNode, text, event.implicit) if event.implicit[0] else _TAG + "str"
        if tag == _TAG + "merge":
            raise _RefusedError("a merge key (<<) is not read", event, expected="the keys themselves")
        if tag in (_TAG + "str", _TAG + "timestamp", _TAG + "value"):  # the last two: a date, and a lonely "="
            return text
        if tag not in _PLAIN:
            raise _RefusedError("a tag is not read", event, got=shown(tag), expected="plain values")
        if tag in (_TAG + "int", _TAG + "float") and len(text) > MAX_NUMBER_LETTERS:
            raise _RefusedError(
                "a number is too long", event, got=f"{len(text)} letters", expected=f"{MAX_NUMBER_LETTERS} at most"
            )
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, text, event.start_mark, event.end_mark))
        except (ValueError, KeyError, IndexError, OverflowError):
            kind = tag.removeprefix(_TAG)
            raise _RefusedError("a wrong value", event, got=shown(text), expected=kind) from None


def _place_of(reason: Exception) -> str:
    """What is wrong, and in which line."""
    mark, problem = getattr(reason, "problem_mark", None), getattr(reason, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}, column {mark.column + 1}: {shown(ValueError(problem))}"
    return shown(ValueError(re.sub(r"\s+", " ", str(reason))))
