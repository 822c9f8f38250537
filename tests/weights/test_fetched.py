"""Folders that are not the user's own: what is read is what was checked, and nothing in them is touched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import fcnzoo
from fcnzoo.errors import WeightsError
from fcnzoo.files.digests import Digest, hash_file, wrong_digest
from fcnzoo.files.staging import PENDING
from fcnzoo.weights.bundle import check_config
from fcnzoo.weights.folder import read_config
from fcnzoo.weights.load import load_as


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder in which somebody has left a pending save of another network, with other class names."""
    ours = fcnzoo.create("fcn8s_test_resnet", label_set=["road", "grass"], head={"init": "normal"}).eval()
    theirs = fcnzoo.create("fcn8s_test_resnet", label_set=["safe", "mine"], head={"init": "normal"}).eval()
    folder = fcnzoo.save(ours, tmp_path / "mirror")
    shutil.copytree(fcnzoo.save(theirs, tmp_path / "theirs"), folder / PENDING)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        lambda folder: load_as(folder, None, fetched=True).label_set.names,  # pyright: ignore[reportOptionalMemberAccess]
        lambda folder: read_config(folder, fetched=True).label_set.names,  # pyright: ignore[reportOptionalMemberAccess]
        lambda folder: fcnzoo.verify(folder, fetched=True) and ("road", "grass"),
    ],
)
def test_nothing_pending_is_read_or_moved(mirror: Path, names: Callable[[Path], tuple[str, ...]]) -> None:
    """The files that were checked are read, and the pending ones stay where they are; one's own folder is settled."""
    before = {path: hash_file(path) for path in mirror.rglob("*") if path.is_file()}
    assert names(mirror) == ("road", "grass")
    assert {path: hash_file(path) for path in mirror.rglob("*") if path.is_file()} == before
    own = fcnzoo.load(mirror)
    assert own.label_set is not None and own.label_set.names == ("safe", "mine") and not (mirror / PENDING).exists()


def test_the_handle_that_is_read_is_the_one_that_is_hashed(mirror: Path, tmp_path: Path) -> None:
    """Weights exchanged after they were checked are an error, by the pin or by what the config records."""
    digest = Digest("sha256", hash_file(mirror / "model.safetensors"))
    assert wrong_digest(mirror / "model.safetensors", digest) is None
    shutil.copyfile(tmp_path / "theirs" / "model.safetensors", tmp_path / "new")
    (tmp_path / "new").replace(mirror / "model.safetensors")
    for pin in (digest.value, None):
        with pytest.raises(WeightsError, match=f"should be {digest.value}"):
            load_as(mirror, None, fetched=True, sha256=pin)
    with (mirror / "model.safetensors").open("rb") as file:
        assert wrong_digest(file, digest) is not None and file.tell() == 0


def test_a_config_that_is_not_the_registrys(mirror: Path) -> None:
    """Other class names, another head or preprocessing are refused; what the registry leaves open is not compared."""
    config = read_config(mirror, fetched=True)
    check_config(mirror, config, config)
    check_config(mirror, config, None)
    check_config(mirror, config, config.replace(label_set=None, preprocess=None))
    assert config.label_set is not None and config.preprocess is not None
    names = config.label_set.replace(names=("grass", "road"))
    for part, other in (
        ("label_set", config.replace(label_set=names)),
        ("head", config.replace(head=config.head.replace(hidden_channels=8))),
        ("preprocess", config.replace(preprocess=config.preprocess.replace(channel_order="bgr"))),
    ):
        with pytest.raises(WeightsError, match=f"its {part} is .*the registry says"):
            check_config(mirror, config, other)


def test_checks_are_remembered_by_file_not_by_name(tmp_path: Path) -> None:
    """A file with the name, size and time of one that passed, but other bytes, is hashed."""
    path = tmp_path / "x"
    path.write_bytes(b"one")
    digest = Digest("sha256", hash_file(path))
    assert wrong_digest(path, digest) is None
    facts = path.stat()
    (tmp_path / "y").write_bytes(b"two")
    (tmp_path / "y").replace(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert wrong_digest(path, digest) is not None


def test_there_is_one_note_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is renewed again and again, read by its path or by a link, leaves one note in the cache."""
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "cache"))
    path, link = tmp_path / "x", tmp_path / "link"
    link.symlink_to(path)
    for content in (b"one", b"two", b"three"):
        (tmp_path / "y").write_bytes(content)
        (tmp_path / "y").replace(path)
        for name in (path, link):
            assert wrong_digest(name, Digest("sha256", hash_file(path))) is None
    assert len(list((tmp_path / "cache" / "verified").iterdir())) == 1
