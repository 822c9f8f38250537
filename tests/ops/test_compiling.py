"""What compiled code on disk is kept for."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fcnzoo.ops import compiling


def module(path: Path, text: str) -> object:
    """A module of that source, read anew."""
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made
    spec.loader.exec_module(made)
    return made


def test_the_key_is_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal sources have one key, whatever the time of the file; a changed helper has another."""
    import linecache

    keys = []
    for text in ("x = 1\n", "x = 1\n", "x = 2\n"):
        linecache.clearcache()
        keys.append(compiling.source_key(module(tmp_path / "fcnzoo_helper.py", text)))  # pyright: ignore[reportArgumentType]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
def test_a_changed_helper_is_compiled_anew(tmp_path: Path) -> None:
    """Code kept on disk is used again, but not once the source of the helpers is another."""
    script = """
import numba, sys
from fcnzoo.ops.labels import loops, race
from fcnzoo.ops import compiling
from fcnzoo.ops.labels import compiled as route
from numba import types
real = compiling.source_key
route.source_key = lambda *modules: real(*modules) + sys.argv[1]
kernel = route._build("float32", "uint8")
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""
    found, root = [], str(Path(compiling.__file__).parents[2])
    for version in ("one", "one", "two"):
        done = subprocess.run(
            [sys.executable, "-c", script, version],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "NUMBA_CACHE_DIR": str(tmp_path),
                "PYTHONPATH": root,
            },
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert found == [["0", "1"], ["1", "0"], ["0", "1"]]
