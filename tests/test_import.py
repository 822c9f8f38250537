"""Importing: light, complete, documented."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import fcnzoo
from fcnzoo import errors

ROOT = Path(fcnzoo.__file__).parents[1]
HEAVY = ("torch", "timm", "torchvision", "numpy", "PIL", "safetensors", "huggingface_hub", "rich", "typer")
NAMES = [name for name in fcnzoo.__all__ if name != "__version__"]
MODULES = [name for name in NAMES if isinstance(getattr(fcnzoo, name), types.ModuleType)]


def fresh(script: str) -> str:
    """Run a script in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    [
        "import fcnzoo; fcnzoo.list_models()",
        "import fcnzoo; fcnzoo.get_spec('fcn8s_convnext_tiny').to_json()",
        "import fcnzoo; fcnzoo.register(fcnzoo.ModelSpec(name='x', config=fcnzoo.get_spec('fcn8s_vgg16').config))",
        "import fcnzoo.config, fcnzoo.labels, fcnzoo.zoo.registry, fcnzoo.errors, fcnzoo.files.atomic",
    ],
)
def test_light_imports(statement: str) -> None:
    """Whatever knows about models without running them imports no torch, timm, torchvision, numpy or Pillow."""
    assert fresh(f"import sys\n{statement}\nprint([m for m in {HEAVY!r} if m in sys.modules])") == "[]"


def test_listing_models_is_fast() -> None:
    """`import fcnzoo; fcnzoo.list_models()` takes under 0.15 s, at best of five fresh interpreters."""
    script = "import time; t = time.perf_counter(); import fcnzoo; fcnzoo.list_models(); print(time.perf_counter() - t)"
    assert min(float(fresh(script)) for _ in range(5)) < 0.15


def type_checking_imports() -> dict[str, str]:
    """What `if TYPE_CHECKING:` of the package imports: name → module."""
    tree = ast.parse(Path(fcnzoo.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            found[alias.asname or alias.name] = str(node.module)
    return found


def test_type_checkers_see_what_python_sees() -> None:
    """The names for type checkers are the lazy ones, each from a module where it is the same object."""
    imports = type_checking_imports()
    assert sorted(imports) == sorted(NAMES)
    for name, module in imports.items():
        value = getattr(fcnzoo, name)
        want = importlib.import_module(f"fcnzoo.{name}") if module == "fcnzoo" else None
        assert value is (want or getattr(importlib.import_module(module), name))


def test_all_is_sorted_and_complete() -> None:
    """`__all__` holds every lazy name and module once; `dir` shows it; star import works."""
    assert sorted(fcnzoo.__all__) == sorted({*fcnzoo._PUBLIC, "__version__"})
    assert len(set(fcnzoo.__all__)) == len(fcnzoo.__all__)
    assert dir(fcnzoo) == sorted(fcnzoo.__all__)
    names: dict[str, object] = {}
    exec("from fcnzoo import *", names)
    assert set(fcnzoo.__all__) <= set(names)


def test_unknown_names_are_attribute_errors() -> None:
    """A name that the package lacks is Python's own AttributeError."""
    with pytest.raises(AttributeError, match="module 'fcnzoo' has no attribute 'nonsense'"):
        fcnzoo.nonsense  # noqa: B018


def has_own_docstring(value: object) -> bool:
    """Whether somebody wrote a docstring (the one that `dataclass` makes up does not count)."""
    text = value.__dict__.get("__doc__") if isinstance(value, type) else getattr(value, "__doc__", None)
    made_up = (
        isinstance(value, type) and dataclasses.is_dataclass(value) and (text or "").startswith(f"{value.__name__}(")
    )
    return bool(text and text.strip()) and not made_up


@pytest.mark.parametrize("name", NAMES)
def test_public_names_have_docstrings(name: str) -> None:
    """Every public name has a docstring, every public method of a public class too."""
    value = getattr(fcnzoo, name)
    assert has_own_docstring(value)
    if inspect.isclass(value):
        for member, thing in vars(value).items():
            if not member.startswith("_") and (
                callable(thing) or isinstance(thing, property | classmethod | staticmethod)
            ):
                assert (getattr(thing, "__doc__", None) or "").strip(), f"{name}.{member}"


@pytest.mark.parametrize("module", MODULES)
def test_public_modules_document_what_they_offer(module: str) -> None:
    """What a public module offers (`__all__`, or what it defines without an underscore) has docstrings."""
    loaded = importlib.import_module(f"fcnzoo.{module}")
    assert isinstance(loaded, types.ModuleType)
    own = [
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == loaded.__name__
    ]
    for name in getattr(loaded, "__all__", own):
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert has_own_docstring(value), f"fcnzoo.{module}.{name}"


def test_error_tree() -> None:
    """Every error is an FCNZooError, and is caught as the built-in that its docstring promises."""
    tree = {
        errors.UnknownModelError: LookupError,
        errors.BackboneError: ValueError,
        errors.WeightsError: Exception,
        errors.ConversionError: Exception,
        errors.ExportError: Exception,
        errors.LabelError: ValueError,
    }
    found = {v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)}
    assert found == {*tree, errors.FCNZooError}
    for error, builtin in tree.items():
        assert issubclass(error, errors.FCNZooError)
        assert issubclass(error, builtin)
        assert error.__name__ in str(errors.__doc__)


def test_version_is_the_distributions() -> None:
    """`__version__` is a PEP 440 version."""
    from packaging.version import Version

    assert str(Version(fcnzoo.__version__)) == fcnzoo.__version__
