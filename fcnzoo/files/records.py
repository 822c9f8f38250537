"""Frozen, torch-free records that check themselves and go to JSON and back.

Everything the library knows *about* a model (its parts, geometry, labels, weights) is a
[`Record`][fcnzoo.files.records.Record]: a frozen dataclass whose fields are checked against their
type hints on construction and whose JSON form refuses what it does not know.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import re
import reprlib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

R = TypeVar("R", bound="Record")

LONGEST_NAME = 200
"""Letters up to which near names are looked for; the search takes seconds on a text of megabytes."""

_shorten = reprlib.Repr()
_shorten.maxlevel, _shorten.maxstring, _shorten.maxother, _shorten.maxlong = 4, LONGEST_NAME, LONGEST_NAME, LONGEST_NAME
_shorten.maxtuple = _shorten.maxlist = _shorten.maxdict = 20


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def shown(value: object) -> str:
    """Return a value as error texts show it: its `repr`, of which long and deep parts are left out."""
    return _shorten.repr(value)


def near(name: str, known: typing.Iterable[str]) -> str:
    """Return `" Did you mean a, b?"` for the known names nearest to `name`, or an empty text."""
    if len(name) > LONGEST_NAME:
        return ""
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=5, cutoff=0.6)
    return f" Did you mean {', '.join(close)}?" if close else ""


def _describe(hint: Any) -> str:
    """Name a type hint the way a user would write the value in JSON."""
    if get_origin(hint) is Literal:
        return " | ".join(repr(value) for value in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_describe(part) for part in get_args(hint))
    if get_origin(hint) is dict:
        key, item = map(_describe, get_args(hint))
        return f"{{{key}: {item}, …}}"
    if get_origin(hint) is tuple:
        parts = [part for part in get_args(hint) if part is not Ellipsis]
        return f"[{', '.join(_describe(part) for part in parts)}{', …' if ... in get_args(hint) else ''}]"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _fail(hint: Any, value: object, where: str) -> TypeError:
    return TypeError(f"{where} must be {_describe(hint)}, got {shown(value)} ({type(value).__name__})")


def _decode_union(hint: Any, value: Any, where: str) -> Any:
    """Decode a value against the first alternative of a union that takes it.

    Records are told apart by their `kind` field, so that an error inside one names the field
    and not merely "none of the alternatives fits".
    """
    parts = get_args(hint)
    if value is None and type(None) in parts:
        return None
    records = [part for part in parts if isinstance(part, type) and issubclass(part, Record)]
    if isinstance(value, Mapping) and records:
        kinds = {record.__dataclass_fields__["kind"].default: record for record in records} if len(records) > 1 else {}
        if not kinds:
            return _decode(records[0], value, where)
        if value.get("kind") not in list(kinds):
            raise ValueError(f"{where}.kind must be one of {sorted(kinds)}, got {shown(value.get('kind'))}")
        return _decode(kinds[value["kind"]], value, where)
    for part in parts:
        try:
            return _decode(part, value, where)
        except TypeError:
            continue
    raise _fail(hint, value, where)


def _decode_tuple(hint: Any, value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _fail(hint, value, where)
    parts = get_args(hint)
    if len(parts) == 2 and parts[1] is Ellipsis:
        return tuple(_decode(parts[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(parts) != len(value):
        raise TypeError(f"{where} must hold {len(parts)} values ({_describe(hint)}), got {len(value)}")
    return tuple(_decode(part, item, f"{where}[{i}]") for i, (part, item) in enumerate(zip(parts, value, strict=True)))


def _decode_dict(hint: Any, value: Any, where: str) -> dict[Any, Any]:
    """Decode a mapping; keys that are numbers are texts in JSON and TOML."""
    if not isinstance(value, Mapping):
        raise _fail(hint, value, where)
    key_hint, value_hint = get_args(hint)
    found: dict[Any, Any] = {}
    for key, item in value.items():
        number = key_hint is int and isinstance(key, str) and re.fullmatch(r"-?\d{1,18}", key)
        key = _decode(key_hint, int(key) if number else key, f"{where} key")
        if key in found:
            raise ValueError(f"{where} names {key} twice")
        found[key] = _decode(value_hint, item, f"{where}[{key}]")
    return found


def _decode(hint: Any, value: Any, where: str) -> Any:
    """Check `value` against a type hint and return it in that type; `where` names the field."""
    if type(value) is hint and hint is not float:
        return value  # the rule by far, and listing the zoo should take no time
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(hint, value, where)
    if origin is tuple:
        return _decode_tuple(hint, value, where)
    if origin is dict:
        return _decode_dict(hint, value, where)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in get_args(hint)):
            raise ValueError(f"{where} must be one of {list(get_args(hint))}, got {shown(value)}")
        return value
    if isinstance(hint, type) and issubclass(hint, Record):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return hint.from_dict(value, where=where)
        raise _fail(hint, value, where)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _fail(hint, value, where)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{where} must be a finite number, got {number}")
        return number
    if hint in (int, str, bool, type(None)):
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            raise _fail(hint, value, where)
        return value
    raise TypeError(f"{where}: records cannot hold {hint!r}")


def _encode(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _encode(item) for key, item in value.items()}
    return value


@dataclasses.dataclass(frozen=True)
class Record:
    """Base of the frozen records: typed fields, checked values, JSON both ways."""

    def __post_init__(self) -> None:
        """Check every field against its type hint, then call `check`."""
        for field in dataclasses.fields(self):
            value = _decode(
                _hints(type(self))[field.name], getattr(self, field.name), f"{type(self).__name__}.{field.name}"
            )
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raise `ValueError` for values that the types allow and the meaning does not."""

    def refuse(self, field: str, why: str) -> None:
        """Raise a `ValueError` that names `field`, its value and what is allowed."""
        raise ValueError(f"{type(self).__name__}.{field} {why}, got {shown(getattr(self, field))}")

    def replace(self: R, **changes: Any) -> R:
        """Return a copy with some fields changed (checked like a new record)."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-ready dictionaries, lists and numbers."""
        return {field.name: _encode(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any], *, where: str | None = None) -> R:
        """Build the record from a mapping such as `json.loads` returns.

        Args:
            data: One value per field; fields with a default may be left out.
            where: How error texts call the record; the class name by default.

        Raises:
            TypeError: `data` is no mapping, or a field has the wrong type.
            ValueError: A key is unknown or missing, or a value is impossible.
        """
        where = where or cls.__name__
        if not isinstance(data, Mapping):
            raise TypeError(f"{where} must be a JSON object, got {type(data).__name__}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in data:
            if key not in fields:
                raise ValueError(
                    f"{where} has no field {shown(key)}; its fields are {', '.join(fields)}.{near(str(key), fields)}"
                )
        values = {}
        for name, field in fields.items():
            if name in data:
                values[name] = _decode(_hints(cls)[name], data[name], f"{where}.{name}")
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise ValueError(f"{where} lacks the field {name!r}")
        return cls(**values)

    def to_json(self) -> str:
        """Return the record as indented JSON text, keys in the order of the fields."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls: type[R], text: str) -> R:
        """Build the record from JSON text; the errors are those of `from_dict`."""
        try:
            data = read_json(text)
        except ValueError as error:
            raise ValueError(f"{cls.__name__}: not valid JSON ({error})") from None
        return cls.from_dict(data)


def read_json(text: str | bytes) -> Any:
    """Read JSON; where Python's own reader would take the last of two equal names, this one refuses.

    Args:
        text: Bytes are UTF-8.

    Raises:
        ValueError: It is not valid JSON, nested too deeply, names something twice, or holds NaN or an infinity.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice[:80]!r} comes twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse_constant(text[:80])


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")
