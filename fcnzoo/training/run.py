"""`train`: from a recipe to an output folder with the best weights, the last, and the record of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fcnzoo.files.atomic import atomic
from fcnzoo.training import assembly, preflight
from fcnzoo.training.checkpoint import checkpoints, read_state
from fcnzoo.training.interrupt import Interrupt
from fcnzoo.training.loop import Trainer
from fcnzoo.training.memory import kept_memory
from fcnzoo.training.objective import Criterion
from fcnzoo.training.recipe import Recipe
from fcnzoo.training.report import Reporter, read_log, rewind_log
from fcnzoo.training.selection import Selection, TrainingResult

if TYPE_CHECKING:
    from accelerate import Accelerator

    from fcnzoo.data import SegmentationDataset


def train(
    recipe: Recipe | str | Path,
    overrides: Iterable[str] = (),
    *,
    criterion: Criterion | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train a model.

    Under `accelerate launch` (or `torchrun`) the work is shared by all processes; the batch size of
    the recipe is that of all of them together, so that the result is the same.

    Args:
        recipe: What to do; a name, a file or the folder of a run is read as by `Recipe.load`.
        overrides: Fields to change, as in `Recipe.load`: `["data.root=camvid", "run.out=runs/mine"]`.
        criterion: An own loss of (logits (B, K, H, W), target (B, H, W)), in place of the model's
            cross-entropy and the recipe's `loss` section (save `aux_weight`).
        resume: Go on from the newest checkpoint in `run.out`; from the start, if there is none yet.

    Returns:
        Where the weights are and how good they are.

    Raises:
        ImportError: A package of the `train` extra is missing.
        FileExistsError: `run.out` is not empty, and `resume` was not asked for.
        FileNotFoundError: There is no such recipe, no data, or nothing to resume.
        FloatingPointError: The loss stopped being a number.
        KeyboardInterrupt: The run was stopped by SIGTERM or Ctrl-C; a checkpoint was written.
        LabelError: The data hold labels outside the label set.
        OSError: `run.out` cannot be written, or has too little space.
        TypeError: A field of the recipe has the wrong type.
        ValueError: The recipe asks for something impossible, or differs from that of the run to resume.
    """
    recipe = recipe.override(*overrides) if isinstance(recipe, Recipe) else Recipe.load(recipe, overrides)
    if not recipe.run.out:
        raise ValueError("run.out is not set: give the output folder (--out FOLDER)")
    preflight.check_extras(recipe)
    accelerator = _accelerator(recipe)
    out, main = Path(recipe.run.out), accelerator.is_main_process
    fresh = False
    if main:
        preflight.check_folder(out, 0)
        fresh = _is_fresh(out, recipe, resume)
    accelerator.wait_for_everyone()
    trainer, val_set, start = _prepare(recipe, accelerator, criterion)
    if fresh:  # only now, so that a start that failed does not stand in the way of the next
        with atomic(out / "recipe.json", "w") as file:
            file.write(recipe.to_json())
    restored = resume and trainer.restore()
    if main:
        rewind_log(out / "log.jsonl", trainer.progress.step if restored else -1)
    done = trainer.progress.step
    keep = recipe.run.keep_memory and accelerator.device.type == "cpu"
    reporter = Reporter(out, recipe.run, trainer.steps, done, main)
    with kept_memory(keep), reporter as report, Interrupt() as interrupt:
        if not restored:
            report.write("start", 0, **start, **_try_first_batch(trainer, report))
        selection = Selection(trainer, val_set, out, report)
        while trainer.progress.step < trainer.steps or trainer.progress.batch:
            trainer.epoch(report, interrupt)
            selection.end_epoch()
        result = selection.finish()
    accelerator.wait_for_everyone()
    return result


def _prepare(
    recipe: Recipe, accelerator: Accelerator, criterion: Criterion | None
) -> tuple[Trainer, SegmentationDataset, dict[str, Any]]:
    """Read the data and build the model; return the trainer, the validation split, and what to log."""
    torch.manual_seed(recipe.run.seed)  # the same fresh weights in every process
    train_set = assembly.build_dataset(recipe, recipe.data.train_split)
    val_set = assembly.build_dataset(recipe, recipe.data.val_split)
    preflight.check_classes(recipe, {"training": train_set, "validation": val_set})
    weights = assembly.class_weights(recipe, train_set)
    model = assembly.build_model(recipe, train_set.label_set, weights)
    start: dict[str, Any] = {"train_images": len(train_set), "val_images": len(val_set), "class_weights": weights}
    folder = Path(recipe.run.out)
    saved = checkpoints(folder / "checkpoints")
    if saved and (preprocess := read_state(saved[-1])[1]) is not None:
        model.config = model.config.replace(preprocess=preprocess)
    elif not saved and recipe.model.init_from:
        start["init_from"] = asdict(assembly.initialize_from(model, recipe.model.init_from))
    assembly.set_transform(recipe, train_set, model)
    if accelerator.is_main_process:
        preflight.check_folder(folder, preflight.bytes_of_run(recipe, model))
    accelerator.wait_for_everyone()
    return Trainer(recipe, accelerator, model, train_set, criterion), val_set, start


def _try_first_batch(trainer: Trainer, report: Reporter) -> dict[str, Any]:
    """Send the first batch through before the first step; return what to log about it."""
    batch = trainer.first_batch()
    seen = preflight.labels_seen(batch.target, trainer.model)
    loss = preflight.try_batch(trainer.model, trainer.prepared, batch, trainer.accelerator.device)
    report.say(f"first batch: loss {loss:.3f}; " + ", ".join(f"{name} {share:.1%}" for name, share in seen.items()))
    return {"first_loss": loss, "labels_seen": seen}


def _accelerator(recipe: Recipe) -> Accelerator:
    """Return the engine for a recipe, whatever runs this Python process did before.

    Raises:
        ValueError: `accelerate launch` was told to shard the model.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DistributedDataParallelKwargs, DistributedType, InitProcessGroupKwargs

    # Accelerate keeps its state in singletons, so that a second run with another precision would be refused.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    accelerator = Accelerator(
        mixed_precision=recipe.run.mixed_precision,
        gradient_accumulation_steps=recipe.optim.accumulate,
        cpu=recipe.run.device == "cpu",
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=recipe.run.find_unused_parameters),
            InitProcessGroupKwargs(timeout=timedelta(hours=3)),  # the others wait while one process evaluates
        ],
    )
    plain = {DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU}
    if accelerator.distributed_type not in plain:
        raise ValueError(
            f"accelerate is set up for {accelerator.distributed_type}, which splits the model; fcnzoo's networks fit "
            "one device and train with DDP: use `accelerate launch --multi_gpu` (or no option)"
        )
    return accelerator


def _is_fresh(out: Path, recipe: Recipe, resume: bool) -> bool:
    """Whether the output folder is empty or holds a run without a single step; raise unless it is the run to resume."""
    visible = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    own = out / "recipe.json"
    if not visible or (own.is_file() and not _has_steps(out, visible)):
        return True
    if not resume:
        raise FileExistsError(
            f"{out} is not empty ({', '.join(visible[:4])}); resume it (--resume), or choose another --out"
        )
    if not own.is_file():
        raise FileNotFoundError(
            f"{out} has no recipe.json: it is not the output of a training run; choose another --out"
        )
    differences = recipe.differences(Recipe.load(own))
    if differences:
        raise ValueError(
            f"cannot resume {out} with another recipe: {'; '.join(differences)}. "
            "Resume without these options, or start anew in another --out"
        )
    return False


def _has_steps(out: Path, names: Iterable[str]) -> bool:
    """Whether a folder may hold more than what a start leaves that fails before the first step."""
    if set(names) - {"recipe.json", "log.jsonl", "tensorboard", "checkpoints"} or checkpoints(out / "checkpoints"):
        return True
    return any(entry["kind"] != "start" for entry in read_log(out / "log.jsonl"))
