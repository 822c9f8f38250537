"""Models that other installed packages bring: plug-ins.

A package declares an entry point of the group `fcnzoo.models` in its `pyproject.toml`,

    [project.entry-points."fcnzoo.models"]
    fcn8s_fields = "fcnzoo_fields:SPECS"

whose value is a [`ModelSpec`][fcnzoo.ModelSpec], an iterable of them, or a function that returns either. It is
called like its model, or like any word if there are several. The entry points are read once per process: when models
are listed, or when a name is looked up that is not built in. The module should import as little as
`fcnzoo.config` does: it is imported for a mere list.

A plug-in that fails, or takes a name that is taken, is left out as a whole. A `RuntimeWarning` says so once, and so
does the `UnknownModelError` where one of its names is asked for.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from fcnzoo.config.spec import ModelSpec
from fcnzoo.files.reading import read_bytes

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "fcnzoo.models"
"""The group of the entry points."""


@dataclass(frozen=True)
class Failure:
    """A plug-in that was left out.

    Attributes:
        names: Models it would bring, as far as they are known, and what its entry point is called.
        text: Which plug-in of which distribution, and why.
    """

    names: frozenset[str]
    text: str


class Plugins:
    """The models of all plug-ins, read when they are first asked for.

    Args:
        taken: Names that no plug-in may take.
    """

    def __init__(self, taken: Collection[str] = ()) -> None:
        self._taken = frozenset(taken)
        self._lock = threading.RLock()
        self._started = False
        self._models: dict[str, ModelSpec] = {}
        self._failures: list[Failure] = []

    def models(self) -> Mapping[str, ModelSpec]:
        """Return the models by name. While a plug-in is being imported, those of the ones before it."""
        with self._lock:
            if not self._started:
                self._started = True
                for distribution in self._distributions():
                    self._read(distribution)
                for failure in self._failures:
                    warnings.warn(f"{failure.text}; its models are left out", RuntimeWarning, stacklevel=4)
            return self._models

    def failure(self, name: str) -> str | None:
        """Return why the plug-in that would bring a model was left out; `None` if none would."""
        self.models()
        return next((failure.text for failure in self._failures if name in failure.names), None)

    def failures(self) -> list[str]:
        """Return a text for each plug-in that was left out."""
        self.models()
        return [failure.text for failure in self._failures]

    def _distributions(self) -> list[str]:
        """Return the names of the distributions that declare plug-ins, sorted: the order decides who was first."""
        if not _mentioned():
            return []
        from importlib import metadata

        names: set[str] = set()
        for found in metadata.distributions():
            try:
                if GROUP in (found.read_text("entry_points.txt") or ""):
                    names.add(_name(found))
            except Exception as error:  # an installation that was cut short, say
                text = f"a distribution in {found.locate_file('')} cannot be read: {_say(error)}"
                self._failures.append(Failure(frozenset(), text))
        return sorted(names)

    def _read(self, distribution: str) -> None:
        """Read the plug-ins of a distribution."""
        from importlib import metadata

        try:
            # By its name: of two that are called alike, the first on the path is the one that is imported.
            entries = list(metadata.distribution(distribution).entry_points.select(group=GROUP))
        except Exception as error:  # whatever somebody wrote into that file
            self._failures.append(Failure(frozenset(), f"the plug-ins of {distribution} cannot be read: {_say(error)}"))
            return
        for entry in entries:
            self._load(distribution, entry)

    def _load(self, distribution: str, entry: EntryPoint) -> None:
        """Import a plug-in and add its models, all of them or none."""
        names = {entry.name}
        try:
            specs = _specs(entry.load())
            names |= {spec.name for spec in specs}
            if len({spec.name for spec in specs}) != len(specs):
                raise ValueError("two of its models have one name")
            for spec in specs:
                if spec.name in self._taken or spec.name in self._models:
                    owner = "fcnzoo" if spec.name in self._taken else "another plug-in"
                    raise ValueError(f"{spec.name!r} is a model of {owner}; choose another name")
        except (Exception, SystemExit) as error:  # it is somebody else's code, and must not take the other models along
            text = f"the plug-in {entry.name!r} ({entry.value}) of {distribution} cannot be used: {_say(error)}"
            self._failures.append(Failure(frozenset(names), text))
            return
        self._models.update({spec.name: spec for spec in specs})


def _specs(value: object) -> list[ModelSpec]:
    """Return what an entry point holds as a list.

    Raises:
        TypeError: It is no `ModelSpec`, no iterable of them, and no function that returns either.
    """
    found = value() if callable(value) else value
    specs: list[ModelSpec] = []
    for spec in found if isinstance(found, Iterable) else [found]:
        if not isinstance(spec, ModelSpec):
            raise TypeError(
                "must be a fcnzoo.ModelSpec, an iterable of them, or a function that returns either; "
                f"got {type(found).__name__}" + ("" if spec is found else f" with {type(spec).__name__}")
            )
        specs.append(spec)
    return specs


def _name(distribution: Distribution) -> str:
    name = distribution.metadata["Name"]
    if not name:  # some versions of Python say `None`, others raise an error of their own
        raise ValueError("its METADATA is missing or has no name; reinstall it, or delete what is left of it")
    return name


def _mentioned() -> bool:
    """Whether there may be plug-ins at all.

    Importing `importlib.metadata` takes as long as importing this package and listing its models, and most machines
    have no plug-in: a look into the files that pip writes says so. Where distributions may lie elsewhere (zip files,
    finders of other kinds) the answer is yes.
    """
    if any(hasattr(finder, "find_distributions") for finder in sys.meta_path if finder is not PathFinder):
        return True
    for folder in dict.fromkeys(Path(entry) for entry in sys.path):
        if folder.is_file():
            return True
        for file in folder.glob("*.*-info/entry_points.txt"):
            try:
                if GROUP.encode() in read_bytes(file):
                    return True
            except OSError:
                return True  # the library reads it in its own way, or tells what is wrong
    return False


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
