"""Order and randomness of the pictures do not depend on processes, workers, or history."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fcnzoo.training.sampling import BatchOrder, Collate, SeededSamples, build_loader


class Noise(Dataset[tuple[Tensor, Tensor]]):
    """Pictures made of random numbers from all three generators."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        numbers = [torch.rand(()).item(), random.random(), float(np.random.rand()), float(index)]
        return torch.tensor(numbers, dtype=torch.float64), torch.full((2, 2), index)


def test_every_process_count_gives_the_same_global_batches() -> None:
    """What the processes and parts of a step compute together is the batch of a single process."""
    single = BatchOrder(25, 8, seed=3)
    single.start(2)
    whole = list(single)
    assert len(whole) == len(single) == 3
    for processes, parts in ((2, 1), (4, 2), (1, 8)):
        ranks = [
            BatchOrder(25, 8, accumulate=parts, processes=processes, rank=rank, seed=3) for rank in range(processes)
        ]
        for order in ranks:
            order.start(2)
        slices = [list(order) for order in ranks]
        for step, batch in enumerate(whole):
            joined = [key for part in range(parts) for rank in slices for key in rank[step * parts + part]]
            assert joined == batch


def test_an_epoch_is_a_permutation_of_its_own() -> None:
    """Each picture comes once per epoch, in another order in the next; a start in the middle continues it."""
    order = BatchOrder(12, 4, seed=1)
    first = [key for batch in order for key in batch]
    assert sorted(index for _, index in first) == list(range(12))
    order.start(1)
    second = [key for batch in order for key in batch]
    assert [index for _, index in first] != [index for _, index in second]
    order.start(1, step=2)
    assert [key for batch in order for key in batch] == second[8:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch_size": 6, "processes": 4}, "multiple of"), ({"batch_size": 16}, "more than the 10 training pictures")],
)
def test_impossible_batches(arguments: dict[str, int], message: str) -> None:
    """A batch that cannot be shared or filled is an error that says what would do."""
    with pytest.raises(ValueError, match=message):
        BatchOrder(10, **arguments)


def test_samples_depend_on_seed_epoch_and_index_alone() -> None:
    """The same key gives the same numbers whatever was drawn before; the global states stay as they were."""
    samples = SeededSamples(Noise(), seed=5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # pyright: ignore
    one = samples[(0, 3)][0]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # pyright: ignore
    torch.rand(7)
    assert torch.equal(samples[(0, 3)][0], one)
    assert not torch.equal(samples[(1, 3)][0][:3], one[:3])
    assert not torch.equal(SeededSamples(Noise(), seed=6)[(0, 3)][0][:3], one[:3])


def test_workers_change_nothing() -> None:
    """Batches are the same with and without worker processes, and reading them moves no global state."""
    batches = {}
    for num_workers in (0, 2):
        order = BatchOrder(10, 4, seed=2)
        state = torch.get_rng_state()
        batches[num_workers] = list(build_loader(SeededSamples(Noise(), 2), order, Collate(None, 255), num_workers))
        assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(batches[0], batches[2], strict=True):
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.target, two.target)


def test_weight_of_a_batch() -> None:
    """A batch knows the summed class weights of its counted pixels: the denominator of its mean loss."""
    target = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8)
    sample = (torch.zeros(3, 2, 2), target)
    assert Collate(None, 255)([sample, sample]).weight == 6
    assert Collate((0.5, 2.0, 4.0), 255)([sample]).weight == 6.5
