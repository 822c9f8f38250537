"""Evaluation against labels made one image at a time, at full size."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch.utils.data import Dataset
from torchvision import tv_tensors
from typer.testing import CliRunner

import fcnzoo
from fcnzoo.cli import app
from fcnzoo.config import Preprocess
from fcnzoo.data import SegmentationFolder, make_transform
from fcnzoo.errors import LabelError
from fcnzoo.images.preprocess import to_tensor
from fcnzoo.inference.evaluation import Evaluation, evaluate
from fcnzoo.labels import LabelSet
from fcnzoo.model.fcn import FCN

CLASSES = LabelSet.from_names(("sky", "road", "car"), name="three")
SIZES = [(40, 56), (40, 56), (33, 47), (40, 56), (64, 32)]


@pytest.fixture(scope="module")
def trained() -> FCN:
    """A small network whose weights and BatchNorm statistics are random, so that all classes are predicted."""
    torch.manual_seed(0)
    model = fcnzoo.create("fcn8s", backbone="timm/test_resnet", num_classes=3)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    layers = [module for module in model.head.modules() if isinstance(module, torch.nn.Conv2d)]
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))  # statistics that are not the identity
        blocks = F.interpolate(torch.randn(8, 3, 4, 4), size=64, mode="bilinear")
        layers[0].bias -= model.eval()(blocks).mean((0, 2, 3))  # no class wins everywhere
    model.config = model.config.replace(label_set=CLASSES)
    return model.eval()


@pytest.fixture
def model(trained: FCN) -> FCN:
    """A copy that a test may change."""
    return copy.deepcopy(trained)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of three sizes, with masks that have void pixels."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for i, size in enumerate(SIZES):
        blocks = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BICUBIC).save(root / "images" / f"{i}.png")
        mask = rng.integers(0, 3, size, np.uint8)
        mask[:5] = 255
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    return root


@pytest.fixture
def data(root: Path) -> SegmentationFolder:
    """The folder as a data set."""
    return SegmentationFolder(root, CLASSES)


def counts_of(labels: list[np.ndarray], data: SegmentationFolder) -> list[list[int]]:
    """Return scikit-learn's confusion matrix of the labeled pixels of a data set."""
    targets = [data.mask(i).numpy() for i in range(len(data))]
    truth = np.concatenate([target[target != 255] for target in targets])
    taken = np.concatenate([label[target != 255] for label, target in zip(labels, targets, strict=True)])
    return confusion_matrix(truth, taken, labels=[0, 1, 2]).tolist()


def test_counts_are_those_of_the_predictor(model: FCN, data: SegmentationFolder) -> None:
    """The confusion matrix is that of the Predictor's labels at native size, without void."""
    predict = fcnzoo.Predictor(model)
    labels = [predict(image).labels for image, _ in data.files]
    assert len(np.unique(np.concatenate([label.ravel() for label in labels]))) == 3
    result = evaluate(model, data)
    assert [list(row) for row in result.confusion] == counts_of(labels, data)
    assert (result.images, result.dataset, result.flip, result.scales) == (5, "SegmentationFolder", False, (1.0,))
    assert result.metrics.names == CLASSES.names
    assert result.metrics.images == 5
    assert result.metrics.pixels == sum((height - 5) * width for height, width in SIZES)


@pytest.mark.parametrize(("batch_size", "workers"), [(2, 0), (5, 0), (3, 1)])
def test_batches_of_different_sizes(model: FCN, data: SegmentationFolder, batch_size: int, workers: int) -> None:
    """Images of different size in one batch, and worker processes, change nothing."""
    assert evaluate(model, data, batch_size=batch_size, num_workers=workers) == evaluate(model, data)
    flipped = evaluate(model, data, flip=True)
    assert evaluate(model, data, batch_size=batch_size, flip=True, num_workers=workers) == flipped


@pytest.mark.parametrize(("flip", "scales"), [(True, (1.0,)), (False, (0.75, 1.0, 1.5)), (True, (0.5, 1.25))])
def test_flip_and_scales_average_probabilities(
    model: FCN, data: SegmentationFolder, flip: bool, scales: tuple[float, ...]
) -> None:
    """Labels are the argmax of softmax probabilities averaged at full size over scales and mirror images."""
    labels = []
    for i in range(len(data)):
        picture = Image.fromarray(data.image(i).permute(1, 2, 0).numpy())
        total = torch.zeros(3, picture.height, picture.width)
        for scale in scales:
            short = round(min(picture.size) * scale)
            tensor = to_tensor(picture, model.preprocess.replace(resize=short))
            with torch.no_grad():
                for mirrored in (False, True)[: 1 + flip]:
                    logits = model(tensor.flip(3) if mirrored else tensor)
                    logits = logits.flip(3) if mirrored else logits
                    logits = F.interpolate(logits, size=total.shape[1:], mode="bilinear", align_corners=False)
                    total += logits.softmax(1)[0]
        labels.append(total.argmax(0).numpy())
    result = evaluate(model, data, flip=flip, scales=scales)
    assert [list(row) for row in result.confusion] == counts_of(labels, data)
    assert result.scales == scales
    assert result.flip is flip


@pytest.mark.parametrize("options", [{"resize": 48}, {"longer_side": 70}])
def test_networks_that_resize(model: FCN, data: SegmentationFolder, options: dict[str, int]) -> None:
    """With `resize` or `longer_side` the network sees a resized image; masks are compared at their own size."""
    preprocess = Preprocess((0.5,) * 3, (0.5,) * 3, **options)  # pyright: ignore[reportArgumentType]
    model.config = model.config.replace(preprocess=preprocess)
    predict = fcnzoo.Predictor(model)
    labels = [predict(image).labels for image, _ in data.files]
    assert [list(row) for row in evaluate(model, data).confusion] == counts_of(labels, data)
    assert evaluate(model, data, scales=(0.5, 1)).metrics.pixels == evaluate(model, data).metrics.pixels


def test_the_model_and_the_random_state_stay_as_they_were(model: FCN, data: SegmentationFolder) -> None:
    """BatchNorm uses its statistics and keeps them; mixed training flags and the random state come back."""
    model.train()
    model.backbone.eval()
    flags = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = evaluate(model, data, batch_size=2, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert result == evaluate(model.eval(), data)
    model.train()
    model(torch.randn(2, 3, 64, 64)).sum().backward()  # nothing that was cached bars training


def test_the_flags_come_back_after_an_error(model: FCN, data: SegmentationFolder) -> None:
    """A mask that has gone bad since the check stops the evaluation; the model is as it was."""
    model.train()
    files = list(data.files)
    data.files = (*files[:2], (files[0][0], files[2][1]))
    with pytest.raises(ValueError, match=r"2\.png is 47 × 33"):
        evaluate(model, data)
    assert model.training


def test_a_model_that_was_given_moves_and_stays(
    model: FCN, data: SegmentationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`evaluate` and `Predictor` move the model to `device` once, and never back; without it, not at all."""
    moves: list[object] = []
    monkeypatch.setattr(model, "to", lambda device: moves.append(device))
    fcnzoo.Predictor(model, device="cpu")
    assert moves == [torch.device("cpu")]
    evaluate(model, data, device="cpu")
    assert moves == [torch.device("cpu")] * 2
    fcnzoo.Predictor(model)
    evaluate(model, data)
    assert len(moves) == 2


def test_a_model_may_be_named(model: FCN, data: SegmentationFolder, tmp_path: Path) -> None:
    """A folder stands for the model that was saved there, as for `Predictor`."""
    fcnzoo.save(model, tmp_path / "net")
    assert fcnzoo.evaluate(tmp_path / "net", data) == fcnzoo.evaluate(str(tmp_path / "net"), data)
    assert fcnzoo.evaluate(tmp_path / "net", data) == evaluate(model, data)


def test_any_dataset_of_pairs(model: FCN, data: SegmentationFolder) -> None:
    """A `Subset`, or a data set of one's own with plain tensors, is measured alike."""

    class Own(Dataset[tuple[torch.Tensor, torch.Tensor]]):
        def __init__(self, value: int | None = None) -> None:
            self.value = value

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = data[index]
            mask = mask.as_subclass(torch.Tensor).long()
            if self.value is not None:
                mask[-1, -1] = self.value
            return image.as_subclass(torch.Tensor), mask

    subset = torch.utils.data.Subset(data, [0, 1])
    assert evaluate(model, Own()).metrics == evaluate(model, subset).metrics
    for flip in (False, True):
        with pytest.raises(LabelError, match=r"target holds \[3\]"):
            evaluate(model, Own(3), flip=flip)


def test_wrong_data_is_refused(model: FCN, data: SegmentationFolder, root: Path) -> None:
    """Transformed pictures, other classes, nothing to measure, impossible settings: one clear error each."""
    data.transform = make_transform(model.preprocess, train=False)
    with pytest.raises(ValueError, match=r"image 0 must be uint8 \(C, H, W\), got torch.float32.*without a transform"):
        evaluate(model, data)
    data.transform = lambda image, mask: (image, tv_tensors.Mask(mask[:-1]))
    with pytest.raises(ValueError, match=r"mask 0 must be \(40, 56\) as its image, got \(39, 56\)"):
        evaluate(model, data)
    data.transform = lambda image, mask: (image, torch.full_like(mask, 255))
    with pytest.raises(ValueError, match="no pixel was counted"):
        evaluate(model, data)
    data.transform = None
    with pytest.raises(ValueError, match=r"model has 3 classes, the data set 4 \('four'\)"):
        evaluate(model, SegmentationFolder(root, LabelSet.from_names("abcd"[i] for i in range(4)).replace(name="four")))
    data.label_set = CLASSES.replace(names=("sky", "street", "car"))
    with pytest.raises(ValueError, match="class 1 is 'road' for the model and 'street'"):
        evaluate(model, data)
    data.label_set = CLASSES
    with pytest.raises(ValueError, match="empty"):
        evaluate(model, torch.utils.data.Subset(data, []))
    with pytest.raises(TypeError, match="length"):
        evaluate(model, iter(data))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="batch_size"):
        evaluate(model, data, batch_size=0)
    for scales in [(), (0.0,), (-1.0,), (float("nan"),), (float("inf"),)]:
        with pytest.raises(ValueError, match="scales"):
            evaluate(model, data, scales=scales)
    with pytest.raises(ValueError, match="cannot be used"):
        evaluate(model, data, device="cuda:99" if torch.cuda.is_available() else "cuda")
    with pytest.raises(ValueError, match=r"\.png or \.jpg"):
        evaluate(model, data, picture_grid="grid.txt")


def test_picture_grid(model: FCN, data: SegmentationFolder, tmp_path: Path) -> None:
    """Rows of photo, truth and prediction, in the order of the data set, in the label set's colors."""
    path = tmp_path / "new" / "grid.png"
    evaluate(model, data, batch_size=3, picture_grid=path)
    grid = np.asarray(Image.open(path))
    heights = [round(height * 480 / width) for height, width in SIZES]
    assert grid.shape == (sum(heights) + 4 * 4, 3 * 480 + 2 * 4, 3)
    palette = np.array(CLASSES.palette, np.uint8)
    top = 0
    for i, height in enumerate(heights):
        truth, taken = (grid[top : top + height, left : left + 480] for left in (484, 968))
        mask = data.mask(i).numpy()
        rows = ((np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]).astype(int)
        columns = ((np.arange(mask.shape[1]) + 0.5) * 480 / mask.shape[1]).astype(int)
        sampled = truth[rows[:, None], columns]
        assert np.array_equal(sampled[mask != 255], palette[mask[mask != 255]])
        labels = fcnzoo.Predictor(model)(data.files[i][0]).labels
        assert np.array_equal(taken[rows[:, None], columns], palette[labels])
        top += height + 4


def test_json_and_table(model: FCN, data: SegmentationFolder) -> None:
    """An evaluation goes to JSON and back; its table says what was measured and how."""
    result = evaluate(model, data, flip=True, scales=(0.5, 1))
    assert Evaluation.from_json(result.to_json()) == result
    assert str(result.table().title) == "SegmentationFolder; flip; scales 0.5, 1"


def test_command_line(trained: FCN, root: Path, tmp_path: Path) -> None:
    """`fcnzoo evaluate FOLDER` prints a row per class and writes the JSON and the pictures."""
    fcnzoo.save(trained, tmp_path / "net")
    command = ["evaluate", str(tmp_path / "net"), "--data", str(root), "--out", str(tmp_path / "a.json")]
    result = CliRunner().invoke(app, [*command, "--pictures", str(tmp_path / "a.jpg"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    figures = Evaluation.from_json((tmp_path / "a.json").read_text())
    assert figures == evaluate(trained, SegmentationFolder(root, CLASSES))
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines][:4] == ["sky", "road", "car", "mean (mIoU)"]
    assert float(lines[3][1]) == pytest.approx(100 * figures.metrics.mean_iou, abs=0.005)
    assert (tmp_path / "a.jpg").is_file()
    again = [*command, "--flip", "--scales", "0.5,1", "--batch-size", "2", "--num-workers", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, again)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a.json exists; give another --out, or --force" in result.stderr
    result = CliRunner().invoke(app, [*again, "--force"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "a.json").read_text())["scales"] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--data", "{root}", "--dataset", "camvid"], 1, "expected val/images"),
        (["--data", "{root}/nowhere"], 1, "there is no folder"),
        (["--data", "{root}", "--scales", "one"], 2, "no list of factors"),
        (["--data", "{root}", "--out", "{root}"], 1, "is a folder; give a file"),
        (["--data", "{root}", "--pictures", "{root}/images/0.png"], 1, "give another --pictures, or --force"),
        (["--data", "{root}", "--dataset", "camvit"], 2, "camvit"),
        ([], 2, "--data"),
    ],
)
def test_command_line_with_bad_input(
    trained: FCN, root: Path, tmp_path: Path, options: list[str], code: int, text: str
) -> None:
    """Bad data ends with one line and exit code 1, wrong usage with 2."""
    fcnzoo.save(trained, tmp_path / "net")
    options = [option.format(root=root) for option in options]
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "net"), "--device", "cpu", *options])
    assert result.exit_code == code
    assert text in result.stderr
    if code == 1:
        assert len(result.stderr.splitlines()) == 1
