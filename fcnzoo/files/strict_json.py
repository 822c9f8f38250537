"""JSON with one meaning: no name twice in an object, no NaN, no infinity."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def read_json(text: str | bytes) -> Any:
    """Read JSON; where Python's own reader would take the last of two equal names, this one refuses.

    Args:
        text: Bytes are UTF-8.

    Raises:
        ValueError: It is not valid JSON, nested too deeply, names something twice, or holds NaN or an infinity.
    """
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice[:80]!r} comes twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no finite number")
