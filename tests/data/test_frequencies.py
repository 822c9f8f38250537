from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fcnzoo.data import SegmentationFolder, class_frequencies, median_frequency_weights
from fcnzoo.labels import LabelSet


@pytest.mark.parametrize("check", [True, False])
def test_counts_are_those_of_the_files(tmp_path: Path, write_pair, three: LabelSet, check: bool) -> None:
    """Frequencies are the pixels of each class over all masks, without the ignored ones."""
    for name in ("a", "bb"):
        write_pair(name)
    counts = class_frequencies(SegmentationFolder(tmp_path, three, check=check))
    pixels = np.concatenate(
        [np.asarray(Image.open(tmp_path / "masks" / f"{name}.png")).ravel() for name in ("a", "bb")]
    )
    assert counts.dtype == torch.int64
    assert counts.tolist() == [int((pixels == label).sum()) for label in range(3)]
    assert counts.sum() == pixels.size - 2


def test_counts_of_wide_masks(tmp_path: Path, write_pair) -> None:
    """Masks in int64, whose ignore index is −1, are counted alike."""
    write_pair("a")
    minus = LabelSet.from_names(("a", "b", "c")).replace(ignore_index=-1)
    data = SegmentationFolder(tmp_path, minus, ignore=(255,))
    assert class_frequencies(data).tolist() == [int((data.mask(0) == label).sum()) for label in range(3)]


def test_median_frequency_weights() -> None:
    """Weight = (median share / share) ** power, cut at the maximum; an absent class has weight 1."""
    counts = torch.tensor([100, 400, 0, 500])
    torch.testing.assert_close(median_frequency_weights(counts), torch.tensor([4.0, 1.0, 1.0, 0.8]))
    torch.testing.assert_close(median_frequency_weights(counts, power=0.5), torch.tensor([2.0, 1.0, 1.0, 0.8**0.5]))
    torch.testing.assert_close(median_frequency_weights(counts, max_weight=3), torch.tensor([3.0, 1.0, 1.0, 0.8]))
    even = median_frequency_weights(torch.tensor([100, 300]))
    torch.testing.assert_close(even, torch.tensor([2.0, 2 / 3]))


@pytest.mark.parametrize("counts", [[0, 0], [-1, 5], [], [[1, 2]]], ids=str)
def test_impossible_counts_are_refused(counts: list[int]) -> None:
    """Counts that are negative, all 0, or no vector are an error."""
    with pytest.raises(ValueError, match="counts must be"):
        median_frequency_weights(torch.tensor(counts))


def test_impossible_powers_are_refused() -> None:
    """A negative power and a maximum of 0 are errors."""
    with pytest.raises(ValueError, match="power"):
        median_frequency_weights(torch.tensor([1]), power=-1)
    with pytest.raises(ValueError, match="max_weight"):
        median_frequency_weights(torch.tensor([1]), max_weight=0)
