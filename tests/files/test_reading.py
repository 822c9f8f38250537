"""Files are opened only if they are regular, and never read beyond a bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fcnzoo
from fcnzoo.errors import FCNZooError
from fcnzoo.files.reading import open_file, read_at_most
from fcnzoo.weights.bundle import read_digests


@pytest.mark.parametrize("size", [0, 1, 7, 8])
def test_up_to_the_bound_all_is_read(tmp_path: Path, size: int) -> None:
    """A file of the bound's own length is read whole."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(size)))
    with open_file(path) as file:
        assert read_at_most(file, 8) == bytes(range(size))


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    """One byte more is an OSError that names the file and the bound."""
    path = tmp_path / "file"
    path.write_bytes(bytes(9))
    with open_file(path) as file, pytest.raises(OSError, match=r"longer than 8 bytes.*file"):
        read_at_most(file, 8)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A folder and a missing file are OSErrors."""
    with pytest.raises(OSError, match="no regular file"):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "missing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
@pytest.mark.parametrize("source", ["torchvision", "caffe"])
def test_converters_refuse_pipes(tmp_path: Path, source: str) -> None:
    """A pipe where a checkpoint should be is an error at once: nobody will ever write to it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FCNZooError, match="no regular file"):
        fcnzoo.convert(source, tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_mirrors_refuse_pipes(tmp_path: Path) -> None:
    """A pipe in the place of a mirror's `digests.json` is an error at once."""
    os.mkfifo(tmp_path / "digests.json")
    with pytest.raises(FCNZooError, match="no regular file"):
        read_digests(tmp_path)
