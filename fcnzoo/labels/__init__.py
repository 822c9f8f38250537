"""What the class numbers of a network or a mask mean: names and colors.

The sets of the usual data sets lie beside this file, one JSON file each, and are read when
somebody asks for them. `source` in each file says where its names and colors come from.
"""

from __future__ import annotations

import functools
import operator
import unicodedata
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, TypeAlias

from fcnzoo.errors import LabelError, UnknownModelError
from fcnzoo.files.reading import read_text
from fcnzoo.files.records import Record, near, shown

__all__ = [
    "LabelSet",
    "LabelSetLike",
    "as_label_set",
    "generic_label_set",
    "get_label_set",
    "list_label_sets",
    "voc_colormap",
]

Color = tuple[int, int, int]

LONGEST_NAME = 100
"""Letters of a class name at most: legends are drawn with them."""

_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Letters that turn the direction of what follows: a name could show as another one."""

IGNORE_INDEX = 255
BORDER: Color = (224, 224, 192)
"""How VOC's masks show the pixels to ignore; it is entry 255 of the VOC color map."""

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class LabelSet(Record):
    """The classes of a data set, in the order of their numbers.

    Attributes:
        name: What the set is called, for `get_label_set` if it is one of the built-in ones.
        names: One name per class, all different.
        palette: One (red, green, blue) per class, each 0…255; two classes may share a color.
        ignore_index: Mask value of pixels that belong to no class and take no part.
        description: What the set is.
        source: Where names and colors come from.
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Color, ...]
    ignore_index: int = IGNORE_INDEX
    description: str = ""
    source: str = ""

    def check(self) -> None:
        """See `Record.check`."""
        if not self.name.strip() or len(self.name) > LONGEST_NAME or not _is_printable(self.name):
            self.refuse("name", f"must not be empty, but 1…{LONGEST_NAME} printable letters")
        if not self.names:
            self.refuse("names", "must hold at least one class")
        first: dict[str, int] = {}
        for i, name in enumerate(self.names):
            if not name.strip() or len(name) > LONGEST_NAME or not _is_printable(name):
                raise ValueError(
                    f"LabelSet.names[{i}] must not be empty, but 1…{LONGEST_NAME} printable letters, got {shown(name)}"
                )
            if first.setdefault(name, i) != i:
                raise ValueError(f"LabelSet.names must all differ, got {name!r} at {first[name]} and at {i}")
        if len(self.palette) != len(self.names):
            raise ValueError(
                f"LabelSet.palette must hold one color per name ({len(self.names)}), got {len(self.palette)}"
            )
        for i, color in enumerate(self.palette):
            if not all(0 <= value <= 255 for value in color):
                raise ValueError(f"LabelSet.palette[{i}] must hold values 0…255, got {color}")
        if 0 <= self.ignore_index < len(self.names):
            self.refuse("ignore_index", f"must not be one of the {len(self.names)} classes (−1 never is)")

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the number of the class called `name`.

        Raises:
            LabelError: No class has that name; the text gives near names.
        """
        if name in self.names:
            return self.names.index(name)
        shown = ", ".join(self.names[:30]) + (f", … ({len(self)} in all)" if len(self) > 30 else "")
        raise LabelError(
            f"the label set {self.name!r} has no class {name!r}.{near(str(name), self.names)} Its classes: {shown}"
        )

    def flat_palette(self) -> bytes:
        """Return the 256 colors of an indexed PNG as 768 bytes: R, G, B of each in turn.

        The classes have their colors and `ignore_index`, if it is a byte, VOC's border color. What
        is left holds the VOC color map, so that a stray value in a mask can be seen.

        Raises:
            ValueError: There are more than 256 classes.
        """
        if len(self) > 256:
            raise ValueError(
                f"the label set {self.name!r} has {len(self)} classes and an indexed PNG at most 256 colors; "
                "save the labels as a 16-bit PNG or an array"
            )
        colors = [*self.palette, *voc_colormap(256)[len(self) :]]
        if 0 <= self.ignore_index <= 255:
            colors[self.ignore_index] = BORDER
        return bytes(value for color in colors for value in color)

    @classmethod
    def from_names(cls, names: Iterable[str], name: str = "custom") -> LabelSet:
        """Make a label set of one's own classes, colored by the VOC color map.

        Args:
            names: One name per class, in the order of their numbers.
            name: What to call the set.

        Returns:
            The set; `ignore_index` is 255, or −1 if 255 is one of the classes.

        Raises:
            TypeError: `names` is a single text, or does not hold texts.
            ValueError: A name is empty or comes twice, or there is none.
        """
        if isinstance(names, str):
            raise TypeError(f"names must be a list of class names, got the single text {names!r}")
        names = tuple(names)
        return cls(
            name=name,
            names=names,
            palette=voc_colormap(len(names)),
            ignore_index=IGNORE_INDEX if len(names) <= IGNORE_INDEX else -1,
        )


def _is_printable(name: str) -> bool:
    """Whether a name is on one line and sends a terminal no commands; half a character (a lone surrogate) is none."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in _BIDI for letter in name)


LabelSetLike: TypeAlias = LabelSet | Iterable[str] | Mapping[int, str]
"""What stands for a label set wherever one is asked for: the set, the names in the order of the class numbers, or
`{0: "sky", 1: "road"}`, as the configs of transformers have it (`id2label`)."""


def as_label_set(value: LabelSetLike) -> LabelSet:
    """Return the label set that a set, a list of names or names by number mean.

    Raises:
        TypeError: It is a single text, has no order, or does not hold texts; a number is none.
        ValueError: A name is empty or comes twice, or there is none; the numbers are not 0, 1, … K−1.
    """
    if isinstance(value, LabelSet):
        return value
    if isinstance(value, str) and value in _names_of_files():
        raise TypeError(f"label_set must be a LabelSet or names; fcnzoo.labels.get_label_set({value!r}) gives that set")
    if isinstance(value, Mapping):
        by_number = {_number(number): name for number, name in value.items()}
        if sorted(by_number) != list(range(len(value))):
            raise ValueError(f"names by number must have the numbers 0…{len(value) - 1}, got {sorted(by_number)[:10]}")
        value = [by_number[i] for i in range(len(by_number))]
    elif isinstance(value, Set):
        raise TypeError(f"label_set must be in the order of the class numbers, and a {type(value).__name__} has none")
    elif not isinstance(value, Iterable):
        raise TypeError(
            f"label_set must be a LabelSet, a list of names or names by number, got {value!r} ({type(value).__name__})"
        )
    return LabelSet.from_names(value)


def _number(key: object) -> int:
    """Return a class number; JSON has made texts of them."""
    if isinstance(key, str) and key.isdecimal():
        return int(key)
    if isinstance(key, bool) or not isinstance(key, SupportsIndex):
        raise TypeError(f"names by number must have whole numbers as keys, got {key!r} ({type(key).__name__})")
    return operator.index(key)


def voc_colormap(count: int) -> tuple[Color, ...]:
    """Return the first `count` colors of PASCAL VOC, all different, black first.

    Bit k of the index becomes bit 7 − ⌊k / 3⌋ of channel k mod 3 (red, green, blue), so that near
    indices have far colors. Source: `VOClabelcolormap.m` of the VOC development kit.

    Raises:
        TypeError: `count` is not an integer.
        ValueError: `count` is negative, or above 2²⁴, where the colors end.
    """
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be int, got {count!r} ({type(count).__name__})")
    if not 0 <= count <= 2**24:
        raise ValueError(f"count must be in 0…{2**24}, got {count}")
    return tuple((_spread(i), _spread(i >> 1), _spread(i >> 2)) for i in range(count))


def _spread(index: int) -> int:
    """Gather bits 0, 3, 6, … of `index` into a byte, the lowest of them first."""
    value, bit = 0, 128
    while index:
        value |= bit * (index & 1)
        index, bit = index >> 3, bit >> 1
    return value


def generic_label_set(num_classes: int) -> LabelSet:
    """Return a set for classes that nobody named: `"class 0"`, `"class 1"`, … with VOC's colors.

    Raises:
        TypeError: `num_classes` is not an integer.
        ValueError: `num_classes` is less than 1.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int):
        raise TypeError(f"num_classes must be int, got {num_classes!r} ({type(num_classes).__name__})")
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    return LabelSet.from_names((f"class {i}" for i in range(num_classes)), name="generic")


@functools.cache
def _names_of_files() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in FOLDER.glob("*.json")))


@functools.cache
def _read(name: str) -> LabelSet:
    return LabelSet.from_json(read_text(FOLDER / f"{name}.json"))


def list_label_sets() -> list[str]:
    """Return the names of the built-in label sets, sorted."""
    return list(_names_of_files())


def get_label_set(name: str) -> LabelSet:
    """Return a built-in label set.

    Args:
        name: One of `list_label_sets()`, such as `"voc"` or `"cityscapes"`.

    Raises:
        UnknownModelError: There is no set of that name; the text lists all of them.
    """
    known = _names_of_files()
    if name not in known:
        raise UnknownModelError(
            f"no label set {name!r}.{near(str(name).lower(), known)} There are {', '.join(known)}; "
            "LabelSet.from_names makes one of your own"
        )
    return _read(name)
