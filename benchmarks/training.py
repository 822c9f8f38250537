"""Training speed of `fcnzoo.training` beside a minimal hand-written loop: same network, data, transform, optimizer.

    python -m benchmarks.training [--steps 4] [--rounds 5]

The two take turns, a few steps each, in a process of their own, since the memory allocator's settings belong to a
process; the table gives the median images per second of the rounds.
Pictures are made up: what is measured is reading, transforming, one forward, one backward and one update.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from fcnzoo.data import CamVid
from fcnzoo.training import Recipe, assembly
from fcnzoo.training.loop import Trainer
from fcnzoo.training.memory import kept_memory
from fcnzoo.training.run import _accelerator

MODEL = "fcn8s_tf_efficientnet_lite0"


def make_data(root: Path, count: int) -> None:
    """Write pictures of 360×480 with masks of 11 classes, in CamVid's layout."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for i in range(count):
            for kind in ("images", "masks"):
                (root / split / kind).mkdir(parents=True, exist_ok=True)
            coarse = rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((480, 360)).save(root / split / "images" / f"{i}.jpg", quality=95)
            labels = rng.integers(0, 12, (15, 20), dtype=np.uint8)
            Image.fromarray(labels).resize((480, 360), Image.Resampling.NEAREST).save(
                root / split / "masks" / f"{i}.png"
            )


def ours(recipe: Recipe) -> Callable[[], None]:
    """Return one step of `fcnzoo.training`."""
    data = CamVid(recipe.data.root)
    model = assembly.build_model(recipe, data.label_set, None)
    assembly.set_transform(recipe, data, model)
    trainer = Trainer(recipe, _accelerator(recipe), model, data, None)

    def batches() -> Iterator[list[object]]:
        for epoch in itertools.count():
            trainer.order.start(epoch)
            yield from ([batch] for batch in trainer.loader)

    stream = batches()
    return lambda: trainer._update(next(stream)) and None  # type: ignore[arg-type]


def by_hand(recipe: Recipe) -> Callable[[], None]:
    """Return one step of the loop that anybody would write."""
    data = CamVid(recipe.data.root)
    model = assembly.build_model(recipe, data.label_set, None)
    assembly.set_transform(recipe, data, model)
    model.train().to(memory_format=torch.channels_last)
    loader = DataLoader(data, batch_size=recipe.optim.batch_size, shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stream = itertools.chain.from_iterable(loader for _ in itertools.count())

    def step() -> None:
        image, target = next(stream)
        loss = model(image.contiguous(memory_format=torch.channels_last), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def work(kind: str, recipe: str, turns: Connection) -> None:
    """Build a loop in a process of its own, and do as many steps as asked, again and again."""
    step = LOOPS[kind](Recipe.from_json(recipe))
    with kept_memory(kind == "fcnzoo.training"):  # as `fcnzoo.training` itself does
        while count := turns.recv():
            start = time.perf_counter()
            for _ in range(count):
                step()
            turns.send((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


LOOPS: dict[str, Callable[[Recipe], Callable[[], None]]] = {"fcnzoo.training": ours, "by hand": by_hand}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder) / "data", 32)
        changes = [f"data.root={folder}/data", f"run.out={folder}/out", "run.device=cpu", "optim.ema=0"]
        # The same learning rate from the first step on, as by hand.
        changes += ["schedule.warmup_steps=0", "optim.lr=0.001", "optim.backbone_lr=0.001"]
        changes += [f"model.name={MODEL}", "model.pretrained_backbone=false", "loss.class_weights=none"]
        recipe = Recipe.load("camvid_lite0", changes)
        speeds, memory = measure(recipe, options.steps, options.rounds)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"{torch.get_num_threads()} threads, batch {recipe.optim.batch_size}, crop {recipe.augment.crop}")
    for name, value in medians.items():
        print(f"{name:14} {value:6.2f} images/s  peak {memory[name]:6.0f} MB")
    print(f"ratio          {medians['fcnzoo.training'] / medians['by hand']:6.3f}")


def measure(recipe: Recipe, steps: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Let the two take turns; return images per second of every round, and each one's peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    turns: dict[str, Connection] = {}
    for kind in LOOPS:
        turns[kind], theirs = context.Pipe()
        context.Process(target=work, args=(kind, recipe.to_json(), theirs), daemon=True).start()
    speeds: dict[str, list[float]] = {kind: [] for kind in LOOPS}
    memory: dict[str, float] = {}
    for turn in range(rounds + 1):
        for kind, connection in turns.items():
            connection.send(steps)
            seconds, memory[kind] = connection.recv()
            if turn:  # the first round warms up
                speeds[kind].append(steps * recipe.optim.batch_size / seconds)
    for connection in turns.values():
        connection.send(0)
    return speeds, memory


if __name__ == "__main__":
    main()
