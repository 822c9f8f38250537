"""`ops.upsample_argmax` and `ops.upsample_confusion`: against argmax of the logits and counting in Python."""

from __future__ import annotations

import pytest
import torch

from fcnzoo import ops
from fcnzoo.config import Grid
from fcnzoo.errors import LabelError

GRIDS = [
    Grid(),
    Grid(multiple=32),
    Grid(align_corners=True),
    Grid(align_corners=True, multiple=32),
    Grid(stride=8, offset=27, border="zeros"),
]


def count(truth: torch.Tensor, predicted: torch.Tensor, classes: int, ignore: int) -> torch.Tensor:
    """Confusion matrix, pixel by pixel."""
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for t, p in zip(truth.flatten().tolist(), predicted.flatten().tolist(), strict=True):
        if t != ignore:
            matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(37, 41), (1, 1), (64, 33)])
def test_labels_are_the_argmax_of_the_logits(grid: Grid, size: tuple[int, int]) -> None:
    """At every pixel the label is the class of the highest upsampled score."""
    scores = torch.randn(2, 5, 9, 11, dtype=torch.float64)
    got = ops.upsample_argmax(scores, grid, size)
    assert torch.equal(got.long(), ops.upsample(scores, grid, size).argmax(1))


@pytest.mark.parametrize(("classes", "dtype"), [(1, torch.uint8), (256, torch.uint8), (257, torch.int16)])
def test_dtype_is_the_smallest_that_holds_the_labels(classes: int, dtype: torch.dtype) -> None:
    """Labels are uint8 up to 256 classes and int16 above, and the highest class survives."""
    scores = torch.zeros(1, classes, 2, 2)
    scores[:, -1] = 1
    labels = ops.upsample_argmax(scores, Grid(), (3, 3))
    assert labels.dtype == ops.label_dtype(classes) == dtype
    assert (labels == classes - 1).all()


def test_equal_scores_go_to_the_lower_class() -> None:
    """Of equal scores the lower class wins, on every grid."""
    for grid in GRIDS:
        labels = ops.upsample_argmax(torch.ones(1, 7, 6, 6), grid, (9, 9))
        assert not labels.any()


def test_more_classes_than_int16_holds_are_refused() -> None:
    """32,769 classes are a ValueError that says how many fit."""
    with pytest.raises(ValueError, match=r"32768"):
        ops.upsample_argmax(torch.zeros(1, 2**15 + 1, 1, 1), Grid(), (1, 1))


@pytest.mark.parametrize("bad", [torch.zeros(2, 3, 3), torch.zeros(3)])
def test_labels_of_wrong_rank_are_refused(bad: torch.Tensor) -> None:
    """Scores that are not (B, K, h, w) are a ValueError."""
    with pytest.raises(ValueError, match="scores"):
        ops.upsample_argmax(bad, Grid(), (4, 4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16])
@pytest.mark.parametrize("grid", GRIDS)
def test_confusion_counts_every_pixel_once(grid: Grid, dtype: torch.dtype) -> None:
    """Rows are the truth, columns the prediction; ignored pixels are not counted."""
    ignore = 100
    scores = torch.randn(2, 4, 9, 9)
    target = torch.randint(0, 4, (2, 13, 17))
    target[:, :3] = ignore
    got = ops.upsample_confusion(scores, target.to(dtype), grid, ignore_index=ignore)
    assert got.dtype == torch.int64
    assert torch.equal(got, count(target, ops.upsample_argmax(scores, grid, (13, 17)), 4, ignore))
    assert int(got.sum()) == int((target != ignore).sum())


def test_confusion_of_ignored_pixels_is_zero() -> None:
    """A target that is ignored everywhere gives zeros of shape (K, K)."""
    got = ops.upsample_confusion(torch.randn(1, 3, 2, 2), torch.full((1, 4, 4), 255, dtype=torch.uint8), Grid())
    assert torch.equal(got, torch.zeros(3, 3, dtype=torch.int64))


def test_confusion_with_many_classes_takes_bytes() -> None:
    """With 300 classes a uint8 target is as good as any other: numbers must not wrap around at 256."""
    scores = torch.randn(1, 300, 2, 2)
    target = torch.tensor([[[0, 50], [200, 255]]])
    got = ops.upsample_confusion(scores, target.to(torch.uint8), Grid(), ignore_index=-1)
    assert torch.equal(got, ops.upsample_confusion(scores, target, Grid(), ignore_index=-1))
    assert int(got.sum()) == 4


def test_confusion_refuses_labels_out_of_range() -> None:
    """A label that is no class is a LabelError."""
    with pytest.raises(LabelError, match=r"\[7\].*0…3"):
        ops.upsample_confusion(torch.randn(1, 4, 2, 2), torch.full((1, 4, 4), 7), Grid())


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 4, 4)])
def test_confusion_refuses_targets_of_wrong_shape(shape: tuple[int, ...]) -> None:
    """A target that is not (B, H, W) is a ValueError."""
    with pytest.raises(ValueError, match="target must be"):
        ops.upsample_confusion(torch.randn(1, 4, 2, 2), torch.zeros(shape, dtype=torch.int64), Grid())


@pytest.mark.parametrize("shape", [(4,), (4, 2, 2)])
def test_confusion_refuses_scores_of_wrong_rank(shape: tuple[int, ...]) -> None:
    """Scores that are not (B, K, h, w) are a ValueError that says so, whatever the target."""
    with pytest.raises(ValueError, match="scores"):
        ops.upsample_confusion(torch.randn(shape), torch.zeros(4, 4, 4, dtype=torch.int64), Grid())
