"""The config that mmsegmentation keeps in its checkpoints, read as data and checked.

`checkpoint["meta"]["config"]` is Python text of assignments of literals and `dict(…)` calls. It is parsed, never
run. It says what the weights cannot: dilation, and how scores are resized.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fcnzoo.errors import ConversionError
from fcnzoo.files.records import Record

Key = TypeVar("Key")

LONGEST = 100_000
"""Characters of a config text; real ones have some 5,000."""


@dataclass(frozen=True)
class Fact(Record):
    """What a setting must be for the network to be the one that is built here.

    Attributes:
        part: `"backbone"`, `"decode_head"` or `"auxiliary_head"`.
        key: The setting.
        default: Its value where the config does not name it, as Python text.
        allowed: The values that are fine, as Python text.
    """

    part: str
    key: str
    default: str
    allowed: tuple[str, ...]


FACTS = (
    Fact("backbone", "type", "None", ("'ResNetV1c'", "'ResNet'")),
    Fact("backbone", "dilations", "(1, 1, 1, 1)", ("(1, 1, 2, 4)",)),
    Fact("backbone", "strides", "(1, 2, 2, 2)", ("(1, 2, 1, 1)",)),
    Fact("backbone", "contract_dilation", "False", ("True",)),
    Fact("backbone", "style", "'pytorch'", ("'pytorch'",)),
    Fact("decode_head", "type", "None", ("'FCNHead'",)),
    Fact("decode_head", "in_index", "-1", ("3", "-1")),
    Fact("decode_head", "dilation", "1", ("1",)),
    Fact("auxiliary_head", "type", "'FCNHead'", ("'FCNHead'",)),
    Fact("auxiliary_head", "in_index", "2", ("2", "-2")),
    Fact("auxiliary_head", "dilation", "1", ("1",)),
)
"""D8: output stride 8 by dilation, the first block of a stage still with the dilation of the stage before."""


def read_config(text: str, file: str) -> dict[str, Any]:
    """Read the assignments of a config text; those that are not literals are left out.

    Raises:
        ConversionError: It is not Python, or far too long.
    """
    if len(text) > LONGEST:
        raise ConversionError(f"{file}: the config in its meta has {len(text):,} characters")
    try:
        lines = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConversionError(f"{file}: the config in its meta cannot be read ({error})") from None
    values: dict[str, Any] = {}
    for line in lines:
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            try:
                values[line.targets[0].id] = _literal(line.value)
            except (ValueError, TypeError, RecursionError):
                continue
    return values


def _literal(node: ast.expr) -> Any:
    """Evaluate literals, and calls of `dict` with keywords."""
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError("a call of something else than dict")
        return {_name(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        return {_literal(_name(key)): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    return ast.literal_eval(node)


def _name(key: Key | None) -> Key:
    """Refuse `**other`, which has no key."""
    if key is None:
        raise ValueError("a dict unpacked into another")
    return key


def check_facts(config: Mapping[str, Any], file: str) -> dict[str, Mapping[str, Any]]:
    """Check that a config describes an FCN on a ResNet at output stride 8, and return its parts.

    Raises:
        ConversionError: It describes another network.
    """
    model = config.get("model")
    names = ("backbone", "decode_head", "auxiliary_head")
    if not isinstance(model, Mapping) or not all(isinstance(model.get(name), Mapping) for name in names[:2]):
        raise ConversionError(f"{file}: the config in its meta describes no model with a backbone and one decode_head")
    parts = {name: part for name in names if isinstance(part := model.get(name), Mapping)}
    for fact in FACTS:
        value = parts.get(fact.part, {}).get(fact.key, ast.literal_eval(fact.default))
        value = tuple(value) if isinstance(value, list) else value
        allowed = [ast.literal_eval(text) for text in fact.allowed]
        if value not in allowed:
            raise ConversionError(
                f"{file}: {fact.part}.{fact.key} is {value!r} in the config of the checkpoint; "
                f"FCN on ResNet-50/101 D8 can be converted, which has {' or '.join(fact.allowed)}"
            )
    return parts
