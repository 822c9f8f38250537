"""The Triton kernels of `ops.upsample_cross_entropy`: their numbers, in Triton's interpreter, and doing without."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fcnzoo import ops
from fcnzoo.config import Grid
from fcnzoo.ops.loss import cross_entropy
from fcnzoo.ops.loss import cuda as triton_loss

NEEDS_TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")

SET_UP = """
import itertools, torch
from fcnzoo.config import Grid
from fcnzoo.ops import upsample_cross_entropy
from fcnzoo.ops.loss import cross_entropy
from fcnzoo.ops.loss import cuda as triton_loss
from fcnzoo.ops.loss import kernel as triton_loss_kernel

torch.manual_seed(0)
taken = []

def counted(*given, **options):
    sums = triton_loss.triton_loss(*given, **options)
    taken.append(sums)
    return sums

cross_entropy._on_cpu = lambda *tensors: False
cross_entropy._on_one_gpu = lambda *tensors: True
cross_entropy.triton_loss = counted
triton_loss_kernel.PIXELS, triton_loss_kernel.CELLS, triton_loss_kernel.TILE = 8, 4, 32

def example(batch=2, classes=5, cells=(2, 3), size=(3, 5), scale=3, ignored=255):
    scores = torch.randn(batch, classes, *cells, dtype=torch.float64) * scale
    target = torch.randint(0, classes, (batch, *size))
    target[torch.rand(target.shape) < 0.2] = ignored
    return scores, target

def both(scores, target, grid, reduction="mean", weight=None, smoothing=0.0, ignored=255, dtype=torch.float32):
    # Loss and gradient of the kernels, and of the composition in float64.
    scores = scores.to(dtype).requires_grad_()
    options = dict(ignore_index=ignored, weight=weight, label_smoothing=smoothing, reduction=reduction)
    loss = upsample_cross_entropy(scores, target, grid, **options)
    assert taken.pop() is not None and not taken
    found = loss.detach(), torch.autograd.grad(loss.sum(), scores)[0]
    exact = scores.detach().double().requires_grad_()
    weight = None if weight is None else weight.double()
    wanted = cross_entropy._compose(exact, target, grid, ignored, weight, smoothing, reduction)
    return found, (wanted.detach(), torch.autograd.grad(wanted.sum(), exact)[0])

def check(*given, dtype=torch.float32, **options):
    (loss, gradient), (wanted, slope) = both(*given, dtype=dtype, **options)
    assert loss.dtype == gradient.dtype == dtype
    bounds = (1e-6, 1e-5) if dtype == torch.float32 else (1e-12, 1e-12)
    torch.testing.assert_close(loss.double(), wanted, rtol=bounds[0], atol=bounds[0], msg=str((given[2], options)))
    error = (gradient.double() - slope).abs().max().item()
    largest = slope.abs().max().item() if given[0].shape[1] > 1 else 1  # of one class alone the gradient is 0
    assert error <= bounds[1] * largest, (given[2], options, error)
"""

GRIDS = """
grids = [
    (Grid(), (2, 3), (3, 9)), (Grid(multiple=8), (2, 5), (3, 9)), (Grid(min_size=20), (3, 4), (4, 5)),
    (Grid(align_corners=True), (2, 5), (3, 9)), (Grid(align_corners=True, multiple=4), (2, 2), (5, 3)),
    (Grid(stride=2.3, offset=1.5), (2, 3), (3, 5)), (Grid(stride=0.7), (5, 7), (3, 4)),
    (Grid(stride=1, offset=2), (6, 9), (3, 6)), (Grid(), (1, 1), (3, 2)), (Grid(), (4, 6), (2, 1)),
    (Grid(stride=4, offset=6, border="zeros"), (2, 4), (3, 9)),
    (Grid(stride=3, offset=-4, border="zeros"), (1, 2), (9, 8)),
]
for n, (grid, cells, size) in enumerate(grids):
    classes = (5, 3, 9)[n % 3] if n != 4 else 1
    scores, target = example(1 + n % 2, classes, cells, size)
    check(scores, target, grid)
    check(scores, target, grid, weight=torch.rand(classes), smoothing=0.3, dtype=torch.float64)
"""

OPTIONS = """
weights = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0])
scores, target = example()
target[1] = 255
for reduction, (weight, smoothing) in itertools.product(["mean", "sum", "none"], [(None, 0.3), (weights, 0.0)]):
    check(scores, target, Grid(), reduction=reduction, weight=weight, smoothing=smoothing)
check(scores, target, Grid(), weight=weights, smoothing=1.0)
target[0] = 255
(loss, gradient), _ = both(scores, target, Grid())
assert loss == 0 and not gradient.any()
"""

INPUTS = """
for ignored, dtype in ((-1, torch.int64), (-100, torch.int16), (2, torch.int32), (255, torch.uint8)):
    scores, target = example(ignored=ignored)
    check(scores, target.to(dtype), Grid(), ignored=ignored)
scores, target = example(cells=(3, 2), size=(5, 4))
expected = both(scores, target, Grid())[0]
last = scores.to(memory_format=torch.channels_last)
for strange in (scores.mT.contiguous().mT, last, scores[:1].expand(2, -1, -1, -1)):
    check(strange, target.mT.contiguous().mT, Grid(), weight=torch.rand(10)[::2])
for batch in (scores, scores + 1000):  # the same bits once more; the same loss far from 0
    again = both(batch, target, Grid())[0]
    if batch is scores:
        assert all(torch.equal(a, b) for a, b in zip(again, expected))
    else:
        check(batch, target, Grid())
check(*example(scale=100), Grid())
for dtype in (torch.bfloat16, torch.float16):
    half = scores.to(dtype)
    loss = upsample_cross_entropy(half, target, Grid())
    assert loss.dtype == torch.float32 and torch.equal(loss, upsample_cross_entropy(half.float(), target, Grid()))
taken.clear()
masked = scores.clone()
masked[:, 0] = -torch.inf  # a class that is ruled out
check(masked, target.clamp(min=1), Grid(stride=8, offset=4))
scores[0, 0, 0, 0] = torch.nan
(loss, gradient), _ = both(scores, target, Grid(), reduction="none")
assert loss[0].isnan() and loss[1].isfinite() and gradient[1].isfinite().all()
target[0, :4] = 255
assert upsample_cross_entropy(scores.float(), target, Grid()).isfinite()  # no pixel that counts sees it
"""

WRONG = """
for wrong in (-1, 5, -(2**40), 2**40):
    scores, target = example()
    target[1, 2, 4] = wrong
    try:
        upsample_cross_entropy(scores.float().requires_grad_(), target, Grid())
    except RuntimeError as error:
        assert "out of bounds" in str(error), error
    else:
        raise AssertionError(wrong)
"""


@NEEDS_TRITON
@pytest.mark.parametrize("script", [GRIDS + OPTIONS, INPUTS + WRONG], ids=["grids", "inputs"])
def test_kernels_give_the_loss_and_gradient_of_the_composition(script: str) -> None:
    """Interpreted on the CPU: loss to 1e-6 and gradient to 1e-5 in float32, both to 1e-12 in float64."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SET_UP + script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on the CPU take the way of those on a GPU; nothing was found or said before."""
    monkeypatch.setattr(cross_entropy, "_on_cpu", lambda *tensors: False)
    monkeypatch.setattr(cross_entropy, "_on_one_gpu", lambda *tensors: True)
    caches = triton_loss._launcher, triton_loss._tell
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def falls_back() -> None:
    """Two steps of training give the loss and gradient of the composition."""
    scores, target = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True), torch.randint(0, 3, (2, 5, 7))
    wanted = cross_entropy._compose(scores, target, Grid(), 255, None, 0.0, "mean")
    for _ in range(2):
        loss = ops.upsample_cross_entropy(scores, target, Grid())
        torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=1e-12)
        found, slope = (torch.autograd.grad(some, scores, retain_graph=True)[0] for some in (loss, wanted))
        torch.testing.assert_close(found, slope, rtol=1e-12, atol=1e-12)


def test_without_triton_strips_do_it(
    on_gpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Triton cannot be imported the loss comes from plain PyTorch, which is told once, as information."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "fcnzoo.ops.loss.kernel", raising=False)
    with caplog.at_level(logging.INFO, "fcnzoo"):
        falls_back()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "because Triton is missing" in record.getMessage()


def test_where_triton_fails_strips_do_it(
    on_gpu: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a kernel cannot be launched the loss comes from plain PyTorch, which is told once, as information."""

    def launch(*given: Any, **options: Any) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(triton_loss, "_launcher", lambda: launch)
    with caplog.at_level(logging.INFO, "fcnzoo"):
        falls_back()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "because Triton failed: RuntimeError: no such device" in record.getMessage()
