"""Metrics against torchmetrics, scikit-learn and a confusion matrix counted pixel by pixel."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score, recall_score
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from fcnzoo.errors import LabelError
from fcnzoo.metrics import ConfusionMatrix, SegmentationMetrics

K = 6


def maps(images: int = 5, seed: int = 0, classes: int = K, size: tuple[int, int] = (9, 13)) -> tuple[Tensor, Tensor]:
    """Return predictions and targets (B, H, W); about a tenth is void, and they agree about half the time."""
    generator = torch.Generator().manual_seed(seed)
    prediction = torch.randint(0, classes, (images, *size), generator=generator)
    target = torch.randint(0, classes, (images, *size), generator=generator)
    target = torch.where(torch.rand(target.shape, generator=generator) < 0.4, prediction, target)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    return prediction, target


def filled(prediction: Tensor, target: Tensor, classes: int = K) -> ConfusionMatrix:
    """Return a matrix that has counted these labels."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, target)
    return matrix


def test_counts_equal_counting_one_by_one() -> None:
    """Rows are the truth, columns the prediction, void is in neither."""
    prediction, target = maps()
    counts = [[0] * K for _ in range(K)]
    for taken, truth in zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True):
        if truth != 255:
            counts[truth][taken] += 1
    matrix = filled(prediction, target)
    assert matrix.counts.dtype == torch.int64
    assert matrix.counts.tolist() == counts
    counted = target != 255
    assert np.array_equal(matrix.counts, confusion_matrix(target[counted], prediction[counted]))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchmetrics(seed: int) -> None:
    """Macro, per-class and micro IoU are torchmetrics' Jaccard index with its ignore index."""
    prediction, target = maps(seed=seed)
    metrics = filled(prediction, target).compute()
    for average, ours in [
        ("macro", metrics.mean_iou),
        ("none", metrics.iou),
        ("micro", metrics.micro_iou),
        ("weighted", metrics.frequency_weighted_iou),
    ]:
        theirs = MulticlassJaccardIndex(K, average=average, ignore_index=255)(prediction, target)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_scikit_learn(seed: int) -> None:
    """IoU, recall, accuracy and balanced accuracy are scikit-learn's on the labeled pixels."""
    prediction, target = maps(seed=seed)
    metrics = filled(prediction, target).compute()
    truth, taken = target[target != 255], prediction[target != 255]
    np.testing.assert_allclose(metrics.iou, jaccard_score(truth, taken, average=None))
    np.testing.assert_allclose(metrics.mean_iou, jaccard_score(truth, taken, average="macro"))
    np.testing.assert_allclose(metrics.micro_iou, jaccard_score(truth, taken, average="micro"))
    np.testing.assert_allclose(metrics.frequency_weighted_iou, jaccard_score(truth, taken, average="weighted"))
    np.testing.assert_allclose(metrics.accuracy, recall_score(truth, taken, average=None))
    np.testing.assert_allclose(metrics.pixel_accuracy, accuracy_score(truth, taken))
    np.testing.assert_allclose(metrics.mean_accuracy, balanced_accuracy_score(truth, taken))
    assert metrics.pixels == len(truth)
    assert metrics.absent == ()


def test_absent_classes_are_listed_and_in_no_mean() -> None:
    """Neither in truth nor prediction: absent, no IoU. Predicted but not true: IoU 0, which counts."""
    prediction, target = torch.tensor([0, 0, 1, 3]), torch.tensor([0, 0, 1, 1])
    matrix = ConfusionMatrix(5, ("sky", "road", "car", "pole", "sign"))
    matrix.update(prediction, target)
    metrics = matrix.compute()
    assert metrics.iou == (1.0, 0.5, None, 0.0, None)
    assert metrics.accuracy == (1.0, 0.5, None, None, None)
    assert metrics.absent == ("car", "sign")
    assert metrics.mean_iou == pytest.approx((1 + 0.5 + 0) / 3)
    assert metrics.mean_accuracy == pytest.approx(0.75)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MulticlassJaccardIndex(5, average="macro", ignore_index=255)(prediction, target)
    np.testing.assert_allclose(metrics.mean_iou, theirs)


def test_per_image_mean_iou() -> None:
    """The mean over images of each image's own mean IoU, which is not that of the pooled counts."""
    prediction, target = maps(7)
    target[3] = 255  # void throughout: has no IoU of its own
    matrix = ConfusionMatrix(K)
    for one, truth in zip(prediction, target, strict=True):
        matrix.update_image(one, truth)
    metrics = matrix.compute()
    alone = [
        jaccard_score(truth[truth != 255], one[truth != 255], average="macro")
        for i, (one, truth) in enumerate(zip(prediction, target, strict=True))
        if i != 3
    ]
    assert metrics.per_image_mean_iou == pytest.approx(np.mean(alone))
    assert metrics.images == 6
    assert metrics.mean_iou == pytest.approx(filled(prediction, target).compute().mean_iou)
    assert metrics.mean_iou != pytest.approx(np.mean(alone), abs=1e-3)
    matrix.update(prediction, target)
    assert matrix.compute().per_image_mean_iou is None


def test_parts_merge_to_the_whole() -> None:
    """Counts of parts, from tensors or other matrices, add up to those of everything at once."""
    prediction, target = maps()
    whole, merged, parts = filled(prediction, target), ConfusionMatrix(K), ConfusionMatrix(K)
    for one, truth in zip(prediction, target, strict=True):
        merged.merge(filled(one, truth).counts, by_image=True)
    for half in (slice(0, 2), slice(2, 5)):
        part = ConfusionMatrix(K)
        for one, truth in zip(prediction[half], target[half], strict=True):
            part.update_image(one, truth)
        parts.merge(part)
    assert torch.equal(whole.counts, merged.counts)
    assert merged.compute() == parts.compute()
    assert merged.compute().per_image_mean_iou is not None


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_dtypes_and_shapes(dtype: torch.dtype) -> None:
    """Any integer dtype and shape count the same; another ignore index too."""
    prediction, target = maps()
    whole = filled(prediction, target)
    assert torch.equal(filled(prediction.to(dtype), target.to(dtype).flatten().view_as(target)).counts, whole.counts)
    minus = ConfusionMatrix(K)
    minus.update(prediction.flatten(), target.where(target != 255, -1).flatten(), ignore_index=-1)
    assert torch.equal(minus.counts, whole.counts)


def test_predictions_under_void_do_not_matter() -> None:
    """Where the target is void, the prediction may be anything."""
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([0, 1, 77]), torch.tensor([0, 1, 255]))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]


def test_wrong_input_is_refused() -> None:
    """Labels out of range, shapes and dtypes that do not fit, and an empty matrix: one error each."""
    matrix = ConfusionMatrix(3)
    good = torch.tensor([0, 1, 2])
    with pytest.raises(LabelError, match=r"target holds \[3, 9\]; allowed are 0…2 and ignore_index=255"):
        matrix.update(good, torch.tensor([3, 9, 255]))
    with pytest.raises(LabelError, match=r"target holds \[-1\]"):
        matrix.update(good, torch.tensor([-1, 0, 0]))
    with pytest.raises(LabelError, match=r"prediction holds \[4\]; allowed are 0…2$"):
        matrix.update(torch.tensor([4, 0, 0]), good)
    with pytest.raises(ValueError, match=r"\(3,\) and target \(2,\)"):
        matrix.update(good, good[:2])
    with pytest.raises(TypeError, match="argmax"):
        matrix.update(good.float(), good)
    with pytest.raises(ValueError, match=r"counts must be \(3, 3\)"):
        matrix.merge(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="integer"):
        matrix.merge(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="0 or more"):
        matrix.merge(torch.full((3, 3), -1))
    with pytest.raises(ValueError, match="no pixel was counted"):
        matrix.compute()
    with pytest.raises(ValueError, match="num_classes"):
        ConfusionMatrix(0)
    with pytest.raises(ValueError, match="2 names"):
        ConfusionMatrix(3, ("a", "b"))
    assert matrix.counts.sum() == 0


def test_metrics_go_to_json_and_back_and_to_a_table() -> None:
    """JSON holds every figure, `null` where there is none; the table lists classes, means and the absent."""
    matrix = ConfusionMatrix(3, ("a", "b [x]", "c"))
    matrix.update_image(torch.tensor([0, 1]), torch.tensor([0, 0]))
    metrics = matrix.compute()
    assert SegmentationMetrics.from_json(metrics.to_json()) == metrics
    assert json.loads(metrics.to_json())["iou"] == [0.5, 0.0, None]
    console = Console(width=100, file=io.StringIO())
    console.print(metrics.table("title"))
    text = " ".join(console.file.getvalue().split())  # pyright: ignore[reportAttributeAccessIssue]
    for part in ("title", "b [x]", "50.00", "25.00", "in no mean: c", "mean per image (1)"):
        assert part in text


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", ">i4", "uint32", "int64"])
@pytest.mark.parametrize("as_target", ["array", "tensor"])
def test_arrays_are_counted_as_tensors(dtype: str, as_target: str) -> None:
    """Labels as `Predictor` gives them, of any integer type, read-only or not, count as tensors do."""
    prediction = np.arange(12).reshape(3, 4) % 3
    target = np.roll(prediction, 1, 1)
    target[0, 0] = 255
    want = ConfusionMatrix(3)
    want.update(torch.from_numpy(prediction), torch.from_numpy(target))
    given = prediction.astype(dtype)
    given.flags.writeable = False
    truth = target.astype(dtype if dtype != "int8" else "uint8")
    got = ConfusionMatrix(3)
    got.update(given, truth if as_target == "array" else torch.from_numpy(target))
    assert torch.equal(got.counts, want.counts)


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros(3, bool), np.array(["a", "b", "c"]), None, "abc"])
def test_arrays_of_something_else(wrong: object) -> None:
    """Scores, masks, texts and nothing are refused with what was given."""
    with pytest.raises(TypeError, match="prediction must be a tensor or an array of an integer dtype, got"):
        ConfusionMatrix(3).update(wrong, np.zeros(3, int))  # pyright: ignore[reportArgumentType]


def test_the_ignore_index_is_no_number_modulo_256() -> None:
    """`None` counts everything; 300 is not 44, whatever the target's type; other things are refused."""
    labels = torch.tensor([0, 1, 1], dtype=torch.uint8)
    matrix = ConfusionMatrix(2)
    matrix.update(labels, labels, ignore_index=None)
    assert matrix.counts.sum() == 3
    with pytest.raises(LabelError, match=r"target holds \[44\]"):
        matrix.update(labels, torch.tensor([0, 44, 1], dtype=torch.uint8), ignore_index=300)
    matrix.update(labels, torch.tensor([0, 300, 1]), ignore_index=300)
    assert matrix.counts.sum() == 5
    for wrong in ("255", 1.5, True):
        with pytest.raises(TypeError, match="ignore_index must be an int or None"):
            matrix.update(labels, labels, ignore_index=wrong)  # pyright: ignore[reportArgumentType]
