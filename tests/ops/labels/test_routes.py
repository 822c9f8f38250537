"""The routes of `ops.upsample_argmax`: the compiled and the plain one, against bilinear sampling in float64."""

from __future__ import annotations

import importlib.util
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from references import sample

from fcnzoo import ops
from fcnzoo.config import Grid
from fcnzoo.ops.labels import compiled as compiled_route
from fcnzoo.ops.labels import plain as plain_argmax

HAS_NUMBA = importlib.util.find_spec("numba") is not None
ROUTES = [pytest.param("1", marks=pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed"), id="compiled")]
ROUTES += [pytest.param("0", id="plain")]


@pytest.fixture(params=ROUTES)
def either_route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both routes, one after the other."""
    monkeypatch.setenv(compiled_route.SWITCH, request.param)
    return request.param


def same(scores: torch.Tensor, logits: torch.Tensor, got: torch.Tensor, relative: float = 1e-6) -> bool:
    """Whether each label is the argmax, except where another class is within rounding of it."""
    chosen = logits.gather(1, got.long()[:, None])[:, 0]
    return bool((logits.amax(1) - chosen <= relative * scores.double().abs().max()).all())


def random_grid(choice: random.Random) -> Grid:
    """Any kind of grid, with strides below 1, fractional ones, and images that lie beyond the scores."""
    strides, offsets = [0.4, 1, 1.5, 2, 3, 7.3, 8, 16, 32], [0, -1, -20, 3.5, 27, 200]
    border = choice.choice(["edge", "zeros"])
    grids = [
        Grid(),
        Grid(multiple=choice.choice([8, 32]), min_size=choice.choice([1, 64])),
        Grid(align_corners=True, multiple=choice.choice([1, 32])),
        Grid(stride=choice.choice(strides), offset=choice.choice(offsets), border=border),
        Grid(stride=choice.choice(strides), offset=choice.choice(offsets), border=border),
    ]
    return choice.choice(grids)


def random_scores(choice: random.Random, dtype: torch.dtype) -> torch.Tensor:
    """Rough, smooth, tied and negative scores, in any memory layout."""
    shape = (choice.randint(1, 2), choice.choice([1, 2, 5, 21, 150, 300]), choice.randint(1, 12), choice.randint(1, 12))
    scores = torch.randn(shape)
    kind = choice.choice(["rough", "smooth", "tied", "negative"])
    if kind == "smooth":
        scores = torch.nn.functional.interpolate(scores[..., :2, :2], shape[2:], mode="bilinear")
    elif kind == "tied":
        scores = scores.round()
    elif kind == "negative":
        scores = -scores.abs()
    layout = choice.choice(["plain", "channels last", "transposed"])
    if layout == "channels last":
        scores = scores.to(memory_format=torch.channels_last)
    return (scores.transpose(2, 3) if layout == "transposed" else scores).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_labels_are_those_of_float64(either_route: str, dtype: torch.dtype) -> None:
    """On any grid, size, shape and layout the label is the argmax of the scores sampled in float64."""
    choice = random.Random(5)
    for _ in range(60):
        grid, size = random_grid(choice), (choice.randint(1, 70), choice.randint(1, 70))
        scores = random_scores(choice, dtype)
        got = ops.upsample_argmax(scores, grid, size)
        logits = ops.upsample(scores.double(), grid, size)
        assert same(scores, logits, got, 1e-13 if dtype == torch.float64 else 1e-6), (grid, size, scores.shape)


@pytest.mark.parametrize("stride", [1.0, 2.5, 8.0, 20.0])
@pytest.mark.parametrize("offset", [-9.0, 0.0, 13.0])
@pytest.mark.parametrize("zeros", [False, True])
def test_labels_are_those_of_sampling_in_python(either_route: str, stride: float, offset: float, zeros: bool) -> None:
    """Sampling pixel by pixel in Python gives the same labels, for every small shape of scores."""
    grid = Grid(stride=stride, offset=offset, border="zeros" if zeros else "edge")
    for shape in ((1, 1), (1, 3), (2, 2), (3, 2)):
        scores = torch.randn(1, 4, *shape)
        logits = sample(scores, (19, 18), (stride, stride), offset, zeros=zeros)
        assert same(scores, logits, ops.upsample_argmax(scores, grid, (19, 18)))


def test_equal_scores_go_to_the_lower_class_everywhere(either_route: str) -> None:
    """Where two classes are equal at all corners the lower one wins, whatever the others do."""
    for dtype in (torch.float32, torch.float64):
        scores = torch.randn(1, 6, 7, 9, dtype=dtype)
        scores[:, 4] = scores[:, 1]
        for grid in (Grid(), Grid(stride=11, offset=30, border="zeros"), Grid(align_corners=True)):
            labels = ops.upsample_argmax(scores, grid, (150, 90))
            assert not (labels == 4).any()
            assert (labels == 1).any()


def test_beyond_zeros_class_0_wins(either_route: str) -> None:
    """Where every score is 0 all are equal: class 0."""
    labels = ops.upsample_argmax(torch.randn(1, 5, 3, 3) + 5, Grid(stride=4, offset=100, border="zeros"), (9, 9))
    assert not labels.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_treated_as_torch_does(either_route: str, value: float) -> None:
    """NaN is the highest, the first one first; 0 · inf is NaN; the rest of the map is as without them."""
    scores = torch.randn(1, 5, 6, 7)
    scores[0, 3, 2, 2] = scores[0, 1, 4, 5] = value
    grid = Grid(stride=8, offset=3)
    assert torch.equal(
        ops.upsample_argmax(scores, grid, (40, 50)).long(), ops.upsample(scores, grid, (40, 50)).argmax(1)
    )


@pytest.mark.parametrize("magnitude", [1e-20, 1e20])
def test_magnitude_of_scores_does_not_matter(either_route: str, magnitude: float) -> None:
    """Tiny and huge scores have the labels of scores around 1."""
    scores = torch.randn(1, 6, 5, 5)
    want = ops.upsample_argmax(scores, Grid(), (33, 33))
    assert (ops.upsample_argmax(scores * magnitude, Grid(), (33, 33)) == want).float().mean() > 0.999


@pytest.mark.parametrize("classes", [2, 300])
def test_labels_are_written_into_out(either_route: str, classes: int) -> None:
    """`out` is filled and returned, also where it is a part of something larger."""
    scores = torch.randn(2, classes, 4, 4)
    whole = torch.zeros(2, 30, 40, dtype=ops.label_dtype(classes))
    out = whole[:, 5:25, 3:33]
    assert ops.upsample_argmax(scores, Grid(), (20, 30), out=out) is out
    assert torch.equal(out, ops.upsample_argmax(scores, Grid(), (20, 30)))
    assert not whole[:, :5].any()
    assert not whole[..., 33:].any()


@pytest.mark.parametrize(
    "out", [torch.empty(1, 8, 9, dtype=torch.uint8), torch.empty(1, 8, 8), torch.empty(1, 8, 8, dtype=torch.int16)]
)
def test_out_that_does_not_fit_is_refused(out: torch.Tensor) -> None:
    """A buffer of another shape or dtype is a ValueError that says what is wanted."""
    with pytest.raises(ValueError, match=r"out must be torch.uint8 of shape \(1, 8, 8\)"):
        ops.upsample_argmax(torch.zeros(1, 3, 2, 2), Grid(), (8, 8), out=out)


@pytest.mark.parametrize("shape", [(1, 0, 2, 2), (1, 2, 0, 2), (1, 2, 2, 0)])
def test_empty_scores_are_refused(shape: tuple[int, ...]) -> None:
    """Scores without classes or cells are a ValueError."""
    with pytest.raises(ValueError, match="K, h, w ≥ 1"):
        ops.upsample_argmax(torch.zeros(shape), Grid(), (4, 4))


def test_an_empty_batch_has_empty_labels() -> None:
    """No images, no labels."""
    assert ops.upsample_argmax(torch.zeros(0, 3, 2, 2), Grid(), (4, 5)).shape == (0, 4, 5)


def test_scores_that_need_gradients_are_taken(either_route: str) -> None:
    """Labels have no gradient, so scores with one are no error."""
    assert not ops.upsample_argmax(torch.randn(1, 3, 2, 2, requires_grad=True), Grid(), (4, 4)).requires_grad


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch with two threads."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def test_threads_share_the_work(either_route: str, two_threads: None) -> None:
    """With more threads, and called from several threads at once, labels are the same."""
    scores = torch.randn(2, 21, 40, 40)
    want = ops.upsample(scores, Grid(), (400, 400)).argmax(1)
    results: list[torch.Tensor] = []

    def call() -> None:
        results.append(ops.upsample_argmax(scores, Grid(), (400, 400)))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 4
    for got in results:
        assert torch.equal(got, results[0])
        assert (got.long() != want).float().mean() < 1e-4


def _label_in_child(queue: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)  # as a DataLoader does
    scores, out = torch.ones(1, 3, 40, 40), torch.ones(1, 320, 320, dtype=torch.uint8)
    queue.put(int(ops.upsample_argmax(scores, Grid(), (320, 320)).sum()))
    # With two threads PyTorch's own operations would hang in a forked process; ours start again.
    torch.set_num_threads(2)
    queue.put(compiled_route.label(scores, Grid(), out))
    queue.put(int(out.numpy().sum()))


@pytest.mark.skipif(not HAS_NUMBA or not hasattr(os, "fork"), reason="needs numba and fork")
def test_works_after_a_fork(two_threads: None) -> None:
    """In a forked process, as a DataLoader's worker is, the compiled route works, with one thread and with two."""
    ops.upsample_argmax(torch.randn(1, 3, 40, 40), Grid(), (640, 640))  # starts threads here
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_label_in_child, args=(queue,), daemon=True)
    child.start()
    child.join(20)
    child.kill()
    assert child.exitcode == 0
    assert [queue.get() for _ in range(3)] == [0, True, 0]


def test_failure_of_numba_is_told_and_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where compiling fails the plain route answers, and the log says why, once, as information."""

    def fail(*_: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(compiled_route, "_kernels", {})
    monkeypatch.setattr(compiled_route, "_build", fail)
    monkeypatch.setattr(compiled_route, "find_spec", lambda _: True)
    scores = torch.randn(1, 3, 4, 4)
    with caplog.at_level(logging.INFO, logger="fcnzoo"):
        for _ in range(2):
            assert torch.equal(
                ops.upsample_argmax(scores, Grid(), (8, 8)).long(), ops.upsample(scores, Grid(), (8, 8)).argmax(1)
            )
    assert [(r.levelno, "no compiler" in r.message) for r in caplog.records] == [(logging.INFO, True)]


@pytest.mark.skipif(not HAS_NUMBA, reason="numba is not installed")
def test_a_folder_that_cannot_be_written_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder for compiled code the loops are compiled in memory."""
    import numba

    calls: list[dict[str, object]] = []

    def njit(*_: object, **options: object) -> object:
        calls.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert callable(compiled_route._build("float32", "uint8"))
    assert [call.get("cache", False) for call in calls][-2:] == [True, False]


def test_importing_operations_does_not_import_numba() -> None:
    """Numba and Triton's kernel are imported when they are needed."""
    code = "import sys, fcnzoo.ops; assert not {'numba', 'fcnzoo.ops.labels.kernel'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(ops.__file__).parents[2])


def test_exports_see_the_plain_definition() -> None:
    """On the meta device and in an exported graph labels are the argmax of the upsampled scores."""
    meta = ops.upsample_argmax(torch.empty(2, 3, 4, 4, device="meta"), Grid(), (8, 9))
    assert (meta.shape, meta.dtype) == ((2, 8, 9), torch.uint8)

    class Labels(torch.nn.Module):
        def forward(self, scores: torch.Tensor) -> torch.Tensor:
            return ops.upsample_argmax(scores, Grid(), (8, 9))

    scores = torch.randn(1, 3, 4, 4)
    exported = torch.export.export(Labels(), (scores,))
    targets = {str(node.target) for node in exported.graph.nodes}
    assert any("argmax" in target for target in targets)
    assert torch.equal(exported.module()(scores), ops.upsample_argmax(scores, Grid(), (8, 9)))


@pytest.mark.parametrize("few", [0.0, 1.0])
@pytest.mark.parametrize(
    "grid",
    [
        Grid(),
        Grid(stride=8, offset=3, border="zeros"),
        Grid(multiple=32),
        Grid(stride=5.5),
        Grid(stride=0.6),
        Grid(stride=4, offset=-30),
    ],
)
def test_both_ways_to_sample_cells_agree(
    monkeypatch: pytest.MonkeyPatch, two_threads: None, few: float, grid: Grid
) -> None:
    """Row by row or from anywhere, few classes or many, one tile or several: the labels are the reference's."""
    monkeypatch.setattr(plain_argmax, "FEW", few)
    monkeypatch.setattr(plain_argmax, "SAMPLED", 2**12)
    monkeypatch.setattr(plain_argmax, "PRUNED", 20)
    monkeypatch.setattr(plain_argmax, "CELLS", 5)
    monkeypatch.setattr(plain_argmax, "ALONE", 1)
    generator = torch.Generator().manual_seed(1)
    for classes in (1, 2, 30):
        scores = torch.randn(2, classes, 9, 12, generator=generator, dtype=torch.float64)
        wide = torch.empty(2, 60, 200, dtype=torch.uint8)
        labels = wide[:, :, 3:84]
        plain_argmax.label_cells(scores, grid, labels)
        assert torch.equal(labels.long(), ops.upsample(scores, grid, (60, 81)).argmax(1))


@pytest.mark.parametrize("few", [0.0, 1.0])
def test_inference_mode_reaches_every_thread(monkeypatch: pytest.MonkeyPatch, two_threads: None, few: float) -> None:
    """Inside `torch.inference_mode` the plain route's own threads write to labels made there."""
    monkeypatch.setenv(compiled_route.SWITCH, "0")
    monkeypatch.setattr(plain_argmax, "FEW", few)
    monkeypatch.setattr(plain_argmax, "ALONE", 1)
    scores = torch.randn(1, 7, 20, 20)
    want = ops.upsample_argmax(scores, Grid(), (160, 160))
    with torch.inference_mode():
        assert torch.equal(ops.upsample_argmax(scores * 1, Grid(), (160, 160)), want)
    assert torch.get_num_threads() == 2
