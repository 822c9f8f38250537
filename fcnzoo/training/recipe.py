"""Recipes: everything a training run depends on, as one frozen record.

A [`Recipe`][fcnzoo.training.Recipe] is read from a TOML file (or the JSON a finished run left), each
field can be overridden by a `"section.field=value"` text, and keys that do not exist are errors.
Nothing here imports torch.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fcnzoo.files.reading import read_bytes, read_text
from fcnzoo.files.records import Record, near, read_json
from fcnzoo.training.data_sections import AugmentSection, DataSection
from fcnzoo.training.sections import (
    LossSection,
    ModelSection,
    OptimSection,
    RunSection,
    ScheduleSection,
)

_FOLDER = Path(__file__).parent / "recipes"

RESUMABLE = frozenset(
    {
        "run.out",
        "run.device",
        "run.keep_last",
        "run.checkpoint_steps",
        "run.checkpoint_seconds",
        "run.log_steps",
        "run.progress",
        "run.tensorboard",
        "run.plots",
        "data.root",
        "data.num_workers",
        "data.allow_missing",
        "data.max_ignored",
        "data.val_batch_size",
        "model.pretrained_backbone",
        "model.init_from",
    }
)
"""Fields that may change between a run and its resumption: none of them alters the weights that come
out (where the weights started from is in the checkpoint by then)."""


@dataclass(frozen=True)
class Recipe(Record):
    """A training run as data.

    Attributes:
        model: Which network, and where its first weights come from.
        data: Which pictures.
        optim: Optimizer, batch size, gradients.
        schedule: Length of the run and course of the learning rate.
        loss: What is minimized.
        augment: How training pictures are varied.
        run: Output folder, seed, device, checkpoints, logs.
        description: What the recipe is for.
    """

    model: ModelSection
    data: DataSection
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    loss: LossSection = field(default_factory=LossSection)
    augment: AugmentSection = field(default_factory=AugmentSection)
    run: RunSection = field(default_factory=RunSection)
    description: str = ""

    @classmethod
    def load(cls, source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Read a recipe.

        Args:
            source: Name of a built-in recipe (see `list_recipes`), a `.toml` or `.json` file, or the
                output folder of a run (its `recipe.json`).
            overrides: Texts such as `"optim.lr=0.01"`; the value is TOML, a bare word is a string,
                `none` is no value.

        Raises:
            FileNotFoundError: There is no such recipe; the text lists the built-in ones.
            TypeError: A field has the wrong type.
            ValueError: The file is not valid, a key is unknown, or a value is impossible.
        """
        data, where = _read(source)
        for text in overrides:
            _override(data, text)
        return cls.from_dict(data, where=where)

    def override(self, *texts: str) -> Recipe:
        """Return the recipe with fields changed by texts such as `"optim.lr=0.01"`."""
        data = self.to_dict()
        for text in texts:
            _override(data, text)
        return type(self).from_dict(data)

    def settings(self) -> dict[str, Any]:
        """Return the fields that decide about the weights, with dotted names; `None` ones left out."""
        flat = _flat(self.to_dict())
        return {
            key: value for key, value in flat.items() if key not in {*RESUMABLE, "description"} and value is not None
        }

    def differences(self, other: Recipe) -> list[str]:
        """Return one text per field in which the runs of two recipes would give other weights."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        return [
            f"{key}: {theirs.get(key)!r} there, {mine.get(key)!r} here"
            for key in mine | theirs
            if key not in RESUMABLE and key != "description" and mine.get(key) != theirs.get(key)
        ]


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def _read(source: str | Path) -> tuple[dict[str, Any], str]:
    """Return a recipe's data and how errors should call it."""
    path = Path(source)
    if path.is_dir():
        path = path / "recipe.json"
    if path.suffix in (".toml", ".json"):
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}; built-in recipes: {', '.join(list_recipes())}")
        text, where = _decode(read_bytes(path), str(path)), str(path)
    elif str(source) in list_recipes():
        text, where = read_text(_FOLDER / f"{source}.toml"), str(source)
    else:
        names = list_recipes()
        raise FileNotFoundError(
            f"no recipe {str(source)!r}; give a .toml file or one of {', '.join(names)}.{near(str(source), names)}"
        )
    try:
        return (read_json(text) if path.suffix == ".json" else tomllib.loads(text)), where
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a valid recipe ({error})") from None


def _decode(data: bytes, where: str) -> str:
    """Decode a recipe's file: UTF-8, or UTF-16 as Windows' editors and PowerShell mark it."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not {encoding.removesuffix('-sig').upper()} ({error}); save it as UTF-8") from None


def _override(data: dict[str, Any], text: str) -> None:
    """Write the value of a `"section.field=value"` text into nested dictionaries."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(
            f"cannot read the override {text!r}; write section.field=value, such as optim.lr=0.01 "
            "(in Python, in a list of such texts)"
        )
    node = data
    for part in parts[:-1]:
        inner = node.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ValueError(f"cannot read the override {text!r}: {part} is no section")
        node = inner
    node[parts[-1]] = _value(value.strip(), _hint(parts))


def _hint(parts: Sequence[str]) -> Any:
    """Return the type of a field, or `None` if there is no such field."""
    hint: Any = Recipe
    for part in parts:
        hint = get_type_hints(hint).get(part) if isinstance(hint, type) and issubclass(hint, Record) else None
    return hint


def _value(text: str, hint: Any) -> Any:
    """Return what a text means for a field of a type: TOML, `none`, Python's `True`, or just a text."""
    if get_origin(hint) is Literal and text in get_args(hint):  # `none` is a word of a few fields
        return text
    if text.lower() in ("none", "null"):
        return None
    if text.lower() in ("true", "false") and bool in (hint, *get_args(hint)):
        return text.lower() == "true"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except RecursionError:
        raise ValueError(f"cannot read the value {text[:40]!r}…: nested too deeply") from None
    except tomllib.TOMLDecodeError:
        words = re.fullmatch(r"\[\s*([^\[\]{}\"'=]*[^\[\]{}\"'=,\s])\s*,?\s*\]", text)
        if words and get_origin(hint) is tuple:  # ["soil", "crop"], of which PowerShell takes the quotes
            return [word.strip() for word in words[1].split(",")]
        return text


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
