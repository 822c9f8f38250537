"""torchvision's own networks, with random weights, converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights, segmentation

import fcnzoo
from fcnzoo.errors import ConversionError
from fcnzoo.labels import get_label_set
from fcnzoo.weights.converters.plan import rename
from fcnzoo.weights.converters.torchvision import BACKBONE_RULES, HEAD_RULES, MODELS


def theirs(name: str = "fcn_resnet50", *, aux: bool = True, classes: int = 21) -> nn.Module:
    """The network of torchvision with random weights and running statistics."""
    torch.manual_seed(0)
    options: dict[str, Any] = {} if name.startswith("lraspp") else {"aux_loss": aux}
    model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def saved(tmp_path: Path, state: Any) -> Path:
    """A `.pth` file."""
    torch.save(state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.parametrize(
    ("name", "aux", "classes"),
    [
        ("fcn_resnet50", True, 21),
        ("fcn_resnet50", False, 7),
        pytest.param("fcn_resnet101", True, 21, marks=pytest.mark.slow),
        ("deeplabv3_resnet50", True, 21),
        ("deeplabv3_resnet50", False, 7),
        pytest.param("deeplabv3_resnet101", True, 21, marks=pytest.mark.slow),
        ("deeplabv3_mobilenet_v3_large", True, 21),
        ("deeplabv3_mobilenet_v3_large", False, 7),
        ("lraspp_mobilenet_v3_large", False, 21),
        ("lraspp_mobilenet_v3_large", False, 7),
    ],
)
def test_logits_are_torchvisions(tmp_path: Path, name: str, aux: bool, classes: int) -> None:
    """Logits within 1e-9 in float64 at odd sizes, auxiliary ones too; VOC's labels for 21 classes."""
    original = theirs(name, aux=aux, classes=classes)
    state = original.state_dict()
    file = saved(tmp_path, state if aux else {"model": state, "epoch": 29})
    model = fcnzoo.convert("torchvision", file, model=name).double()
    for size in ((65, 91), (33, 48)):
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            want = original.double()(image)
            torch.testing.assert_close(model(image), want["out"], rtol=0, atol=1e-9)
            scores = model.scores(image, aux=aux)
        if aux and scores.aux is not None and scores.aux_grid is not None:
            got = fcnzoo.ops.upsample(scores.aux, scores.aux_grid, size)
            torch.testing.assert_close(got, want["aux"], rtol=0, atol=1e-9)
    assert (model.aux_head is not None) == aux
    expected = fcnzoo.get_spec(name).config.replace(aux_head=model.config.aux_head)
    assert model.config == (expected if classes == 21 else expected.with_classes(classes))
    assert model.label_set == (get_label_set("voc") if classes == 21 else None)


def test_other_class_counts_have_no_names(tmp_path: Path) -> None:
    """A network of 300 classes converts without labels, and 255 is one of its classes."""
    model = fcnzoo.convert("torchvision", saved(tmp_path, theirs(classes=300).state_dict()), num_classes=300)
    assert model.num_classes == 300 and model.label_set is None and model.config.loss.ignore_index == -1


@pytest.mark.parametrize("name", MODELS)
def test_rules_lead_back(name: str) -> None:
    """Every key of torchvision, renamed and renamed back by the inverted rules, is itself, and no two meet."""
    head, _, backbone = name.partition("_")
    rules = (BACKBONE_RULES[backbone], *HEAD_RULES[head])
    with torch.device("meta"):
        keys = list(getattr(segmentation, name)(weights=None, weights_backbone=None).state_dict())
    ours = [rename(key, rules) for key in keys]
    assert None not in ours and len(set(ours)) == len(keys)
    assert [rename(name or "", [rule.invert() for rule in rules]) for name in ours] == keys


@pytest.mark.parametrize("name", MODELS)
def test_every_network_of_torchvision_has_its_published_weights(name: str) -> None:
    """Address, digest, figures and classes are those of torchvision's own record of its weights."""
    theirs: Any = get_model_weights(name).DEFAULT
    weights = fcnzoo.get_spec(name).find_weights("coco_voc")
    assert weights is not None and weights.published is not None
    assert weights.published.url == theirs.url
    published = theirs.meta["_metrics"]["COCO-val2017-VOC-labels"]
    assert [100 * metric.value for metric in weights.metrics] == pytest.approx(
        [published["miou"], published["pixel_acc"]]
    )
    assert fcnzoo.get_spec(name).config.label_set == get_label_set("voc")
    assert len(theirs.meta["categories"]) == 21
    with torch.device("meta"):
        assert sum(p.numel() for p in fcnzoo.create(name).parameters()) == theirs.meta["num_params"]


def without(state: dict[str, Tensor], ending: str) -> dict[str, Tensor]:
    """A copy without keys of that ending."""
    return {key: tensor for key, tensor in state.items() if not key.endswith(ending)}


def test_step_counters_may_be_missing_and_other_keys_may_not(tmp_path: Path) -> None:
    """Files of old PyTorch versions lack num_batches_tracked; anything else missing or unknown is listed."""
    state = theirs().state_dict()
    model = fcnzoo.convert("torchvision", saved(tmp_path, without(state, "num_batches_tracked")))
    assert all(int(value) == 0 for key, value in model.state_dict().items() if key.endswith("num_batches_tracked"))
    with pytest.raises(ConversionError, match=r"1 missing: aux_classifier\.4\.bias"):
        fcnzoo.convert("torchvision", saved(tmp_path, without(state, "aux_classifier.4.bias")))
    extra = {"classifier.5.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    with pytest.raises(ConversionError, match=r"2 unknown: classifier\.5\.weight, fc\.bias"):
        fcnzoo.convert("torchvision", saved(tmp_path, state | extra))
    with pytest.raises(ConversionError, match="looks like a file of torchvision"):
        fcnzoo.convert("torchfcn", saved(tmp_path, state))
    with pytest.raises(ConversionError, match="holds fcn on timm/resnet50, not fcn on timm/resnet101"):
        fcnzoo.convert("torchvision", saved(tmp_path, state), model="fcn_resnet101")
    with pytest.raises(ConversionError, match="no ResNet-50 or deeper"):
        fcnzoo.convert("torchvision", saved(tmp_path, without(state, "conv3.weight")))


def test_heads_and_backbones_are_told_apart(tmp_path: Path) -> None:
    """DeepLabV3's head is not taken for FCN's, and an unknown backbone under it is named with what can be converted."""
    state = theirs("lraspp_mobilenet_v3_large").state_dict()
    with pytest.raises(ConversionError, match="holds lraspp on torchvision/mobilenet_v3_large, not deeplabv3 on"):
        fcnzoo.convert("torchvision", saved(tmp_path, state), model="deeplabv3_mobilenet_v3_large")
    with pytest.raises(ConversionError, match=r"lraspp_…, its backbone is no ResNet-50 .* deeplabv3_resnet50"):
        fcnzoo.convert("torchvision", saved(tmp_path, without(state, "16.0.weight")))
    with pytest.raises(ConversionError, match=r"1 missing: classifier\.scale\.1\.weight"):
        fcnzoo.convert("torchvision", saved(tmp_path, without(state, "scale.1.weight")))


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    """A file in float16 gives a float32 network with the same numbers, which owns its memory."""
    state = {key: value.half() if value.is_floating_point() else value for key, value in theirs().state_dict().items()}
    model = fcnzoo.convert("torchvision", saved(tmp_path, state))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.state_dict()["head.score.weight"], state["classifier.4.weight"].float())
    assert all(parameter.requires_grad for parameter in model.parameters())
