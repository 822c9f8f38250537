"""`ops.upsample`: against transposed convolutions, `F.interpolate` and a loop over pixels."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from references import FINAL_CROP, crop, deconvolve, sample

from fcnzoo import ops
from fcnzoo.config import Grid


def scores(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random scores."""
    return torch.randn(shape, dtype=dtype)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(75, 100), (33, 47), (1, 1)])
def test_paper_grids_equal_deconvolution_and_crop(stride: int, size: tuple[int, int]) -> None:
    """FCN-32s, 16s and 8s: sampling equals the dense bilinear deconvolution, cropped at 19, 27, 31."""
    offset = FINAL_CROP[stride]
    cells = tuple(-(-(length + offset) // stride) + 1 for length in size)
    x = scores(2, 3, *cells)
    got = ops.upsample(x, Grid(stride=stride, offset=offset - stride / 2, border="zeros"), size)
    torch.testing.assert_close(got, crop(deconvolve(x, stride), offset, size), rtol=0, atol=1e-14)


@pytest.mark.parametrize("cells", [(1, 1), (2, 5), (7, 4)])
def test_inner_skip_grid_equals_uncropped_deconvolution(cells: tuple[int, int]) -> None:
    """`upscore2`: stride 2, offset −1 and zeros give all of the deconvolution's (2h + 2, 2w + 2) values."""
    x = scores(1, 3, *cells)
    want = deconvolve(x, 2)
    got = ops.upsample(x, Grid(stride=2, offset=-1, border="zeros"), (want.shape[2], want.shape[3]))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [(17, 23), (3, 2), (1, 1), (64, 5)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fit_grid_equals_interpolate(size: tuple[int, int], align_corners: bool, dtype: torch.dtype) -> None:
    """`Grid()` is `F.interpolate(mode="bilinear")`, larger and smaller, with both settings of align_corners."""
    x = scores(2, 4, 3, 5, dtype=dtype)
    got = ops.upsample(x, Grid(align_corners=align_corners), size)
    torch.testing.assert_close(got, F.interpolate(x, size, mode="bilinear", align_corners=align_corners))


@pytest.mark.parametrize("size", [(33, 47), (1, 1), (32, 64), (31, 65)])
@pytest.mark.parametrize(("multiple", "min_size"), [(32, 1), (32, 33), (1, 40), (14, 30)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_padded_grid_equals_interpolate_of_the_padded_image(
    size: tuple[int, int], multiple: int, min_size: int, align_corners: bool
) -> None:
    """Scores of an image padded at its bottom and right: resized to the padded size, then cropped."""
    padded = tuple(-(-max(length, min_size) // multiple) * multiple for length in size)
    x = scores(1, 3, *(max(length // 8, 1) for length in padded))
    got = ops.upsample(x, Grid(multiple=multiple, min_size=min_size, align_corners=align_corners), size)
    want = F.interpolate(x, padded, mode="bilinear", align_corners=align_corners)[..., : size[0], : size[1]]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("seed", range(24))
def test_random_grids_equal_the_formula_pixel_by_pixel(seed: int) -> None:
    """Any stride, offset, border, padding and size: the formula of the docstring, pixel by pixel in Python."""
    dice = random.Random(seed)
    cells = dice.randint(1, 6), dice.randint(1, 6)
    size = dice.randint(1, 20), dice.randint(1, 20)
    border = dice.choice(["edge", "zeros"])
    offset = dice.choice([0.0, -1.0, 3.0, dice.uniform(-30, 30)])
    x = scores(1, 2, *cells)
    if seed % 4 == 0:
        grid = Grid(align_corners=True)
        want = sample(x, size, (1, 1), align_corners=True)
    elif seed % 4 == 1:
        grid = Grid(offset=offset, border=border, multiple=dice.randint(1, 9), min_size=dice.randint(1, 25))
        stride = grid.padded(size[0]) / cells[0], grid.padded(size[1]) / cells[1]
        want = sample(x, size, stride, offset, zeros=border == "zeros")
    else:
        step = dice.choice([1.0, 2.0, 8.0, dice.uniform(0.3, 9)])
        grid = Grid(stride=step, offset=offset, border=border)
        want = sample(x, size, (step, step), offset, zeros=border == "zeros")
    torch.testing.assert_close(ops.upsample(x, grid, size), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("border", ["edge", "zeros"])
@pytest.mark.parametrize("offset", [0, 2])
def test_stride_one_crops_exactly(offset: int, border: str) -> None:
    """Scores of stride 1 (a learned deconvolution's) are cropped, to the bit."""
    x = scores(1, 2, 9, 8, dtype=torch.float32)
    got = ops.upsample(x, Grid(stride=1, offset=offset, border=border), (5, 6))
    assert torch.equal(got, x[..., offset : offset + 5, offset : offset + 6])


def test_stride_one_beyond_the_scores_repeats_the_edge() -> None:
    """Where scores of stride 1 end before the image does, their edge is repeated."""
    x = scores(1, 1, 3, 3)
    got = ops.upsample(x, Grid(stride=1), (5, 3))
    torch.testing.assert_close(got, x[..., [0, 1, 2, 2, 2], :])


def test_single_pixel_far_from_the_origin_keeps_its_digits() -> None:
    """At pixel 40,000 a stride of 32 in float32 still samples where float64 does, to float32's precision."""
    x = scores(1, 1, 1252, 1, dtype=torch.float32)
    grid = Grid(stride=32, offset=3, border="zeros")
    got = ops.upsample(x, grid, (40_000, 1))
    torch.testing.assert_close(got.double(), ops.upsample(x.double(), grid, (40_000, 1)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("grid", [Grid(), Grid(multiple=32), Grid(stride=8, offset=27, border="zeros")])
def test_gradient_is_that_of_finite_differences(grid: Grid) -> None:
    """Gradients with respect to the scores pass `gradcheck` in float64."""
    x = scores(1, 2, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: ops.upsample(s, grid, (9, 7)), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grid", [Grid(), Grid(multiple=32), Grid(stride=8, offset=27, border="zeros")])
def test_half_precision_is_rounded_once(dtype: torch.dtype, grid: Grid) -> None:
    """Half-precision scores come back in their dtype, within one rounding of the float32 result."""
    x = scores(1, 2, 6, 6, dtype=torch.float32).to(dtype)
    got = ops.upsample(x, grid, (13, 11))
    assert got.dtype == dtype
    want = ops.upsample(x.float(), grid, (13, 11))
    torch.testing.assert_close(got.float(), want, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


def test_channels_last_scores_give_the_same_numbers() -> None:
    """The memory format of the scores changes nothing."""
    x = scores(2, 3, 5, 4)
    for grid in (Grid(), Grid(multiple=32), Grid(stride=8, offset=27, border="zeros")):
        torch.testing.assert_close(
            ops.upsample(x.to(memory_format=torch.channels_last), grid, (11, 9)), ops.upsample(x, grid, (11, 9))
        )


@pytest.mark.parametrize("grid", [Grid(), Grid(multiple=32), Grid(stride=8, offset=27, border="zeros")])
def test_meta_scores_give_meta_logits(grid: Grid) -> None:
    """On the meta device the shape comes out and nothing is computed."""
    got = ops.upsample(torch.empty(2, 3, 4, 5, device="meta"), grid, (31, 33))
    assert got.is_meta
    assert tuple(got.shape) == (2, 3, 31, 33)


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 5), (1, 2, 3, 4, 5), ()])
def test_wrong_rank_is_refused(shape: tuple[int, ...]) -> None:
    """Scores that are not (B, K, h, w) are a ValueError that shows their shape."""
    with pytest.raises(ValueError, match=r"\(B, K, h, w\)"):
        ops.upsample(torch.zeros(shape), Grid(), (8, 8))


def test_integer_scores_are_refused() -> None:
    """Integer scores are a TypeError that names their dtype."""
    with pytest.raises(TypeError, match="int64"):
        ops.upsample(torch.zeros(1, 2, 3, 4, dtype=torch.int64), Grid(), (8, 8))


@pytest.mark.parametrize("size", [(0, 8), (8, -1), (8,), (1, 2, 3)])
def test_empty_size_is_refused(size: tuple[int, ...]) -> None:
    """A size that is not (H, W) with both at least 1 is a ValueError."""
    with pytest.raises(ValueError, match="size"):
        ops.upsample(torch.zeros(1, 2, 3, 4), Grid(), size)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("grid", [Grid(multiple=32, min_size=32), Grid(stride=8, offset=3, border="zeros")])
def test_compiled_with_gradients_at_several_sizes(grid: Grid) -> None:
    """`torch.compile` gives the same values and gradients at sizes that are padded and at those that are not."""
    torch.compiler.reset()
    compiled = torch.compile(lambda low, image: ops.upsample(low, grid, (image.shape[-2], image.shape[-1])))
    for size in ((64, 64), (70, 91), (65, 129), (131, 96)):
        cells = [-(-length // 32) * 4 for length in size]
        low = torch.randn(1, 3, *cells, requires_grad=True)
        image = torch.empty(1, 3, *size)
        found, wanted = compiled(low, image), ops.upsample(low, grid, size)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        both = [torch.autograd.grad(logits.square().mean(), low)[0] for logits in (found, wanted)]
        torch.testing.assert_close(*both, rtol=1e-3, atol=1e-5)
