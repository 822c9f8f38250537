"""Whole runs on the tiny data set: what they write, refuse, and how they go on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import fcnzoo
from fcnzoo.config import Preprocess
from fcnzoo.errors import LabelError, WeightsError
from fcnzoo.training import Recipe, preflight, train

Tiny = Callable[..., Recipe]
HARD = (
    "schedule.epochs=8",
    "optim.ema=0.9",
    "run.channels_last=true",
    "run.checkpoint_steps=1",
    "model.head.hidden_channels=8",
    "model.head.dropout=0.3",
)
"""Everything that has a state: average, memory order, dropout."""

SCRIPT = """
import sys, torch
from fcnzoo.training import train
torch.set_num_threads(1)
train(sys.argv[1])
"""


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def _log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def _subprocess(recipe: Recipe, tmp_path: Path, *launcher: str) -> subprocess.Popen[str]:
    path = tmp_path / f"{Path(recipe.run.out).name}.json"
    path.write_text(recipe.to_json())
    root = Path(fcnzoo.__file__).parents[1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(root)}
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, *launcher, str(script), str(path)], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_what_a_run_leaves(tiny: Tiny, tmp_path: Path) -> None:
    """A run learns, and leaves recipe, log, the last two checkpoints, best and final weights, and plots."""
    out = tmp_path / "out"
    result = train(
        tiny(
            "out", "schedule.epochs=12", "run.plots=true", "run.tensorboard=true", "loss.class_weights=median_frequency"
        )
    )
    names = {"recipe.json", "log.jsonl", "checkpoints", "best", "final", "tensorboard"}
    assert {path.name for path in out.iterdir()} == names | {"curves.png", "confusion.png", "pictures.png"}
    assert len(list((out / "checkpoints").iterdir())) == 2
    entries = _log(out)
    scores = [entry["mean_iou"] for entry in entries if entry["kind"] == "val"]
    assert len(scores) == 12
    assert result.mean_iou == max(scores) > 0.6
    assert result.epoch == 1 + scores.index(max(scores))
    assert result.steps == 36
    model = fcnzoo.load(out / "best")
    assert model.label_set is not None
    assert model.label_set.names == ("red", "green", "blue")
    assert model.config.loss.class_weights is not None
    record = json.loads((out / "best" / "config.json").read_text())
    assert record["metrics"][0]["value"] == result.mean_iou
    assert str(tmp_path) not in (out / "best" / "config.json").read_text()
    assert entries[0]["kind"] == "start"
    assert set(entries[0]["labels_seen"]) == {"red", "green", "blue", "ignored"}


def test_names_and_overrides(tiny: Tiny, tmp_path: Path) -> None:
    """A recipe by its name or file is trained as the record is; overrides are a list of texts, not one."""
    (tmp_path / "mine.json").write_text(tiny("there").to_json(), encoding="utf-8")
    changes = ["schedule.epochs=1", f"run.out={tmp_path / 'one'}"]
    assert fcnzoo.train(tmp_path / "mine.json", changes).steps == 3
    assert fcnzoo.train(tiny("there"), [*changes[:1], f"run.out={tmp_path / 'two'}"]).steps == 3
    one, two = (_weights(tmp_path / name / "best") for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not (tmp_path / "there").exists()
    for recipe in ("folder", tiny("there")):
        with pytest.raises(ValueError, match="in a list"):
            fcnzoo.train(recipe, "schedule.epochs=1")


def test_same_seed_same_weights(tiny: Tiny, tmp_path: Path) -> None:
    """Two runs of a seed agree to the bit, with worker processes too; another seed gives other weights."""
    for name, change in (("one", "run.seed=1"), ("two", "run.seed=1"), ("other", "run.seed=2")):
        train(tiny(name, *HARD[1:], change, f"data.num_workers={2 if name == 'two' else 0}"))
    one, two, other = (_weights(tmp_path / name / "final") for name in ("one", "two", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_kill_and_resume(tiny: Tiny, tmp_path: Path) -> None:
    """After kill -9 at a random step, a resumed run ends in the bits of an uninterrupted one."""
    train(tiny("whole", *HARD))
    recipe = tiny("killed", *HARD)
    out = tmp_path / "killed"
    steps = random.Random().randint(1, 20)
    process = _subprocess(recipe, tmp_path)
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or len((out / "log.jsonl").read_bytes().splitlines()) < steps:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "final").exists()
    result = train(recipe, resume=True)
    for folder in ("final", "best", "checkpoints/step-00000024"):
        whole, killed = _weights(tmp_path / "whole" / folder), _weights(out / folder)
        assert all(torch.equal(whole[name], killed[name]) for name in whole), (folder, steps)
    essence = [
        [{**entry, "time": 0, "images_per_second": 0} for entry in _log(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert essence[0] == essence[1]
    assert train(recipe, resume=True).mean_iou == result.mean_iou  # a finished run is finished


def test_two_processes_equal_one(tiny: Tiny, tmp_path: Path) -> None:
    """Two gloo processes with accumulation give one process' weights to 1e-5, although void is spread unevenly."""
    changes = (
        "optim.freeze_batchnorm=all",
        "optim.optimizer=sgd",
        "optim.lr=0.1",
        "optim.clip_norm=1.0",
        "loss.class_weights=median_frequency",
    )
    train(tiny("one", *changes))
    recipe = tiny("two", *changes, "optim.accumulate=2")
    process = _subprocess(recipe, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    errors = process.communicate(timeout=180)[1]
    assert process.returncode == 0, errors
    one, two = _weights(tmp_path / "one" / "final"), _weights(tmp_path / "two" / "final")
    torch.manual_seed(0)
    start = fcnzoo.create("fcn8s_test_resnet", num_classes=3).state_dict()
    assert max(float((one[name] - start[name]).abs().max()) for name in one if "score" in name) > 0.01
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-5)
    losses = [[entry["loss"] for entry in _log(tmp_path / name) if entry["kind"] == "train"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_accumulation_is_exact(tiny: Tiny, tmp_path: Path) -> None:
    """A batch in four parts gives the gradient of the whole batch, although parts count different pixels."""
    for name, parts in (("whole", 1), ("parts", 4)):
        train(
            tiny(name, "optim.freeze_batchnorm=all", "optim.optimizer=sgd", "optim.lr=0.1", f"optim.accumulate={parts}")
        )
    whole, parts = _weights(tmp_path / "whole" / "final"), _weights(tmp_path / "parts" / "final")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=1e-5)


def test_stage_wise_training(tiny: Tiny, tmp_path: Path) -> None:
    """A finished 32s starts a 16s: all of it is taken, the new score layer is listed; going back is an error."""
    train(tiny("coarse", "model.name=fcn32s_test_resnet", "schedule.epochs=1"))
    coarse = _weights(tmp_path / "coarse" / "best")
    recipe = tiny(
        "fine",
        "model.name=fcn16s_test_resnet",
        "schedule.steps=1",
        f"model.init_from={tmp_path}/coarse/best",
        "optim.lr=0.0",
    )
    train(recipe)
    start = _log(tmp_path / "fine")[0]["init_from"]
    assert sorted(start["taken"]) == sorted(coarse)
    assert start["fresh"] == ["head.score.16.weight", "head.score.16.bias"]
    fine = _weights(tmp_path / "fine" / "final")
    assert torch.equal(fine["head.score.32.weight"], coarse["head.score.32.weight"])
    with pytest.raises(WeightsError, match=r"no place for head.score.16"):
        train(tiny("back", "model.name=fcn32s_test_resnet", f"model.init_from={tmp_path}/fine/best"))


def test_init_from_other_classes_and_networks(tiny: Tiny, tmp_path: Path) -> None:
    """With other classes, the score layers alone stay fresh; another backbone does not fit."""
    fcnzoo.save(fcnzoo.create("fcn8s_test_resnet", num_classes=7), tmp_path / "seven")
    fcnzoo.save(fcnzoo.create("fcn8s_test_efficientnet", num_classes=3), tmp_path / "foreign")
    train(tiny("out", "schedule.steps=1", f"model.init_from={tmp_path}/seven"))
    fresh = _log(tmp_path / "out")[0]["init_from"]["fresh"]
    assert len(fresh) == 6
    assert all(name.startswith("head.score.") for name in fresh)
    with pytest.raises(WeightsError, match="backbone"):
        train(tiny("bad", f"model.init_from={tmp_path}/foreign"))


def test_preprocessing_comes_with_the_first_weights(tiny: Tiny, tmp_path: Path) -> None:
    """A 16s from a 32s that saw BGR of 0–255 sees it too, from the first picture; also resumed, the 32s being gone."""
    seen = Preprocess(mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255)
    coarse = fcnzoo.create("fcn32s_test_resnet", num_classes=3)
    coarse.config = coarse.config.replace(preprocess=seen)
    fcnzoo.save(coarse, tmp_path / "coarse")
    changes = ("model.name=fcn16s_test_resnet", f"model.init_from={tmp_path}/coarse", "optim.lr=0.0")
    train(tiny("whole", *changes))
    whole = fcnzoo.load(tmp_path / "whole" / "final")
    assert whole.preprocess == seen
    # BatchNorm's first statistics: about 60 times those of pictures that were divided by 255 and a deviation.
    train(tiny("plain", "model.name=fcn16s_test_resnet", "optim.lr=0.0"))
    key = next(name for name in whole.state_dict() if name.endswith("running_var"))
    assert whole.state_dict()[key].mean() > 100 * _weights(tmp_path / "plain" / "final")[key].mean()

    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(sorted((tmp_path / "again" / "checkpoints").iterdir())[-1])
    shutil.rmtree(tmp_path / "coarse")
    train(tiny("again", *changes), resume=True)
    assert fcnzoo.load(tmp_path / "again" / "final").preprocess == seen
    again = _weights(tmp_path / "again" / "final")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.state_dict().items())


def test_checkpoints_of_other_versions(tiny: Tiny, tmp_path: Path) -> None:
    """One without preprocessing and digests, of format 1, is taken up; a newer one is refused."""
    train(tiny("out"))
    newest = sorted((tmp_path / "out" / "checkpoints").iterdir())[-1] / "state.json"
    state = json.loads(newest.read_text())
    newest.with_name("digests.json").unlink()
    newest.write_text(json.dumps({**{key: state[key] for key in state if key != "preprocess"}, "format": 1}))
    train(tiny("out"), resume=True)
    newest.write_text(json.dumps({**state, "format": state["format"] + 1}))
    with pytest.raises(ValueError, match="newer fcnzoo"):
        train(tiny("out"), resume=True)


def test_own_criterion(tiny: Tiny, tmp_path: Path) -> None:
    """Any function of (logits, target) can be the loss; the plain cross-entropy gives the built-in weights."""

    def plain(logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(logits, target, ignore_index=255)

    train(tiny("own", "optim.freeze_batchnorm=all"), criterion=plain)
    train(tiny("builtin", "optim.freeze_batchnorm=all"))
    own, builtin = _weights(tmp_path / "own" / "final"), _weights(tmp_path / "builtin" / "final")
    for name, value in builtin.items():
        torch.testing.assert_close(own[name], value, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match=r"trained with criterion .*plain"):
        train(tiny("own", "optim.freeze_batchnorm=all"), resume=True)


def test_criterion_that_does_not_fit(tiny: Tiny) -> None:
    """A criterion that returns no scalar is found before the first step."""
    with pytest.raises(ValueError, match="must be a finite scalar"):
        train(
            tiny("out"),
            criterion=lambda logits, target: F.cross_entropy(logits, target, ignore_index=255, reduction="none"),
        )


def test_aux_head_bf16_and_frozen_backbone(tiny: Tiny, tmp_path: Path) -> None:
    """The aux loss, mixed precision and a frozen backbone work together; frozen weights keep their bits."""
    recipe = tiny(
        "out",
        "model.name=fcn_test_resnet",
        "model.aux=true",
        "run.mixed_precision=bf16",
        "optim.backbone_lr=0",
        "optim.freeze_batchnorm=backbone",
    )
    train(recipe)
    torch.manual_seed(0)
    start = fcnzoo.create("fcn_test_resnet", num_classes=3, aux=True).state_dict()
    end = _weights(tmp_path / "out" / "final")
    changed = {name.partition(".")[0] for name in end if not torch.equal(end[name], start[name])}
    assert changed == {"head", "aux_head"}


def test_output_folder_in_use(tiny: Tiny, tmp_path: Path) -> None:
    """A folder with files in it is refused and left alone; so is resuming what is no run, or another recipe."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(FileExistsError, match=r"thesis.txt"):
        train(tiny("out"))
    with pytest.raises(FileNotFoundError, match="not the output of a training run"):
        train(tiny("out"), resume=True)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    train(tiny("run", "schedule.steps=1"))
    with pytest.raises(ValueError, match=r"optim\.lr: 0\.01 there, 0\.5 here"):
        train(tiny("run", "schedule.steps=1", "optim.lr=0.5"), resume=True)


def test_unwritable_folder_and_full_disk(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be written, or a disk too small for the checkpoints, is found before training."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot train into .*file/out"):
        train(tiny("file/out"))
    small = shutil._ntuple_diskusage(total=1 << 30, used=(1 << 30) - (1 << 20), free=1 << 20)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: small)
    with pytest.raises(OSError, match=r"1.0 MB are free"):
        train(tiny("out"))
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_missing_extra(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that only the end of the run needs is asked for at its start."""
    find = preflight.importlib.util.find_spec
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    with pytest.raises(ImportError, match=r"matplotlib .*fcnzoo\[train\]"):
        train(tiny("out", "run.plots=true"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("data.root=",), "data.root is not set"),
        (("run.out=",), "run.out is not set"),
        (("data.class_names=[]",), "needs the classes"),
        (("model.head.num_convs=2",), "head has no field 'num_convs'"),
        (("optim.batch_size=100",), "more than the 12 training pictures"),
    ],
)
def test_recipes_that_cannot_run(tiny: Tiny, changes: tuple[str, ...], message: str) -> None:
    """What a valid recipe cannot do with this data or model is said before training."""
    with pytest.raises(ValueError, match=message):
        train(tiny("out", *changes))


def test_labels_outside_the_set(tiny: Tiny) -> None:
    """Masks with more labels than names stop the run at once."""
    with pytest.raises(LabelError):
        train(tiny("out", 'data.class_names=["red", "green"]'))


def test_diverging_loss(tiny: Tiny, tmp_path: Path) -> None:
    """Weights or a loss that are no numbers stop the run with advice, and no checkpoint of them is kept."""
    for every in (0, 1):
        with pytest.raises(FloatingPointError, match=r"Lower optim\.lr"):
            train(tiny(f"out{every}", "optim.lr=1e38", "optim.optimizer=sgd", f"run.checkpoint_steps={every}"))
        for path in (tmp_path / f"out{every}" / "checkpoints").glob("*/model.safetensors"):
            assert all(value.isfinite().all() for value in load_file(path).values())


def test_sigterm_writes_a_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    """SIGTERM ends the run after the step at hand, with a checkpoint of it."""

    def stop(logits: Tensor, target: Tensor) -> Tensor:
        stop.calls += 1  # pyright: ignore[reportFunctionMemberAccess]
        if stop.calls == 6:  # pyright: ignore[reportFunctionMemberAccess] # the trial, then steps 1 to 5
            os.kill(os.getpid(), signal.SIGTERM)
        return F.cross_entropy(logits, target, ignore_index=255)

    stop.calls = 0  # pyright: ignore[reportFunctionMemberAccess]
    with pytest.raises(KeyboardInterrupt):
        train(tiny("out"), criterion=stop)
    assert (tmp_path / "out" / "checkpoints" / "step-00000005").is_dir()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_every_byte_of_a_checkpoint_counts(tiny: Tiny, tmp_path: Path) -> None:
    """A flipped bit in any file of the newest checkpoint, or a file that is gone, is an error that names it."""
    recipe = tiny("out", "optim.ema=0.9", "schedule.epochs=1")
    train(recipe)
    newest = sorted((tmp_path / "out" / "checkpoints").iterdir())[-1]
    names = sorted(path.name for path in newest.iterdir())
    assert names == [
        "average.safetensors",
        "digests.json",
        "model.safetensors",
        "optimizer.safetensors",
        "random-0.json",
        "state.json",
    ]
    for name in names:
        whole = (newest / name).read_bytes()
        for place in (len(whole) // 3, len(whole) - 5):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            (newest / name).write_bytes(damaged)
            with pytest.raises(WeightsError, match=newest.name):
                train(recipe, resume=True)
        (newest / name).unlink()
        with pytest.raises(WeightsError, match=newest.name):
            train(recipe, resume=True)
        (newest / name).write_bytes(whole)
    train(recipe, resume=True)
