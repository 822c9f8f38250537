"""Pipes, devices, links, left-overs and impossible numbers: nothing waits, nothing of the user's is lost."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fcnzoo
from fcnzoo.cli.console import prepare_file
from fcnzoo.config import BackboneConfig, FCNConfig, Preprocess, SkipHeadConfig
from fcnzoo.errors import FCNZooError, WeightsError
from fcnzoo.files import parts
from fcnzoo.files.atomic import atomic, is_special
from fcnzoo.files.deadlines import patience, within
from fcnzoo.files.digests import cache_folder
from fcnzoo.files.parts import part_file, part_folder, sweep
from fcnzoo.files.reading import open_file, open_image, read_bytes
from fcnzoo.files.records import read_json
from fcnzoo.files.staging import exchange, replaced_folder
from fcnzoo.labels import LabelSet
from fcnzoo.weights.card import render
from fcnzoo.weights.folder import FolderRecord

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, modes and locks of POSIX")


@pytest.mark.parametrize(
    "read",
    [
        open_file,
        read_bytes,
        lambda path: open_image(path, ["PNG"]),
        fcnzoo.images.load_image,
        lambda path: fcnzoo.convert("torchvision", path),
        lambda path: fcnzoo.convert("caffe", path),
        lambda path: fcnzoo.convert("deeplab", path),
        lambda path: fcnzoo.load(path.parent),
        lambda path: fcnzoo.create("fcn8s_test_resnet", pretrained_backbone=str(path)),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "x.jpg"])
def test_nothing_waits_at_a_pipe(tmp_path: Path, read: Callable[[Path], object], name: str) -> None:
    """A FIFO without a writer is an error at once, whoever reads it."""
    os.mkfifo(tmp_path / name)
    start = time.monotonic()
    with pytest.raises((OSError, ValueError, FCNZooError)):
        read(tmp_path / name)
    assert time.monotonic() - start < 5


def test_devices_are_written_through(tmp_path: Path) -> None:
    """`/dev/null`, a pipe and `/dev/stdout` stay what they are."""
    with atomic("/dev/null", "w") as file:
        file.write("gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    with atomic(tmp_path / "pipe") as file:
        file.write(b"through")
    assert reader.communicate(timeout=20)[0] == b"through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_links_are_followed_and_modes_kept(tmp_path: Path) -> None:
    """A link stays one, its target is replaced; the target's mode stays, also a narrow one; a loose end is made."""
    target = tmp_path / "deep" / "target"
    target.parent.mkdir()
    target.write_text("old")
    target.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(target)
    with atomic(link, "w") as file:
        file.write("new")
    assert link.is_symlink() and target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    (tmp_path / "loose").symlink_to(tmp_path / "deep" / "made")
    with atomic(tmp_path / "loose", "w") as file:
        file.write("new")
    assert (tmp_path / "deep" / "made").read_text() == "new"


def test_what_kills_leave_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose writer was killed goes with the next write into the folder; that of a living writer stays."""
    monkeypatch.setattr(parts, "SWEEP_SECONDS", 0.0)
    script = (
        "import sys, time\nfrom fcnzoo.files.atomic import atomic\nfrom fcnzoo.files.staging import replaced_folder\n"
    )
    script += "from pathlib import Path\nroot = Path(sys.argv[1])\n"
    script += "with atomic(root / 'x') as one, replaced_folder(root / 'y') as two:\n"
    script += "    print('ready', flush=True)\n    time.sleep(60)\n"
    environment = os.environ | {"PYTHONPATH": str(Path(fcnzoo.__file__).parents[1])}
    writer = subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, env=environment)
    assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
    for _ in range(2):
        with atomic(tmp_path / "x", "w") as file:
            file.write("mine")
        with replaced_folder(tmp_path / "y") as folder:
            (folder / "file").write_text("mine")
        alive = writer.poll() is None
        assert len(list(tmp_path.glob(".*.part"))) == (2 if alive else 0)
        writer.kill()
        writer.wait()
    writer.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_parts_are_held_by_threads_too(tmp_path: Path) -> None:
    """Two parts of one name in one process do not sweep each other."""
    with part_file(tmp_path / "x") as one, part_file(tmp_path / "x") as two, part_folder(tmp_path, ".x.") as folder:
        sweep(tmp_path, ".x.", ".part")
        assert one[1].endswith(".part") and Path(one[1]).exists() and Path(two[1]).exists() and folder.exists()
        os.close(one[0])
        os.close(two[0])
        sweep(tmp_path, ".x.", ".part")
        assert Path(one[1]).exists()
    assert list(tmp_path.iterdir()) == []


def test_folders_change_places_in_one_step(tmp_path: Path) -> None:
    """A reader never finds a replaced folder missing."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "of a").touch()
    if not exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot")
    assert (tmp_path / "b" / "of a").exists() and not (tmp_path / "a" / "of a").exists()
    script = "import sys\nfrom pathlib import Path\nfrom fcnzoo.files.staging import replaced_folder\n"
    script += "for i in range(300):\n    with replaced_folder(Path(sys.argv[1])) as new:\n"
    script += "        (new / 'x').write_text(str(i))\n"
    environment = os.environ | {"PYTHONPATH": str(Path(fcnzoo.__file__).parents[1])}
    (tmp_path / "c").mkdir()
    writer = subprocess.Popen([sys.executable, "-c", script, tmp_path / "c"], env=environment)
    missing = 0
    while writer.poll() is None:
        missing += not (tmp_path / "c").exists()
    assert missing == 0 and writer.returncode == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: BackboneConfig("timm/resnet18", size_multiple=16384),
        lambda: BackboneConfig("timm/resnet18", size_multiple=2**30),
        lambda: BackboneConfig("timm/resnet18", image_size=(2**20, 8)),
        lambda: Preprocess(resize=2**30),
        lambda: Preprocess(longer_side=10**9),
        lambda: Preprocess(std=(1e-320, 1.0, 1.0)),
        lambda: Preprocess(mean=(1e300, 0.0, 0.0)),
        lambda: LabelSet.from_names(["a" * 900_000, "b"]),
        lambda: LabelSet.from_names(["a\x1b[31m"]),
        lambda: LabelSet.from_names(["a\nb"]),
        lambda: LabelSet.from_names(["\a"]),
        lambda: LabelSet.from_names(["\ud800"]),
        lambda: LabelSet.from_names(["ab\u202edc"]),
        lambda: LabelSet.from_names(["a"], name="x\x07"),
        lambda: read_json('{"provenance": {"a": 1e999}}'),
        lambda: read_json('{"provenance": {"a": [-1e999]}}'),
    ],
)
def test_impossible_values_are_refused(make: Callable[[], object]) -> None:
    """Numbers and names that would take all memory, or a terminal, are refused by a short text."""
    with pytest.raises(ValueError) as caught:
        make()
    assert len(str(caught.value)) < 2000 and "\x1b" not in str(caught.value)


HOSTILE = ("<img src=x onerror=alert(1)>", "[a](https://evil.example)", "# heading", "a|b", "**b**", "`code`", "x\ry")


@pytest.mark.parametrize("text", HOSTILE)
def test_cards_show_texts_as_they_are(text: str) -> None:
    """Names, licenses and provenance are no markup in the card: a Markdown reader makes no element of them."""
    from markdown import markdown

    config = FCNConfig(BackboneConfig("timm/resnet18"), SkipHeadConfig(), num_classes=2)
    if "\r" not in text:
        config = config.replace(label_set=LabelSet.from_names([text, "b"]))
    metric = fcnzoo.Metric("mean_iou", 0.5, text)
    record = FolderRecord(config, metrics=(metric,), provenance={"made by": text, text: "x"}, license=text)
    body = render(record).split("---\n", 2)[2]
    html = markdown(body, extensions=["tables", "fenced_code"])
    for element in ("<img", "<a ", "<strong", "<em"):
        assert element not in html
    assert html.count("<h1") == 1 and html.count("<tr") == 2 and html.count("<td") == 3
    assert html.count("<code") == html.count("<pre") == 1 + ("\r" in text)


def test_a_call_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence, and less than the least rate, end in TimeoutError; enough bytes, and the call's own error, pass."""
    assert within(lambda: 3, seconds=5) == 3
    with pytest.raises(KeyError):
        within(lambda: {}["x"], seconds=5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer"):
        within(lambda: time.sleep(30), seconds=0.2)
    with pytest.raises(TimeoutError, match="10 bytes"):
        within(lambda: time.sleep(30), progress=iter([0, 10, 10, 10]).__next__, seconds=0.2)
    assert time.monotonic() - start < 10
    count = iter(range(0, 10**9, 10**6))
    assert within(lambda: time.sleep(1), progress=count.__next__, seconds=0.2) is None
    for wrong in ("0", "-1", "soon", "nan", "inf"):
        monkeypatch.setenv("FCNZOO_TIMEOUT", wrong)
        with pytest.raises(WeightsError, match="FCNZOO_TIMEOUT"):
            patience()
    monkeypatch.setenv("FCNZOO_TIMEOUT", "2.5")
    assert patience() == 2.5


def test_large_pictures_are_segmented_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound the label map is that of tiles asked for; below it, that of the whole image."""
    from fcnzoo.inference import predictor

    monkeypatch.setattr(predictor, "LARGE", 100 * 100)
    monkeypatch.setattr(predictor, "LARGE_TILE", 96)
    model = fcnzoo.create("fcn8s_test_resnet", num_classes=3, head={"init": "normal"}).eval()
    picture = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    assert np.array_equal(fcnzoo.Predictor(model)(picture).labels, fcnzoo.Predictor(model, tile=96)(picture).labels)
    small = picture[:99, :99]
    whole = model.predict(fcnzoo.images.to_tensor(Image.fromarray(small), model.preprocess))[0].numpy()
    assert np.array_equal(fcnzoo.Predictor(model)(small).labels, whole)


def test_no_home(tmp_path: Path) -> None:
    """A user without a home or an entry in the list of users, as in containers, gets the shipped model."""
    script = "import os, sys\nfor name in ('HOME', 'FCNZOO_CACHE', 'XDG_CACHE_HOME'):\n    os.environ.pop(name, None)\n"
    script += "import pwd\ndef none(*a):\n    raise KeyError('uid')\npwd.getpwuid = none\n"
    script += "import fcnzoo\nprint(fcnzoo.create('everyday', pretrained=True).num_classes)\n"
    environment = os.environ | {"PYTHONPATH": str(Path(fcnzoo.__file__).parents[1]), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "21", done.stderr


@pytest.mark.parametrize("trap", ["open to all", "a link", "a file"])
def test_a_cache_that_somebody_else_made(tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, a folder among the temporary files that is not this user's alone is refused, not believed."""
    folder = tmp_path / f"fcnzoo-cache-{os.getuid()}"
    if trap == "a link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    elif trap == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o777)
    monkeypatch.delenv("FCNZOO_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(WeightsError, match="not a folder of this user's alone"):
        cache_folder()
    folder.unlink() if trap != "open to all" else folder.rmdir()
    assert cache_folder() == folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache_folder() == folder


def test_files_in_memory_are_files() -> None:
    """What lies in `/dev/shm` is replaced whole, and asked for before, like any other file."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("this system has none")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "x"
        path.write_text("old")
        assert not is_special(path)
        with pytest.raises(FileExistsError):
            prepare_file(path, "--out", force=False)
        with atomic(path, "w") as file:
            file.write("new")
            file.flush()
            assert path.read_text() == "old"
        assert path.read_text() == "new"
    assert is_special(Path("/dev/null")) and not is_special(Path("/dev/shm"))


@pytest.mark.parametrize("cache", ["~nouser/x", "/dev/null", "{file}"])
def test_a_cache_that_is_none(tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that cannot be one is no trouble for what needs none, and a WeightsError for the rest."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("FCNZOO_CACHE", cache.format(file=tmp_path / "file"))
    monkeypatch.setenv("FCNZOO_MIRROR", str(tmp_path))
    if cache.startswith("~"):
        with pytest.raises(WeightsError, match="no such user"):
            fcnzoo.create("everyday", pretrained=True)
    else:
        fcnzoo.create("everyday", pretrained=True)
    monkeypatch.setenv("FCNZOO_MIRROR", "~nouser/y")
    with pytest.raises(WeightsError, match="no such user"):
        fcnzoo.create("fcn_resnet50", pretrained=True)


def test_records_of_a_run_are_json(tmp_path: Path) -> None:
    """A deep state file is an error of the documented tree."""
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json((tmp_path / "deep.json").read_bytes())
    assert json.loads("[]") == []


def test_many_files_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is looked through once, not at every file that is written into it."""
    looks: list[Path] = []
    monkeypatch.setattr(parts, "sweep", lambda folder, *_: looks.append(folder))
    for index in range(50):
        with atomic(tmp_path / f"{index}.txt", "w") as file:
            file.write("x")
    assert looks == [tmp_path]
