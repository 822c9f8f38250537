"""`optimize`: the same scores with fewer operations, and what it refuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcnzoo
from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, SkipHeadConfig
from fcnzoo.inference import optimize as inference
from fcnzoo.inference import winograd_choice
from fcnzoo.inference.folding import fold_batchnorms
from fcnzoo.inference.optimize import OptimizedFCN
from fcnzoo.inference.winograd import WinogradConv2d
from fcnzoo.model.fcn import FCN, build


def network(backbone: str, head: str = "fcn8s") -> FCN:
    """A small network whose BatchNorms and score layers are not as they were born."""
    torch.manual_seed(0)
    dilated = head == "fcn"
    config = FCNConfig(
        BackboneConfig(backbone, output_stride=8 if dilated else None),
        DilatedHeadConfig() if dilated else SkipHeadConfig(init="xavier", hidden_channels=8),
        aux_head=DilatedHeadConfig() if dilated else None,
        num_classes=5,
    )
    model = build(config).eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize(
    ("backbone", "head"),
    [
        ("timm/resnet10t", "fcn8s"),  # BatchNorm and activation apart
        ("timm/test_efficientnet", "fcn8s"),  # timm's BatchNormAct2d
        ("timm/tf_mobilenetv3_small_minimal_100", "fcn8s"),  # convolutions that pad by themselves
        ("timm/resnetv2_18", "fcn8s"),  # BatchNorm comes first: little to fold
        ("torchvision/resnet18", "fcn"),  # traced
    ],
)
def test_scores_are_those_of_the_plain_network(backbone: str, head: str) -> None:
    """In float32 scores differ by rounding, BatchNorms after convolutions are gone, the original is as it was."""
    model = network(backbone, head)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = fcnzoo.optimize(model, dtype="float32", size=(64, 64))
    image = torch.randn(2, 3, 97, 131)
    with torch.no_grad():
        want, found = model.scores(image).main, fast.scores(image).main
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    left = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fast.modules())
    had = sum(
        isinstance(m, nn.modules.batchnorm._BatchNorm) for part in (model.backbone, model.head) for m in part.modules()
    )
    assert left == had - fast.optimization.folded
    assert fast.optimization.folded > 0.6 * had or "v2" in backbone
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert model.aux_head is not None or head != "fcn"
    assert fast.aux_head is None


class TwoReaders(nn.Module):
    """A convolution whose output both a BatchNorm and a sum read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        nn.init.constant_(self.norm.running_var, 4.0)

    def forward(self, image: Tensor) -> Tensor:
        """Add what goes into the BatchNorm to what comes out."""
        hidden = self.conv(image)
        return self.norm(hidden) + hidden


def test_a_fold_that_changes_scores_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else reads what a BatchNorm reads, the plain network is kept."""
    model = network("timm/resnet10t")
    stem = nn.Sequential(TwoReaders(), nn.Identity()).eval()
    backbone = model.backbone
    original = type(backbone).forward
    backbone.stem = stem
    monkeypatch.setattr(type(backbone), "forward", lambda self, image: original(self, self.stem(image)))
    fast = fcnzoo.optimize(model, dtype="float32", size=(32, 32))
    image = torch.randn(1, 3, 64, 64)
    assert fast.optimization.folded == 0
    with torch.no_grad():
        torch.testing.assert_close(fast.scores(image).main, model.scores(image).main, rtol=1e-4, atol=1e-5)


def test_shared_and_standardized_convolutions_are_left() -> None:
    """A convolution that runs twice, or that changes its weight itself, keeps its BatchNorm."""
    from timm.layers.std_conv import StdConv2d

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.standard, self.last = StdConv2d(3, 3, 3), nn.BatchNorm2d(3)

        def forward(self, image: Tensor) -> Tensor:
            return self.last(self.standard(self.norm(self.conv(image)) + self.other(self.conv(image))))

    module = Twice().eval()
    assert fold_batchnorms(module, lambda: module(torch.randn(1, 3, 8, 8))) == 0
    assert isinstance(module.norm, nn.BatchNorm2d)


def test_folding_equals_the_closed_form() -> None:
    """In float64 a folded convolution gives γ (Wx + b − μ) / √(σ² + ε) + β to 1e-12."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).double().eval()
    for tensor in (*layers[1].parameters(), layers[1].running_mean):
        nn.init.normal_(tensor)
    layers[1].running_var.uniform_(0.1, 2)
    image = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    norm, hidden = layers[1], F.conv2d(image, layers[0].weight)
    shape = (1, -1, 1, 1)
    want = norm.weight.view(shape) * (hidden - norm.running_mean.view(shape))
    want = want / (norm.running_var.view(shape) + norm.eps).sqrt() + norm.bias.view(shape)
    assert fold_batchnorms(layers, lambda: layers(image)) == 1
    torch.testing.assert_close(layers(image), want, rtol=0, atol=1e-12)


def test_bfloat16_takes_and_gives_float32() -> None:
    """Images and scores stay float32; labels agree nearly everywhere, and `agreement` gives the share."""
    model = fcnzoo.create("fcn8s_tf_efficientnet_lite0", pretrained=True)
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    fast = fcnzoo.optimize(model, dtype="bfloat16")
    image = torch.randn(1, 3, 64, 96)
    assert fast(image).dtype == torch.float32
    assert fast.predict(image).shape == (1, 64, 96)
    assert fast.optimization.dtype == "bfloat16"
    plain, quick = fcnzoo.Predictor(model)(picture).labels, fcnzoo.Predictor(fast)(picture).labels
    assert fcnzoo.agreement(model, fast, [picture]) == (plain == quick).mean() > 0.95
    with pytest.raises(ValueError, match="images is empty"):
        fcnzoo.agreement(model, fast, [])


def fixed(monkeypatch: pytest.MonkeyPatch, *, faster: bool) -> None:
    """Take the clock's place: Winograd is always faster or never, and the first form is the fastest."""
    monkeypatch.setattr(winograd_choice, "is_faster", lambda *_: faster)
    monkeypatch.setattr(inference, "_time", lambda network, image, least: 1.0)


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("timm/resnet10t", "fcn8s"), ("torchvision/resnet18", "fcn"), ("timm/vit_tiny_patch16_224", "fcn8s")],
)
@pytest.mark.parametrize("faster", [True, False])
def test_winograd_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, backbone: str, head: str, faster: bool) -> None:
    """Scores of any image size are the plain network's with it and without it, and the record counts it."""
    model = network(backbone, head)
    fixed(monkeypatch, faster=faster)
    fast = fcnzoo.optimize(model, dtype="float32", size=(64, 64))
    count = sum(isinstance(module, WinogradConv2d) for module in fast.modules())
    assert fast.optimization.winograd == count
    assert (count > 0) == (faster and "resnet" in backbone)
    assert fast.optimization.channels_last
    for size in ((1, 1), (33, 70), (97, 131)):
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            want, found = model.scores(image).main, fast.scores(image).main
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * want.abs().max().item())
    assert not any(isinstance(module, WinogradConv2d) for module in model.modules())


@pytest.mark.parametrize(("units", "products"), [(True, torch.bfloat16), (False, torch.float32)])
def test_winograd_in_bfloat16(monkeypatch: pytest.MonkeyPatch, units: bool, products: torch.dtype) -> None:
    """Products are bfloat16 where the processor has units for it; the error stays of bfloat16's own order."""
    model = network("torchvision/resnet18", "fcn")
    image = torch.randn(1, 3, 90, 122)
    with torch.no_grad():
        want = model.scores(image).main
        monkeypatch.setattr(inference, "has_bfloat16_units", lambda _: units)
        errors = []
        for faster in (False, True):
            fixed(monkeypatch, faster=faster)
            fast = fcnzoo.optimize(model, dtype="bfloat16", size=(64, 64))
            errors.append(((fast.scores(image).main - want).norm() / want.norm()).item())
    assert {m.weight.dtype for m in fast.modules() if isinstance(m, WinogradConv2d)} == {products}
    assert errors[1] < (4 if units else 1.3) * errors[0]


def test_compiled_networks_keep_their_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile` is given ordinary convolutions."""
    fixed(monkeypatch, faster=True)
    monkeypatch.setattr(torch, "compile", lambda module: module)
    fast = fcnzoo.optimize(network("timm/resnet10t"), dtype="float32", compile=True, size=(64, 64))
    assert fast.optimization.compiled
    assert fast.optimization.winograd == 0
    assert not any(isinstance(module, WinogradConv2d) for module in fast.modules())


def test_the_fastest_form_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the precisions and memory orders, the one that the clock says, and no other."""
    fixed(monkeypatch, faster=True)
    monkeypatch.setattr(inference, "has_bfloat16_units", lambda _: True)
    model = network("timm/resnet10t")
    for precision in (torch.float32, torch.bfloat16):
        for order in (torch.channels_last, torch.contiguous_format):

            def seconds(net: OptimizedFCN, *_: object, wanted: object = (precision, order)) -> float:
                return 1.0 if (net._precision, net._memory_format) == wanted else 2.0

            monkeypatch.setattr(inference, "_time", seconds)
            found = fcnzoo.optimize(model, size=(32, 32)).optimization
            assert found.dtype == str(precision).removeprefix("torch.")
            assert found.channels_last == (order == torch.channels_last)
            assert (found.winograd > 0) == found.channels_last


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_features_are_those_of_the_plain_network(dtype: Any, tolerance: float) -> None:
    """`features` takes and gives float32 in every precision, of the plain network's shapes and values."""
    model = network("timm/test_resnet")
    image = torch.randn(1, 3, 33, 47)
    fast = fcnzoo.optimize(model, dtype=dtype, size=(32, 32))
    with torch.no_grad():
        for found, want in zip(fast.features(image), model.features(image), strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, want, rtol=0, atol=tolerance * want.abs().max().item())


def test_it_is_for_inference_only() -> None:
    """Training, saving, other classes, aux scores and optimizing twice are refused with what to do."""
    fast = fcnzoo.optimize(network("timm/test_resnet"), dtype="float32", size=(32, 32))
    for call, text in (
        (fast.train, "inference only"),
        (fast.state_dict, "cannot be saved"),
        (lambda: fcnzoo.save(fast, "nowhere"), "cannot be saved"),
        (lambda: fast.reset_classifier(3), "keeps its classes; reset those of the network it was made from"),
    ):
        with pytest.raises(RuntimeError, match=text):
            call()
    with pytest.raises(ValueError, match="no aux head"):
        fast.scores(torch.zeros(1, 3, 32, 32), aux=True)
    with pytest.raises(TypeError, match="OptimizedFCN"):
        fcnzoo.optimize(fast)
    assert fast.eval() is fast
    assert isinstance(copy.deepcopy(fast), OptimizedFCN)


@pytest.mark.parametrize(
    ("options", "error"), [({"dtype": "int8"}, "dtype"), ({"size": (0, 5)}, "size"), ({"size": (5,)}, "size")]
)
def test_impossible_wishes_are_refused(options: dict[str, object], error: str) -> None:
    """Bad options are ValueErrors that name them."""
    with pytest.raises(ValueError, match=error):
        fcnzoo.optimize(network("timm/test_resnet"), **options)  # type: ignore[arg-type]
