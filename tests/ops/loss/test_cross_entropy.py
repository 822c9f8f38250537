"""`ops.upsample_cross_entropy` and `ops.check_labels`: against `F.cross_entropy` of the logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

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
OPTIONS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"weight": torch.tensor([0.5, 2.0, 0.0, 1.0], dtype=torch.float64)},
    {"weight": torch.tensor([0.5, 2.0, 0.1, 1.0], dtype=torch.float64), "label_smoothing": 0.3},
]


def example(ignore: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (2, 4, 9, 10) that want gradients, and a target with a fifth of it ignored."""
    scores = torch.randn(2, 4, 9, 10, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (2, 21, 18))
    target[torch.rand(target.shape) < 0.2] = ignore
    return scores, target


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equals_cross_entropy_of_the_logits(grid: Grid, options: dict[str, Any], reduction: str) -> None:
    """Loss and gradient are those of PyTorch's cross-entropy on the upsampled scores."""
    scores, target = example()
    loss = ops.upsample_cross_entropy(scores, target, grid, reduction=reduction, **options)  # pyright: ignore
    want = F.cross_entropy(
        ops.upsample(scores, grid, (21, 18)), target, ignore_index=255, reduction=reduction, **options
    )
    torch.testing.assert_close(loss, want, rtol=1e-12, atol=1e-12)
    got_gradient, want_gradient = (torch.autograd.grad(x, scores)[0] for x in (loss, want))
    torch.testing.assert_close(got_gradient, want_gradient, rtol=1e-11, atol=1e-13)


def test_equals_interpolate_and_cross_entropy() -> None:
    """With `Grid()` it is `F.cross_entropy(F.interpolate(scores), target)`, without any function of ours."""
    scores, target = example()
    logits = F.interpolate(scores, (21, 18), mode="bilinear", align_corners=False)
    loss = ops.upsample_cross_entropy(scores, target, Grid())
    torch.testing.assert_close(loss, F.cross_entropy(logits, target, ignore_index=255))


@pytest.mark.parametrize("options", OPTIONS)
def test_none_gives_the_mean_of_each_image(options: dict[str, Any]) -> None:
    """`reduction="none"` is (B,): what `"mean"` says of each image alone."""
    scores, target = example()
    got = ops.upsample_cross_entropy(scores, target, Grid(), reduction="none", **options)
    want = [ops.upsample_cross_entropy(scores[i : i + 1], target[i : i + 1], Grid(), **options) for i in range(2)]
    torch.testing.assert_close(got, torch.stack(want))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS)
def test_nothing_to_count_is_zero_with_zero_gradients(reduction: str, options: dict[str, Any]) -> None:
    """Where every pixel is ignored the loss is 0 and so is its gradient; never NaN."""
    scores, target = example()
    loss = ops.upsample_cross_entropy(scores, torch.full_like(target, 255), Grid(), reduction=reduction, **options)  # pyright: ignore
    assert not loss.any()
    (gradient,) = torch.autograd.grad(loss.sum(), scores)
    assert not gradient.any()


def test_classes_of_zero_weight_count_nothing() -> None:
    """Where all pixels have weight 0 the mean is 0 with zero gradients, not NaN."""
    scores = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = ops.upsample_cross_entropy(
        scores, torch.zeros(1, 4, 4, dtype=torch.int64), Grid(), weight=torch.tensor([0.0, 1.0])
    )
    loss.backward()
    assert loss == 0
    assert scores.grad is not None
    assert not scores.grad.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16])
def test_targets_of_every_integer_dtype(dtype: torch.dtype) -> None:
    """The target's integer dtype changes nothing."""
    scores, target = example(ignore=100)
    loss = ops.upsample_cross_entropy(scores, target.to(dtype), Grid(), ignore_index=100)
    assert torch.equal(loss, ops.upsample_cross_entropy(scores, target, Grid(), ignore_index=100))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """Half-precision scores give a float32 loss, that of the same scores in float32; gradients stay half."""
    scores = torch.randn(1, 3, 5, 5).to(dtype).requires_grad_()
    target = torch.randint(0, 3, (1, 300, 300))
    loss = ops.upsample_cross_entropy(scores, target, Grid())
    loss.backward()
    assert loss.dtype == torch.float32
    assert scores.grad is not None
    assert scores.grad.dtype == dtype
    torch.testing.assert_close(loss, ops.upsample_cross_entropy(scores.detach().float(), target, Grid()))


def test_huge_scores_do_not_overflow() -> None:
    """Scores of 1e4 give a finite loss and gradient."""
    scores = (torch.randn(1, 3, 4, 4) * 1e4).requires_grad_()
    loss = ops.upsample_cross_entropy(scores, torch.randint(0, 3, (1, 9, 9)), Grid())
    loss.backward()
    assert loss.isfinite()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(21, 18), (1, 21, 18), (2, 1, 21, 18)])
def test_targets_of_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    """A target that is not (B, H, W) is a ValueError that shows its shape."""
    scores, _ = example()
    with pytest.raises(ValueError, match="target must be"):
        ops.upsample_cross_entropy(scores, torch.zeros(shape, dtype=torch.int64), Grid())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_targets_of_wrong_dtype_are_refused(dtype: torch.dtype) -> None:
    """A target that does not hold integers is a TypeError."""
    scores, target = example()
    with pytest.raises(TypeError, match="integer"):
        ops.upsample_cross_entropy(scores, target.to(dtype), Grid())


def test_unknown_reduction_is_refused() -> None:
    """An unknown reduction is a ValueError that lists the known ones."""
    scores, target = example()
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none'"):
        ops.upsample_cross_entropy(scores, target, Grid(), reduction="max")  # pyright: ignore


def test_wrong_number_of_weights_is_refused() -> None:
    """Class weights that are not (K,) are a ValueError that says how many there must be."""
    scores, target = example()
    with pytest.raises(ValueError, match="4"):
        ops.upsample_cross_entropy(scores, target, Grid(), weight=torch.ones(3))


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_impossible_label_smoothing_is_refused(value: float) -> None:
    """Label smoothing outside [0, 1] is a ValueError."""
    scores, target = example()
    with pytest.raises(ValueError, match="label_smoothing"):
        ops.upsample_cross_entropy(scores, target, Grid(), label_smoothing=value)


INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(("classes", "ignore"), [(21, 255), (21, -1), (21, 100), (300, -1), (300, 999), (21, 65535)])
def test_check_labels_agrees_with_counting(dtype: torch.dtype, classes: int, ignore: int) -> None:
    """For every value that a dtype holds: a class or the ignore index passes, anything else is refused.

    Python's integers decide, so no comparison may wrap around at 256.
    """
    bounds = torch.iinfo(dtype)
    values = {0, 1, 20, 21, 44, 50, 100, 127, 128, 254, 255, 256, 299, 300, 999, 32767, 65535, -1, -128}
    for value in sorted(v for v in values if bounds.min <= v <= bounds.max):
        target = torch.tensor([[[value]]]).to(dtype)
        if 0 <= value < classes or value == ignore:
            ops.check_labels(target, classes, ignore)
        else:
            with pytest.raises(LabelError, match=rf"\[{value}\]"):
                ops.check_labels(target, classes, ignore)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_check_labels_refuses_other_dtypes(dtype: torch.dtype) -> None:
    """What is not an integer dtype is a TypeError."""
    with pytest.raises(TypeError, match="integer"):
        ops.check_labels(torch.zeros(1, 2, 2, dtype=dtype), 3, 255)


def test_check_labels_takes_an_empty_target() -> None:
    """A target without pixels holds no wrong label."""
    ops.check_labels(torch.zeros(0, 4, 4, dtype=torch.int64), 3, 255)
