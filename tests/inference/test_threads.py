"""Many threads on one network: labels and weights are those of one thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from model.test_fcn import randomize

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.model.evaluating import evaluating
from fcnzoo.model.fcn import FCN, build

SIZES = ((60, 80), (33, 47), (101, 64), (80, 60))


def network() -> FCN:
    """A small network with BatchNorm, whose statistics training mode would change."""
    config = FCNConfig(BackboneConfig("timm/resnet10t"), SkipHeadConfig(hidden_channels=8), num_classes=5)
    model = build(config)
    randomize(model)
    return model


def pictures() -> list[np.ndarray]:
    """One picture of noise of each size."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def together(count: int, work: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """Call `work(i)` in eight threads that start at once."""
    start = Barrier(8)

    def run(first: int) -> list[np.ndarray]:
        start.wait()
        return [work(i) for i in range(first, count, 8)]

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(run, range(8)))
    return [parts[i % 8][i // 8] for i in range(count)]


@pytest.mark.parametrize("options", [{}, {"fast": True}, {"tile": 64}], ids=["plain", "fast", "tiled"])
@pytest.mark.parametrize("predictors", [1, 2])
def test_threads_share_a_network(options: dict[str, object], predictors: int) -> None:
    """Eight threads with one predictor, or with two of one network: the labels of one thread; no weight changes."""
    model = network()  # in training mode, as it was built
    shared = [fcnzoo.Predictor(model, **options) for _ in range(predictors)]  # pyright: ignore[reportArgumentType]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = pictures()
    alone = [[one(image).labels for image in images] for one in shared]
    found = together(64, lambda i: shared[i % predictors](images[i % 4]).labels)
    for i, labels in enumerate(found):
        np.testing.assert_array_equal(labels, alone[i % predictors][i % 4])
    after = model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert not any(module.training for module in model.modules())


def test_threads_predict_with_a_network_in_training_mode() -> None:
    """`predict` in eight threads gives eval mode's labels, leaves the statistics, and puts the modes back."""
    model = network()
    model.backbone.eval()  # a frozen part stays so
    modes = [module.training for module in model.modules()]
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None] / 255 for image in pictures()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    alone = [model.predict(tensor).numpy() for tensor in tensors]
    for labels, want in zip(together(64, lambda i: model.predict(tensors[i % 4]).numpy()), alone * 16, strict=True):
        np.testing.assert_array_equal(labels, want)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_last_one_to_leave_switches_back() -> None:
    """While anybody is inside, the network is in eval mode, whoever came first."""
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.Dropout())
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training and not model[0].training
    second.__exit__(None, None, None)
    assert model.training and model[0].training


def test_what_is_made_for_use_is_in_eval_mode() -> None:
    """`create(pretrained=True)` and a predictor's own network are; a fresh network is in training mode."""
    assert not fcnzoo.create("fcn8s_tf_efficientnet_lite0", pretrained=True).training
    assert not fcnzoo.Predictor().model.training
    assert fcnzoo.create("fcn8s_resnet18", device="meta").training
