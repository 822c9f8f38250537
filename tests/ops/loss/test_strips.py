"""The routes of `ops.upsample_cross_entropy` that never make logits, against float64 and under PyTorch's machinery."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import multiprocessing
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from references import sample
from torch._subclasses.fake_tensor import FakeTensorMode

from fcnzoo import ops
from fcnzoo.config import Grid
from fcnzoo.ops import compiling
from fcnzoo.ops.loss import compiled as loss_route
from fcnzoo.ops.loss import cross_entropy
from fcnzoo.ops.loss import plain as strip_loss

HAS_NUMBA = importlib.util.find_spec("numba") is not None
NEEDS_NUMBA = pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
ROUTES = [pytest.param("1", marks=NEEDS_NUMBA, id="compiled"), pytest.param("0", id="plain")]

GRIDS = [
    Grid(),
    Grid(multiple=32),
    Grid(min_size=150),
    Grid(stride=7.3, offset=2.5),
    Grid(stride=0.7),
    Grid(stride=1, offset=2),
    Grid(align_corners=True, multiple=32),
    Grid(stride=8, offset=27, border="zeros"),
    Grid(stride=8, offset=-30, border="zeros"),
]


@pytest.fixture(autouse=True)
def _many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small strips and blocks, so that small images have several of each."""
    monkeypatch.setitem(strip_loss.STRIP, "cpu", 1000)
    monkeypatch.setattr(strip_loss, "BLOCK", 16)


@pytest.fixture(params=ROUTES)
def either_route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both routes, one after the other."""
    monkeypatch.setenv(compiling.SWITCH, request.param)
    monkeypatch.setattr(loss_route, "ALONE", 0)
    return request.param


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch may use two threads."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def example(*, classes: int = 4, scale: float = 3, dtype: torch.dtype = torch.float32) -> tuple[Any, torch.Tensor]:
    """Scores (2, K, 9, 10) and a target (2, 41, 38) with a fifth of it ignored."""
    scores = (torch.randn(2, classes, 9, 10, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    target = torch.randint(0, classes, (2, 41, 38))
    target[torch.rand(target.shape) < 0.2] = 255
    return scores, target


def reference(scores: torch.Tensor, target: torch.Tensor, grid: Grid, **options: Any) -> list[torch.Tensor]:
    """Loss and gradient in float64 from PyTorch's cross-entropy on the upsampled scores."""
    scores = scores.detach().double().requires_grad_()
    logits = ops.upsample(scores, grid, (target.shape[1], target.shape[2]))
    weight = options.pop("weight", None)
    weight = None if weight is None else weight.double()
    if options.get("reduction") == "none":
        options["reduction"] = "mean"
        parts = [
            F.cross_entropy(logits[i : i + 1], target[i : i + 1], weight, ignore_index=255, **options) for i in range(2)
        ]
        loss = torch.stack(parts)
    else:
        loss = F.cross_entropy(logits, target, weight, ignore_index=255, **options)
    return [loss.detach(), torch.autograd.grad(loss.sum(), scores)[0]]


def ours(scores: torch.Tensor, target: torch.Tensor, grid: Grid, **options: Any) -> list[torch.Tensor]:
    """Loss and gradient."""
    loss = ops.upsample_cross_entropy(scores, target, grid, **options)
    return [loss.detach(), torch.autograd.grad(loss.sum(), scores)[0]]


def close(got: list[torch.Tensor], want: list[torch.Tensor], loss: float = 1e-6, gradient: float = 1e-5) -> None:
    """Relative to the loss, and to the largest gradient."""
    torch.testing.assert_close(got[0].double(), want[0], rtol=loss, atol=loss)
    scale = want[1].abs().max().item()
    torch.testing.assert_close(got[1].double(), want[1], rtol=0, atol=gradient * scale)


@pytest.mark.parametrize("grid", GRIDS)
def test_every_option_on_every_grid(either_route: str, grid: Grid) -> None:
    """Loss to 1e-6 and gradient to 1e-5 in float32, 1e-12 and 1e-11 in float64, for all options together."""
    weights = [None, torch.tensor([0.5, 2.0, 0.0, 1.0])]
    for reduction, weight, smoothing in itertools.product(["mean", "sum", "none"], weights, [0.0, 0.3, 1.0]):
        options = {"reduction": reduction, "weight": weight, "label_smoothing": smoothing}
        for dtype, bounds in ((torch.float32, (2e-6, 1e-5)), (torch.float64, (1e-12, 1e-11))):
            scores, target = example(dtype=dtype)
            close(ours(scores, target, grid, **options), reference(scores, target, grid, **options), *bounds)


def test_equals_sampling_pixel_by_pixel(either_route: str) -> None:
    """The loss is that of logits sampled in plain Python."""
    scores, target = example(dtype=torch.float64)
    logits = sample(scores, (41, 38), (8, 8), 27, zeros=True)
    got = ops.upsample_cross_entropy(scores, target, Grid(stride=8, offset=27, border="zeros"))
    torch.testing.assert_close(got, F.cross_entropy(logits, target, ignore_index=255), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_huge_scores(either_route: str, scale: float) -> None:
    """Where a class is far ahead at one score and another one at the next, nothing underflows or becomes NaN."""
    scores, target = example(scale=scale)
    close(ours(scores, target, Grid()), reference(scores, target, Grid()), 2e-6, 1e-3 if scale > 1e3 else 1e-4)
    with torch.no_grad():
        scores.fill_(-scale)
        scores[:, 0, :, ::2] = scores[:, 1, :, 1::2] = scale
    close(ours(scores, target, Grid()), reference(scores, target, Grid()), 2e-6, 1e-3 if scale > 1e3 else 1e-4)


def test_one_class_and_one_pixel(either_route: str) -> None:
    """K = 1 costs nothing; one pixel is enough."""
    scores, target = example(classes=1)
    loss, gradient = ours(scores, target, Grid())
    assert loss == 0
    assert gradient.abs().max() < 1e-9
    scores = torch.randn(1, 3, 1, 1, requires_grad=True)
    close(
        ours(scores, torch.tensor([[[2]]]), Grid()),
        reference(scores, torch.tensor([[[2]]]), Grid()),
    )


def test_equal_bits_on_one_thread_and_on_two(either_route: str, two_threads: None) -> None:
    """The number of threads changes no bit, also where PyTorch is told to be deterministic, and stays what it was."""
    scores, target = example(classes=21)
    torch.set_num_threads(1)
    first = ours(scores, target, Grid())
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(3):
            assert all(torch.equal(a, b) for a, b in zip(ours(scores, target, Grid()), first, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.get_num_threads() == 2


def test_inference_mode(either_route: str, two_threads: None) -> None:
    """Inside `torch.inference_mode` the loss is the same."""
    scores, target = example()
    want = ops.upsample_cross_entropy(scores, target, Grid(), label_smoothing=0.1)
    with torch.inference_mode():
        assert torch.equal(ops.upsample_cross_entropy(scores * 1, target * 1, Grid(), label_smoothing=0.1), want)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_make_the_loss_nan(either_route: str, value: float) -> None:
    """One NaN or infinite score makes the loss and the gradients around it NaN, as PyTorch does."""
    scores, target = example()
    with torch.no_grad():
        scores[0, 1, 4, 4] = value
    loss, gradient = ours(scores, target, Grid())
    assert loss.isnan()
    assert gradient[0, :, 4, 4].isnan().all()


@NEEDS_NUMBA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials_to_the_last_digits(dtype: torch.dtype) -> None:
    """Two classes, one of them 0: the loss is softplus, to rounding, over the whole range."""
    values = torch.linspace(-100, 0, 20001, dtype=torch.float64).to(dtype)
    scores = torch.stack([values, torch.zeros_like(values)]).view(1, 2, 1, -1).requires_grad_()
    loss = ops.upsample_cross_entropy(scores, torch.ones(1, 1, 20001, dtype=torch.int64), Grid(), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, scores)
    want = values.double().sigmoid()
    bound = 4 * torch.finfo(dtype).eps
    there = values > (-80 if dtype == torch.float32 else -100)
    assert ((gradient[0, 0, 0].double() / want - 1).abs()[there] < bound).all()
    assert gradient[0, 0, 0][~there].abs().max().item() < 1e-34 if (~there).any() else True
    torch.testing.assert_close(loss.double(), F.softplus(values.double()).sum(), rtol=bound, atol=0)


def _loss_in_child(queue: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)  # as a DataLoader does; with two PyTorch's own operations would hang
    scores, target = torch.ones(1, 3, 40, 40), torch.ones(1, 320, 320, dtype=torch.int64)
    torch.set_num_threads(2)
    terms = strip_loss.Terms(torch.ones(3), torch.ones(3), None, torch.ones(3), 255)
    sums = loss_route.compiled_loss(scores, target, Grid(), terms, gradient=True)
    queue.put(None if sums is None else float(sums.loss.numpy()[0]))


@pytest.mark.skipif(not HAS_NUMBA or not hasattr(os, "fork"), reason="needs numba and fork")
def test_works_after_a_fork(two_threads: None) -> None:
    """In a forked process the compiled route starts its threads again."""
    ops.upsample_cross_entropy(torch.randn(1, 3, 40, 40), torch.ones(1, 320, 320, dtype=torch.int64), Grid())
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_loss_in_child, args=(queue,), daemon=True)
    child.start()
    child.join(30)
    child.kill()
    assert child.exitcode == 0
    assert queue.get() == pytest.approx(320 * 320 * float(torch.tensor(3.0).log()), rel=1e-6)


def test_failure_of_numba_is_told_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where compiling fails the plain route answers, and the log says why, once, as information."""

    def fail(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(loss_route, "_kernels", {})
    monkeypatch.setattr(loss_route, "_build", fail)
    monkeypatch.setattr(loss_route, "find_spec", lambda _: True)
    scores, target = example()
    with caplog.at_level(logging.INFO, logger="fcnzoo"):
        for _ in range(2):
            close(ours(scores, target, Grid()), reference(scores, target, Grid()), 2e-6)
    assert [(r.levelno, "no compiler" in r.message) for r in caplog.records] == [(logging.INFO, True)]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck_once_and_twice(reduction: str) -> None:
    """First and second derivatives are those of finite differences; the second goes through the logits."""
    scores = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 255]).repeat(2, 5, 2)

    def run(x: torch.Tensor) -> torch.Tensor:
        weight = torch.tensor([1.0, 0.5, 2.0])
        return ops.upsample_cross_entropy(x, target, Grid(), weight=weight, label_smoothing=0.1, reduction=reduction)  # pyright: ignore

    assert torch.autograd.gradcheck(run, scores)
    assert torch.autograd.gradgradcheck(run, scores)


def test_gradients_accumulate_and_scale(either_route: str) -> None:
    """Two backward passes add up, and a factor on the loss is a factor on the gradient."""
    scores, target = example()
    (_, want) = ours(scores, target, Grid())
    ops.upsample_cross_entropy(scores, target, Grid()).backward()
    (ops.upsample_cross_entropy(scores, target, Grid()) * 2).backward()
    torch.testing.assert_close(scores.grad, 3 * want)


@pytest.mark.parametrize("route", ["compiled_loss", "strip_loss"])
def test_without_gradients_only_the_loss_is_made(monkeypatch: pytest.MonkeyPatch, route: str) -> None:
    """Under `no_grad`, or for scores that want none, no gradient is computed."""
    asked = []
    run = getattr(cross_entropy, route)
    if route == "strip_loss":
        monkeypatch.setenv(compiling.SWITCH, "0")
    monkeypatch.setattr(cross_entropy, route, lambda *a, gradient: asked.append(gradient) or run(*a, gradient=gradient))
    scores, target = example()
    want = ops.upsample_cross_entropy(scores, target, Grid())
    assert torch.equal(ops.upsample_cross_entropy(scores.detach(), target, Grid()), want)
    with torch.no_grad():
        assert torch.equal(ops.upsample_cross_entropy(scores, target, Grid()), want)
    assert asked == [True, False, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(either_route: str, dtype: torch.dtype) -> None:
    """Under autocast everything is still summed in float32; gradients of half-precision scores are half."""
    scores, target = example(dtype=dtype)
    want = ours(scores, target, Grid())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ours(scores, target, Grid())
    assert want[0].dtype == torch.float32
    assert want[1].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    close(got, reference(scores, target, Grid()), 2e-6, torch.finfo(dtype).eps)


def test_memory_layout_changes_nothing(either_route: str) -> None:
    """Channels-last and sliced scores and targets give the same."""
    scores, target = example()
    want = ours(scores, target, Grid())
    last = scores.detach().to(memory_format=torch.channels_last).requires_grad_()
    sliced = torch.stack([scores.detach(), scores.detach()], -1)[..., 0].requires_grad_()
    for one in (last, sliced):
        close(ours(one, target.mT.contiguous().mT, Grid()), [part.double() for part in want])


@pytest.mark.parametrize("label", [4, -1, 254])
def test_labels_outside_the_range_are_refused(either_route: str, label: int) -> None:
    """A label that is no class is refused on a CPU, as PyTorch does, with and without gradients."""
    scores, target = example()
    target[1, 40, 37] = label
    for given in (scores, scores.detach()):
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
            ops.upsample_cross_entropy(given, target, Grid())


def test_compile_and_export() -> None:
    """`torch.compile(fullgraph=True)` and `torch.export` take it, and give the same loss."""
    grid = Grid()

    class Loss(torch.nn.Module):
        def forward(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return ops.upsample_cross_entropy(scores, target, grid, label_smoothing=0.1)

    scores, target = example()
    want = Loss()(scores, target)
    torch.testing.assert_close(torch.compile(Loss(), fullgraph=True, backend="eager")(scores, target), want)
    exported = torch.export.export(Loss(), (scores.detach(), target)).module()
    torch.testing.assert_close(exported(scores.detach(), target), want)


def test_meta_and_fake_tensors() -> None:
    """Tensors without numbers give a loss without a number."""
    scores, target = example()
    assert ops.upsample_cross_entropy(scores.to("meta"), target.to("meta"), Grid(), reduction="none").shape == (2,)
    with FakeTensorMode() as mode:
        fake = ops.upsample_cross_entropy(mode.from_tensor(scores), mode.from_tensor(target), Grid())
    assert fake.shape == ()


def test_functional_transforms() -> None:
    """`torch.func.grad` and `torch.func.vmap` go through the logits and give the same."""
    scores, target = example()
    plain = scores.detach()
    got = torch.func.grad(lambda x: ops.upsample_cross_entropy(x, target, Grid()))(plain)
    torch.testing.assert_close(got, ours(scores, target, Grid())[1])
    per_image = torch.func.vmap(lambda x, t: ops.upsample_cross_entropy(x[None], t[None], Grid()))(plain, target)
    torch.testing.assert_close(per_image, ops.upsample_cross_entropy(plain, target, Grid(), reduction="none"))
