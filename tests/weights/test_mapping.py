"""Mapped weights: nothing is read early, nothing is written back, saving over them is safe; killed saves."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from model.test_fcn import HEADS, randomize

import fcnzoo
from fcnzoo.errors import WeightsError
from fcnzoo.files.parts import part_folder
from fcnzoo.files.safetensors import ALIGNMENT, open_safetensors
from fcnzoo.files.staging import PENDING
from fcnzoo.model.fcn import FCN, build
from fcnzoo.weights import folder as model_folder
from fcnzoo.weights.folder import read_config

ROOT = Path(fcnzoo.__file__).parents[1]
SIZE = (1, 3, 33, 47)


def trained(name: str = "fcn8s", seed: int = 0, **changes: Any) -> FCN:
    """A network with weights that no initialization would give."""
    model = build(HEADS[name].replace(**changes)).eval()
    torch.manual_seed(seed)
    randomize(model)
    return model


def content(folder: Path) -> dict[str, bytes]:
    """What the files of a folder hold."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def equal(first: FCN, second: FCN) -> bool:
    """Whether two networks have the same weights to the bit."""
    return all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def is_mapped(tensor: torch.Tensor, path: Path) -> bool:
    """Whether a tensor's memory is a private mapping of a file, by what the kernel says."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if int(start, 16) <= tensor.data_ptr() < int(end, 16):
            return line.endswith(str(path)) and line.split()[1][3] == "p"
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_large_tensors_are_mapped_privately_and_aligned(tmp_path: Path) -> None:
    """By default every tensor of a multiple of 64 bytes is a private mapping at such an address; else copies."""
    fcnzoo.save(trained(), tmp_path)
    path = tmp_path / "model.safetensors"
    mapped, copied = fcnzoo.load(tmp_path), fcnzoo.load(tmp_path, mmap=False)
    with open_safetensors(path) as file:
        assert min(entry.start for entry in file.entries.values()) % ALIGNMENT == 0
    whole = [t for t in mapped.state_dict().values() if t.numel() * t.element_size() % ALIGNMENT == 0]
    assert len(whole) > 20
    for tensor in whole:
        assert is_mapped(tensor, path)
        assert tensor.data_ptr() % ALIGNMENT == 0
    assert not any(is_mapped(tensor, path) for tensor in copied.state_dict().values())
    assert equal(mapped, copied)


@pytest.mark.parametrize("mmap", [True, False])
def test_logits_are_the_saved_networks_to_the_bit(tmp_path: Path, mmap: bool) -> None:
    """Mapped or copied, a loaded network gives the same bits as the saved one, forward and backward."""
    model = trained("fcn")
    fcnzoo.save(model, tmp_path)
    loaded = fcnzoo.load(tmp_path, mmap=mmap)
    image, target = torch.randn(SIZE), torch.randint(0, 5, (1, 33, 47))
    for network in (model, loaded):
        network(image, target).backward()
    assert torch.equal(model(image), loaded(image))
    for own, other in zip(model.parameters(), loaded.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        assert own.grad is None or other.grad is None or torch.equal(own.grad, other.grad)


def test_training_a_loaded_network_never_writes_its_file(tmp_path: Path) -> None:
    """Weights and statistics change in place; the file and another loaded network do not."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    before = content(tmp_path)
    loaded, other = fcnzoo.load(tmp_path).train(), fcnzoo.load(tmp_path)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.randn(2, 3, 32, 32), torch.randint(0, 5, (2, 32, 32))).backward()
    optimizer.step()
    assert not equal(loaded, model)
    assert equal(other, model)
    assert content(tmp_path) == before


def test_saving_over_a_loaded_networks_folder(tmp_path: Path) -> None:
    """A network mapped from a folder keeps its weights when another, or itself, is saved there."""
    first, second = trained(seed=1), trained(seed=2)
    fcnzoo.save(first, tmp_path)
    loaded = fcnzoo.load(tmp_path)
    fcnzoo.save(second, tmp_path)
    assert equal(loaded, first)
    fcnzoo.save(loaded, tmp_path)
    assert equal(loaded, first)
    assert equal(fcnzoo.load(tmp_path), first)


def test_a_loaded_network_outlives_its_folder(tmp_path: Path) -> None:
    """Deleting the files does not matter to a network that was loaded from them."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    loaded = fcnzoo.load(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    assert equal(loaded, model)


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    """Nothing that loading does moves the caller's random state, even where buffers are made again."""
    config = HEADS["fcn8s"].replace(backbone=HEADS["fcn8s"].backbone.replace(name="timm/test_maxvit"))
    fcnzoo.save(build(config), tmp_path)
    before = torch.get_rng_state()
    fcnzoo.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_default_device_is_heeded(tmp_path: Path) -> None:
    """Under another default device the network goes there whole; `device=` wins over it."""
    fcnzoo.save(trained(), tmp_path)
    with torch.device("meta"):
        assert {tensor.device.type for tensor in fcnzoo.load(tmp_path).state_dict().values()} == {"meta"}
        loaded = fcnzoo.load(tmp_path, device="cpu")
    assert {tensor.device.type for tensor in [*loaded.parameters(), *loaded.buffers()]} == {"cpu"}


def test_integer_dtypes_are_refused(tmp_path: Path) -> None:
    """`dtype` must be a floating-point one, for loading and for saving."""
    model = trained()
    with pytest.raises(ValueError, match="float16"):
        fcnzoo.save(model, tmp_path, dtype=torch.int8)
    fcnzoo.save(model, tmp_path)
    with pytest.raises(TypeError, match="floating-point"):
        fcnzoo.load(tmp_path, dtype=torch.int8)


def test_only_networks_are_saved(tmp_path: Path) -> None:
    """Other modules are a TypeError, networks without values a WeightsError; what was compiled is saved as it was."""
    with pytest.raises(TypeError, match="Linear"):
        fcnzoo.save(torch.nn.Linear(1, 1), tmp_path)  # pyright: ignore
    with pytest.raises(WeightsError, match="meta"), torch.device("meta"):
        fcnzoo.save(build(HEADS["fcn8s"]), tmp_path)
    assert not list(tmp_path.iterdir())
    model = trained()
    fcnzoo.save(torch.compile(model), tmp_path)  # pyright: ignore
    assert equal(fcnzoo.load(tmp_path), model)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_modes_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    """All three files have the mode a plain `open` gives."""
    before = os.umask(umask)
    try:
        fcnzoo.save(trained(), tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


@linux
@pytest.mark.parametrize("mmap", [True, False])
def test_loading_needs_little_memory(tmp_path: Path, mmap: bool) -> None:
    """Mapped, 40 MB of weights need 20 MB more at most; copied, 20 MB beyond their size."""
    head = HEADS["fcn8s hidden"].head.replace(hidden_channels=8000)
    fcnzoo.save(build(HEADS["fcn8s hidden"].replace(head=head)), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    script = f"""
        import re, sys
        from pathlib import Path
        import torch
        from fcnzoo.model.fcn import build
        from fcnzoo.weights.folder import read_config
        from fcnzoo.weights.load import load
        def peak():  # of this process alone, unlike ru_maxrss
            return 1024 * int(re.search("VmHWM:\\\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])
        with torch.device("meta"):
            build(read_config(sys.argv[1]))
        before = peak()
        model = load(sys.argv[1], mmap={mmap})
        print(peak() - before)
    """
    printed = run(script, tmp_path).communicate()[0]
    assert size > 40e6
    assert int(printed) < 20e6 + (0 if mmap else size)


# Kill-safe saving -----------------------------------------------------------------------------------------

SAVER = """
    import os, shutil, sys
    from pathlib import Path
    import fcnzoo
    from fcnzoo.weights import save as weights
    source, old, targets = map(Path, sys.argv[1:])
    model = fcnzoo.load(source, mmap=False)
    def counted(function, point):
        def call(*arguments, **options):
            point[0] -= 1
            if point[0] == 0:
                os.kill(os.getpid(), 9)
            return function(*arguments, **options)
        return call
    for point in range(1, 1000):
        target = targets / str(point)
        if old.exists():
            shutil.copytree(old, target)
        child = os.fork()
        if child == 0:
            left = [point]
            for name in ("replace", "rename", "chmod", "fsync", "mkdir", "rmdir", "open"):
                setattr(os, name, counted(getattr(os, name), left))
            for name in ("write_safetensors", "render", "_is_foreign"):
                setattr(weights, name, counted(getattr(weights, name), left))
            weights.save(model, target, provenance={"from": "source"})
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
"""


def run(script: str, *arguments: Path) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def check_old_or_new(target: Path, old: FCN | None, new: FCN) -> str:
    """A folder after a kill loads as the old or the new one, and as nothing between; then its files agree."""
    if old is None and not (target / PENDING).exists() and not (target / "config.json").exists():
        with pytest.raises(WeightsError, match=r"holds no config\.json"):
            fcnzoo.load(target)
        return "old"
    loaded = fcnzoo.load(target, verify=True)
    assert not (target / PENDING).exists()
    assert {path.name for path in target.iterdir() if not path.name.startswith(".")} == {
        "model.safetensors",
        "config.json",
        "README.md",
        *({"notes.txt", "runs"} if old is not None else {}),
    }
    found = "new" if equal(loaded, new) else "old"
    if found == "old":
        assert old is not None
        assert equal(loaded, old)
    assert ("- from: source" in (target / "README.md").read_text()) == (found == "new")
    return found


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, FCN, FCN]:
    """Two folders with networks of the same form; in the second lie files of the user's own, too."""
    new, old = trained(seed=1), trained(seed=2)
    fcnzoo.save(new, tmp_path / "source")
    fcnzoo.save(old, tmp_path / "target")
    (tmp_path / "target" / "notes.txt").write_text("mine")
    (tmp_path / "target" / "runs").mkdir()
    return tmp_path / "source", tmp_path / "target", new, old


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("fresh", [False, True])
def test_killed_at_every_step(places: tuple[Path, Path, FCN, FCN], tmp_path: Path, fresh: bool) -> None:
    """Killed before each single call that changes the disk, a save leaves the old folder or the new one."""
    source, target, new, old = places
    (tmp_path / "targets").mkdir()
    process = run(SAVER, source, tmp_path / "none" if fresh else target, tmp_path / "targets")
    process.communicate()
    assert process.returncode == 0
    folders = sorted((path for path in (tmp_path / "targets").iterdir()), key=lambda path: int(path.name))
    assert len(folders) > 15
    outcomes = [check_old_or_new(folder, None if fresh else old, new) for folder in folders]
    assert sorted(outcomes, reverse=True) == outcomes, "first old, then new"
    assert set(outcomes) == {"old", "new"}
    assert fresh or all((folder / "notes.txt").read_text() == "mine" for folder in folders)


def test_killed_at_any_time(places: tuple[Path, Path, FCN, FCN]) -> None:
    """Killed after a random time, a save leaves the old folder or the new one."""
    source, target, new, old = places
    script = """
        import sys, fcnzoo
        model = fcnzoo.load(sys.argv[1], mmap=False)
        print("go", flush=True)
        fcnzoo.save(model, sys.argv[2], provenance={"from": "source"})
    """
    for delay in (0.0, 0.005, 0.05):
        process = run(script, source, target)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        process.communicate()
        check_old_or_new(target, old, new)


def test_a_cut_short_save_is_read_where_nothing_may_be_written(places: tuple[Path, Path, FCN, FCN]) -> None:
    """Between its one decisive step and the last move, the new files are read wherever they lie."""
    source, target, new, _ = places
    (target / PENDING).mkdir()
    for name in ("model.safetensors", "config.json"):  # the card has been moved
        (target / PENDING / name).write_bytes((source / name).read_bytes())
    (target / PENDING).chmod(0o500)
    target.chmod(0o500)
    try:
        assert equal(fcnzoo.load(target), new)
        assert read_config(target) == new.config
    finally:
        target.chmod(0o700)
        if (target / PENDING).exists():
            (target / PENDING).chmod(0o700)
    fcnzoo.load(target)
    assert not (target / PENDING).exists()


def test_a_save_follows_one_that_was_cut_short(places: tuple[Path, Path, FCN, FCN]) -> None:
    """Saving into a folder with a replacement pending first finishes that one."""
    source, target, _, old = places
    (target / PENDING).mkdir()
    (target / PENDING / "config.json").write_bytes((source / "config.json").read_bytes())
    fcnzoo.save(old, target)
    assert equal(fcnzoo.load(target, verify=True), old)
    assert not (target / PENDING).exists()


def test_leftovers_of_killed_saves_are_swept(places: tuple[Path, Path, FCN, FCN]) -> None:
    """What a killed process left half written goes with the next save; what somebody is writing now stays."""
    _, target, _, old = places
    left = target / ".fcnzoo-a.part"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    with part_folder(target, ".fcnzoo-") as written:
        fcnzoo.save(old, target)
        assert not left.exists()
        assert written.exists()
    assert not written.exists()


def test_the_users_files_stay(tmp_path: Path) -> None:
    """Other files, folders, and a README that is no card of ours survive every save; our own card is replaced."""
    (tmp_path / "README.md").write_text("# My project\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("x")
    fcnzoo.save(trained(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert (tmp_path / "data" / "x").read_text() == "x"
    (tmp_path / "README.md").unlink()
    fcnzoo.save(trained(), tmp_path, license="MIT")
    fcnzoo.save(trained(), tmp_path)
    assert "MIT" not in (tmp_path / "README.md").read_text()


def test_a_folder_in_the_way_is_told_before_anything_changes(tmp_path: Path) -> None:
    """Where a folder has the name of a file, saving is an OSError and changes nothing."""
    fcnzoo.save(trained(seed=1), tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    before = content(tmp_path)
    with pytest.raises(OSError, match="folder stands"):
        fcnzoo.save(trained(seed=2), tmp_path)
    assert content(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


def test_savers_and_loaders_at_once(tmp_path: Path) -> None:
    """While processes save two networks over each other, every load gives one of them whole."""
    first, second = trained(seed=1), trained(seed=2)
    fcnzoo.save(first, tmp_path / "a")
    fcnzoo.save(second, tmp_path / "b")
    fcnzoo.save(first, tmp_path / "target")
    script = """
        import sys, time, fcnzoo
        model = fcnzoo.load(sys.argv[1], mmap=False)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            fcnzoo.save(model, sys.argv[2])
    """
    savers = [run(script, tmp_path / name, tmp_path / "target") for name in ("a", "b")]
    loads = 0
    while any(process.poll() is None for process in savers):
        loaded = fcnzoo.load(tmp_path / "target", verify=loads % 2 == 0)
        assert equal(loaded, first) or equal(loaded, second)
        loads += 1
    for process in savers:
        process.communicate()
    assert [process.returncode for process in savers] == [0, 0]
    assert loads > 5


def test_disks_that_cannot_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system cannot map files, the weights are copied."""
    model = trained()
    fcnzoo.save(model, tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(19, "No such device")

    monkeypatch.setattr("fcnzoo.files.safetensors.mmap.mmap", refuse)
    assert equal(fcnzoo.load(tmp_path), model)


def test_two_saves_while_a_folder_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved over and back between record and weights, a folder does not give one's record with the other's weights."""
    first, second = trained(seed=1), trained(seed=2)
    fcnzoo.save(first, tmp_path)
    plain, calls = model_folder._open_weights, []

    def slow(folder: Path) -> Any:
        calls.append(folder)
        if len(calls) > 1:
            return plain(folder)
        fcnzoo.save(second, tmp_path)
        file = plain(folder)
        fcnzoo.save(first, tmp_path)
        return file

    monkeypatch.setattr(model_folder, "_open_weights", slow)
    assert equal(fcnzoo.load(tmp_path, verify=True), first)
    assert len(calls) > 2
