"""Which picture comes when, and with which random numbers.

Both are functions of the seed, the epoch and the picture's index alone. Neither depends on how many
processes or workers share the work, nor on what ran before: that is what makes a resumed run, and a
run on several machines, the same run.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Key = tuple[int, int]
"""Epoch and index of a picture."""


class Batch(NamedTuple):
    """What one process computes at once.

    Attributes:
        image: (B, C, H, W).
        target: (B, H, W) integers.
        weight: Sum of the class weights of the pixels that count; the loss is a mean over it.
    """

    image: Tensor
    target: Tensor
    weight: Tensor


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed from numbers, so that neighboring ones give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class BatchOrder(Sampler[list[Key]]):
    """The part of each global batch that one process computes.

    An epoch is a random permutation of the pictures, cut into batches of `batch_size`; what does not
    fill a batch at the end waits for the next epoch. Each batch is cut into `accumulate` parts, each
    part into one slice per process.

    Args:
        count: Number of pictures.
        batch_size: Pictures per optimizer step, over all processes.
        accumulate: Parts computed one after the other.
        processes: How many processes there are.
        rank: Which one this is.
        seed: Of the order.

    Raises:
        ValueError: The batch cannot be cut so, or is larger than the data set.
    """

    def __init__(
        self, count: int, batch_size: int, *, accumulate: int = 1, processes: int = 1, rank: int = 0, seed: int = 0
    ):
        if batch_size % (accumulate * processes):
            raise ValueError(
                f"optim.batch_size {batch_size} must be a multiple of "
                f"optim.accumulate ({accumulate}) × processes ({processes})"
            )
        if batch_size > count:
            raise ValueError(
                f"optim.batch_size {batch_size} is more than the {count} training pictures; give at most {count}"
            )
        self.count, self.batch_size, self.accumulate = count, batch_size, accumulate
        self.processes, self.rank, self.seed = processes, rank, seed
        self.epoch, self.first = 0, 0

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.count // self.batch_size

    def start(self, epoch: int, step: int = 0) -> None:
        """Go to an epoch, at its `step`-th batch."""
        self.epoch, self.first = epoch, step

    def __len__(self) -> int:
        return (self.steps_per_epoch - self.first) * self.accumulate

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield this process' keys, part by part."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        size = self.batch_size // (self.accumulate * self.processes)
        for step in range(self.first, self.steps_per_epoch):
            for part in range(self.accumulate):
                begin = step * self.batch_size + (part * self.processes + self.rank) * size
                yield [(self.epoch, index) for index in order[begin : begin + size]]


class SeededSamples(Dataset[tuple[Tensor, Tensor]]):
    """A data set whose random transforms draw from a seed of their own for each picture and epoch.

    torch's, Python's and NumPy's global random states are as before after each access.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        import numpy as np

        epoch, index = key
        seed = derive_seed(self.seed, epoch, index)
        generator = torch.default_generator
        states = generator.get_state(), random.getstate(), np.random.get_state()
        try:
            generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)
            return self.dataset[index]
        finally:
            generator.set_state(states[0])
            random.setstate(states[1])
            np.random.set_state(states[2])


class Collate:
    """Stack samples to a `Batch`; a class, so that worker processes can receive it.

    Args:
        class_weights: One per class, or `None`: all 1.
        ignore_index: Target value that does not count.
    """

    def __init__(self, class_weights: Sequence[float] | None, ignore_index: int) -> None:
        self.class_weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
        self.ignore_index = ignore_index

    def __call__(self, samples: Sequence[tuple[Tensor, Tensor]]) -> Batch:
        """Stack (C, H, W) images and (H, W) targets, and add up the weights of the counted pixels."""
        image = torch.stack([sample[0].as_subclass(Tensor) for sample in samples])
        target = torch.stack([sample[1].as_subclass(Tensor) for sample in samples])
        counted = target != self.ignore_index
        if self.class_weights is None:
            weight = counted.sum(dtype=torch.float64)
        else:
            # Labels outside the set are reported by the check before the first step, not here.
            counts = torch.bincount(target[counted].long().clamp_min(0), minlength=len(self.class_weights))
            weight = counts[: len(self.class_weights)].double() @ self.class_weights
        return Batch(image, target, weight)


def build_loader(samples: SeededSamples, order: BatchOrder, collate: Collate, num_workers: int) -> Iterable[Batch]:
    """Return the loader of one process' batches."""
    return DataLoader(
        samples,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        # A loader draws a base seed at each start. From the global generator, that would move the
        # random numbers of dropout whenever a run is resumed in the middle of an epoch.
        generator=torch.Generator().manual_seed(0),
    )
