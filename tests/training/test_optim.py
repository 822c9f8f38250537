"""Parameter groups, schedules, freezing and averaging against closed forms."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import fcnzoo
from fcnzoo.training.optim import (
    AveragedModel,
    build_optimizer,
    freeze,
    parameter_groups,
    schedule_factor,
    training_mode,
)
from fcnzoo.training.sections import OptimSection, ScheduleSection


@pytest.fixture(scope="module")
def model() -> fcnzoo.FCN:
    """A tiny network with an aux head and hidden head layers."""
    return fcnzoo.create("fcn_test_resnet", num_classes=3, aux=True)


def test_groups_hold_every_parameter_once(model: fcnzoo.FCN) -> None:
    """All trainable parameters are in exactly one group, each under the learning rate of its part."""
    optim = OptimSection(lr=3.0, backbone_lr=1.0, aux_lr=2.0)
    groups = {group["name"]: group for group in parameter_groups(model, optim)}
    ids = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    assert {name: group["lr"] for name, group in groups.items()} == {
        "backbone": 1.0,
        "backbone norm": 1.0,
        "head": 3.0,
        "head bias": 3.0,
        "head norm": 3.0,
        "aux": 2.0,
        "aux bias": 2.0,
        "aux norm": 2.0,
    }


def test_bias_options_of_the_paper() -> None:
    """Biases of convolutions learn twice as fast and do not decay; BatchNorm's affine may be spared too."""
    module = nn.Module()
    module.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module.head = nn.Conv2d(4, 2, 1)
    optim = OptimSection(lr=1.0, bias_lr_factor=2.0, weight_decay=0.1, no_decay=("bias", "norm"))
    found = {
        group["name"]: (len(group["params"]), group["lr"], group["weight_decay"])
        for group in parameter_groups(module, optim)
    }
    assert found == {
        "backbone": (1, 1.0, 0.1),
        "backbone bias": (1, 2.0, 0.0),
        "backbone norm": (2, 1.0, 0.0),
        "head": (1, 1.0, 0.1),
        "head bias": (1, 2.0, 0.0),
    }
    assert all(group["weight_decay"] == 0.1 for group in parameter_groups(module, optim.replace(no_decay=())))


@pytest.mark.parametrize(
    ("schedule", "closed_form"),
    [
        (ScheduleSection(kind="poly", power=0.9), lambda t: (1 - t / 50) ** 0.9),
        (ScheduleSection(kind="poly", power=2.0, warmup_steps=10), lambda t: min(1, (t + 1) / 10) * (1 - t / 50) ** 2),
        (ScheduleSection(kind="cosine"), lambda t: (1 + math.cos(math.pi * t / 50)) / 2),
        (ScheduleSection(kind="constant", warmup_steps=5), lambda t: min(1, (t + 1) / 5)),
    ],
)
def test_schedules(schedule: ScheduleSection, closed_form: object) -> None:
    """Each schedule is its closed form at every step."""
    for step in range(50):
        assert schedule_factor(step, 50, schedule) == pytest.approx(closed_form(step), rel=1e-12)  # pyright: ignore


def test_poly_agrees_with_torch() -> None:
    """Without warm-up, poly is torch's `PolynomialLR`."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9)
    for step in range(20):
        assert schedule_factor(step, 20, ScheduleSection()) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        reference.step()


def test_average_follows_its_recurrence() -> None:
    """Parameters and BatchNorm statistics follow a ← d·a + (1−d)·w, d = min(decay, t/(t+10)); counters are copied."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = AveragedModel(model, decay=0.3)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(1, 12):
        with torch.no_grad():
            for value in model.state_dict().values():
                value += torch.ones_like(value) if not value.is_floating_point() else torch.randn_like(value)
        average.update(model, step)
        decay = min(0.3, step / (step + 10))
        for name, value in model.state_dict().items():
            expected[name] = (
                decay * expected[name] + (1 - decay) * value.double() if value.is_floating_point() else value.double()
            )
    for name, value in average.model.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_a_tensor_with_two_names_is_averaged_once() -> None:
    """Layers that share a tensor (timm's CoaT) follow the recurrence like all others."""
    shared = nn.Conv2d(1, 1, 1)
    model = nn.Sequential(shared, nn.Sequential(shared))
    average = AveragedModel(model, decay=0.5)
    before = shared.weight.detach().clone()
    with torch.no_grad():
        shared.weight += 1.0
    average.update(model, 100)
    assert len(model.state_dict()) == 4
    for name in ("0.weight", "1.0.weight"):
        torch.testing.assert_close(average.model.state_dict()[name], before + 0.5)


@pytest.mark.parametrize(("which", "frozen_head"), [("none", False), ("backbone", False), ("all", True)])
def test_frozen_batchnorm(model: fcnzoo.FCN, which: str, frozen_head: bool) -> None:
    """Frozen layers keep their statistics while training and, if asked, their scale and shift."""
    model = copy.deepcopy(model)
    optim = OptimSection(freeze_batchnorm=which, freeze_affine=which != "none")  # pyright: ignore[reportArgumentType]
    freeze(model, optim)
    training_mode(model, optim)
    before = copy.deepcopy(model.state_dict())
    optimizer = build_optimizer(model, optim)
    model(torch.rand(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long)).backward()
    optimizer.step()
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    changed = {
        name
        for name in norms
        if any(
            not torch.equal(model.state_dict()[f"{name}.{key}"], before[f"{name}.{key}"])
            for key in ("weight", "bias", "running_mean", "running_var")
        )
    }
    assert {name for name in changed if name.startswith("backbone")} == (
        set() if which != "none" else {n for n in norms if n.startswith("backbone")}
    )
    assert any(not name.startswith("backbone") for name in changed) is not frozen_head
    assert model.training


def test_nothing_to_train() -> None:
    """A model of which everything is frozen is an error, not a run without effect."""
    module = nn.Module()
    module.backbone = nn.Conv2d(3, 4, 1)
    freeze(module, OptimSection(backbone_lr=0.0))
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(module, OptimSection(backbone_lr=0.0))


def test_a_frozen_backbone_computes_the_same_for_ever(model: fcnzoo.FCN) -> None:
    """With backbone_lr = 0 a training step changes no tensor of the backbone, BatchNorm statistics included."""
    module, optim = copy.deepcopy(model), OptimSection(lr=0.1, backbone_lr=0.0)
    freeze(module, optim)
    training_mode(module, optim)
    before = {key: value.clone() for key, value in module.backbone.state_dict().items()}
    optimizer = build_optimizer(module, optim)
    module(torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))).backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in module.backbone.state_dict().items())
    assert module.head.training and module.aux_head is not None and module.aux_head.training
