"""One recipe for every entry of the zoo."""

from __future__ import annotations

import pytest
import torch

import fcnzoo
from fcnzoo.config import FCNConfig, SkipHeadConfig
from fcnzoo.config.spec import ModelSpec
from fcnzoo.zoo.entries import DEFAULT_MODEL, ENTRIES
from fcnzoo.zoo.heads import HEADS

NAMES = [spec.name for spec in ENTRIES]


@pytest.mark.parametrize("spec", ENTRIES, ids=NAMES)
def test_recipe(spec: ModelSpec) -> None:
    """Builds on meta by its name, scores at 97×131, its config and entry go through JSON unchanged."""
    assert FCNConfig.from_json(spec.config.to_json()) == spec.config
    assert ModelSpec.from_json(spec.to_json()) == spec
    model = fcnzoo.create(spec.name, device="meta").eval()
    assert all(tensor.is_meta for tensor in model.parameters())
    assert FCNConfig.from_json(model.config.to_json()) == model.config
    assert model.config.replace(preprocess=spec.config.preprocess) == spec.config
    image = torch.empty(2, 3, 97, 131, device="meta")
    scores = model.scores(image)
    assert scores.main.shape[:2] == (2, spec.config.num_classes)
    assert tuple(fcnzoo.ops.upsample(scores.main, scores.grid, (97, 131)).shape) == (
        2,
        spec.config.num_classes,
        97,
        131,
    )
    assert len(model.preprocess.mean) == 3


@pytest.mark.parametrize("spec", ENTRIES, ids=NAMES)
def test_entries_say_what_they_are(spec: ModelSpec) -> None:
    """The name starts with its head, ends with its backbone; description and reference are there."""
    head, _, backbone = spec.name.partition("_")
    assert head in HEADS
    assert type(HEADS[head]) is type(spec.config.head)
    if isinstance(spec.config.head, SkipHeadConfig):
        assert spec.config.head.stride == HEADS[head].stride  # pyright: ignore
    assert spec.config.backbone.architecture.partition(".")[0] == backbone
    assert spec.description
    assert spec.reference


def test_names_are_distinct() -> None:
    """No two entries share a name."""
    assert len(set(NAMES)) == len(NAMES)


def test_backbones_exist() -> None:
    """Every entry stands on a backbone that is installed."""
    known = set(fcnzoo.list_backbones())
    assert {spec.config.backbone.name.partition(".")[0] for spec in ENTRIES} <= known


def test_default_model_has_weights() -> None:
    """The shipped model, once there is one, is an entry with packaged weights."""
    if DEFAULT_MODEL is None:
        pytest.skip("no model is shipped yet")
    name, _, tag = DEFAULT_MODEL.partition(".")
    weights = fcnzoo.get_spec(name).find_weights(tag)
    assert weights is not None
    assert weights.packaged
    assert weights.sha256


@pytest.mark.parametrize("name", ["fcn8s_tf_efficientnet_lite0", "fcn16s_mobilenetv4_conv_small", "fcn32s_resnet18"])
@pytest.mark.parametrize("size", [(97, 131), (1, 1)])
def test_some_run_for_real(name: str, size: tuple[int, int]) -> None:
    """On the CPU the zoo's small networks give finite logits and a loss with gradients."""
    model = fcnzoo.create(name, num_classes=5)
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        logits = model.eval()(image)
    assert tuple(logits.shape) == (1, 5, *size)
    assert logits.isfinite().all()
    loss = model.train()(image, torch.zeros(1, *size, dtype=torch.uint8))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.head.parameters())
