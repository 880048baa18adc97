"""Configuration files: YAML becomes frozen dataclasses, and every key and value is checked while loading.

The error for an unknown key names the most similar known one. The error for a wrong value names the file, the key and
the expected values.
"""

from __future__ import annotations

import dataclasses
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from avsr.errors import ConfigError, nearest
from avsr.text import has_controls
from avsr.untrusted.files import read_file
from avsr.untrusted.settings import MAX_YAML_BYTES, parse_yaml
from avsr.untrusted.values import shown

Config = TypeVar("Config")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError if it cannot be read, is too large or is no mapping."""
    path = Path(path)
    content = parse_yaml(read_file(path, MAX_YAML_BYTES, ConfigError), str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a configuration", got=type(content).__name__, expected="key: value lines")
    return content


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set keys of `content` in place.

    content: the mapping of a configuration file.
    overrides: each `a.b=value`, where the value is YAML. A number, as in `a.0.b`, is the place in a list.

    Raises ConfigError for another form and for a list item that does not exist.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"override {override!r} is not understood", expected="key=value, as in optimizer.epochs=3"
            )
        node: Any = content
        *parents, last = key.split(".")
        for parent in parents:
            # A section that the file leaves out has its defaults, and an override may set a key in it.
            node = node[_item(node, parent, override)] if isinstance(node, list) else node.setdefault(parent, {})
            if not isinstance(node, dict | list):
                raise ConfigError(f"override {override!r}: {parent} is a value, not a section")
        item = _item(node, last, override) if isinstance(node, list) else last
        node[item] = parse_yaml(value.encode("utf-8", "surrogateescape"), f"override {shown(override)}")


def _item(items: list[Any], name: str, override: str) -> int:
    """The index in `items` that `name` spells. Raises ConfigError that quotes the override."""
    if not (name.isascii() and name.isdigit() and int(name) < len(items)):
        expected = f"a number from 0 to {len(items) - 1}, of a list" if items else "something in an empty list"
        raise ConfigError(f"override {override!r}", got=name, expected=expected)
    return int(name)


def build(kind: type[Config], content: Any, where: str) -> Config:
    """The dataclass `kind` built from a mapping.

    kind: its fields may be dataclasses, tuples, dicts, literals, scalars, and unions of these with None.
    content: the mapping.
    where: names the place in errors, usually the file.

    Raises ConfigError for an unknown or missing key and for a wrong value.
    """
    return _convert(kind, content, where, "")


def as_mapping(config: Any) -> Any:
    """`config` as a mapping of dicts, lists and scalars, from which `build` makes an equal one."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: as_mapping(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: as_mapping(value) for key, value in config.items()}
    if isinstance(config, tuple | list):
        return [as_mapping(value) for value in config]
    return config


def _convert(kind: Any, value: Any, where: str, key: str) -> Any:
    """The value as the annotation `kind` wants it. Raises ConfigError that names the key."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, where, key)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, where, key)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise _wrong(where, key, value, " or ".join(str(a) for a in arguments))
    if origin is tuple and isinstance(value, list | tuple):
        if arguments[-1] is Ellipsis:
            return tuple(_convert(arguments[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
        if len(arguments) != len(value):
            raise _wrong(where, key, value, f"{len(arguments)} values")
        return tuple(
            _convert(a, item, where, f"{key}[{i}]") for i, (a, item) in enumerate(zip(arguments, value, strict=True))
        )
    if origin is dict and isinstance(value, Mapping):
        return {name: _convert(arguments[1], item, where, f"{key}.{name}") for name, item in value.items()}
    # YAML 1.1 takes 1e-3 for text.
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):  # a whole number may have hundreds of digits
            raise _wrong(where, key, value, "a number") from None
        # NaN passes most limits, because it is neither above nor below them.
        if not math.isfinite(number):
            raise _wrong(where, key, value, "a finite number")
        return number
    # bool is a subclass of int in Python, but "layers: true" is a mistake.
    if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        if isinstance(value, str) and has_controls(value):  # names and domains reach the terminal
            raise _wrong(where, key, value, "a text without control characters")
        return value
    raise _wrong(where, key, value, getattr(kind, "__name__", str(kind)))


def _convert_dataclass(kind: Any, value: Any, where: str, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, key or kind.__name__, value, "a section of key: value lines")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in fields:
            close = nearest(str(name), fields)
            raise ConfigError(
                f"{where}: unknown key {_join(key, str(name)[:80])}",
                expected=f"one of {', '.join(fields)}",
                remedy=f"did you mean {_join(key, close)}?" if close else None,
            )
    converted = {name: _convert(hints[name], item, where, _join(key, name)) for name, item in value.items()}
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in converted:
            raise ConfigError(f"{where}: key {_join(key, name)} is missing", remedy="add it")
    try:
        return kind(**converted)
    except ValueError as error:  # from the checks in __post_init__
        raise ConfigError(f"{where}: {key or kind.__name__}: {error}") from None


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _wrong(where: str, key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{where}: wrong value for {key}", got=shown(value), expected=expected)
