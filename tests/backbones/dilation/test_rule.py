"""The dilation rule: the identity it is named after, what it refuses, and that refusal leaves no trace."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from fcnzoo.backbones.dilation.rule import dilate, meta_run


class Stages(nn.Module):
    """A network that returns the map after each of its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps."""
        maps = []
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return maps


def conv(stride: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    """A convolution of 4 channels, padded as usual unless said otherwise."""
    return nn.Conv2d(4, 4, kernel, stride, **({"padding": kernel // 2} | options))  # pyright: ignore


def stem() -> nn.Sequential:
    """From an image of 3 channels to reduction 8."""
    return nn.Sequential(nn.Conv2d(3, 4, 4, 4), conv(2))


def shuffled(network: nn.Module) -> nn.Module:
    """Give the norms of a network other statistics than 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return network.double().eval()


def assert_identity(network: nn.Module, output_stride: int = 8, size: tuple[int, int] = (128, 192)) -> None:
    """Dilate; every l-th cell of the result must be the strided network's."""
    network = shuffled(network)
    strided = copy.deepcopy(network).eval()  # Copies of torchvision's extractors are in training mode.
    names = {name: tensor.shape for name, tensor in network.state_dict().items()}
    assert dilate(network, output_stride, meta_run(network, 3, ((256, 384), (384, 256))))
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == names
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        coarse, fine = (list(n.values()) if isinstance(n := net(image), dict) else n for net in (strided, network))
    for want, got in zip(coarse, fine, strict=True):
        lost = max(1, size[0] // want.shape[-2] // output_stride)
        assert tuple(got.shape[-2:]) == (want.shape[-2] * lost, want.shape[-1] * lost)
        scale = want.abs().max().item()
        torch.testing.assert_close(got[..., ::lost, ::lost] / scale, want / scale, rtol=0, atol=1e-12)


LAYERS = {
    "3x3": conv(2),
    "1x1": conv(2, 1),
    "5x5 dilated": conv(2, 5, padding=4, dilation=2),
    "grouped": conv(2, groups=4),
    "patches": conv(2, 2, padding=0),
    "patches of 4": conv(4, 4, padding=0),
    "1x7": nn.Sequential(conv(2), nn.Conv2d(4, 4, (1, 7), padding=(0, 3))),
    "max": nn.MaxPool2d(2),
    "max 3x3": nn.MaxPool2d(3, 2, 1),
    "max ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": nn.AvgPool2d(2),
    "average 3x3": nn.AvgPool2d(3, 2, 1),
    "average, ResNet-D": nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
    "average at stride 1": nn.Sequential(conv(2), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    "explicit zeros": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2)),
    "same": timm.layers.Conv2dSame(4, 4, 3, 2),
    "max same": timm.layers.pool2d_same.MaxPool2dSame(3, 2),
    "standardized": timm.layers.StdConv2d(4, 4, 3, stride=2),
    "blur": timm.layers.BlurPool2d(4, pad_mode="constant"),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_identity_for_each_layer(name: str, output_stride: int) -> None:
    """Twice the layer, with convolutions between and after: dilated(x)[::l, ::l] equals strided(x), borders too."""
    first, second = copy.deepcopy(LAYERS[name]), copy.deepcopy(LAYERS[name])
    network = Stages(stem(), nn.Sequential(first, conv(1)), nn.Sequential(second, conv(1), conv(1, 5)))
    assert_identity(network, output_stride, (256, 384))


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11_bn", "densenet121", "shufflenet_v2_x0_5", "mnasnet0_5", "googlenet"]
)
def test_identity_for_torchvision(name: str) -> None:
    """Networks without global averages inside: the identity holds from stage to stage, in float64."""
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = getattr(torchvision.models, name)(weights=None, **options)
    ends = {
        "resnet18": ("layer3", "layer4"),
        "vgg11_bn": ("features.20", "features"),
        "densenet121": ("features.denseblock3", "features.denseblock4"),
        "shufflenet_v2_x0_5": ("stage3", "conv5"),
        "mnasnet0_5": ("layers.12", "layers.16"),
        "googlenet": ("inception4e", "inception5b"),
    }
    nodes = {end: str(i) for i, end in enumerate(ends[name])}
    assert_identity(create_feature_extractor(network.eval(), nodes, suppress_diff_warning=True))


@pytest.mark.parametrize("name", ["dla46_c", "tf_mobilenetv3_small_minimal_100", "mobilenetv4_conv_small_035"])
def test_identity_for_timm(name: str) -> None:
    """The same for timm's, with its "same" padding."""
    assert_identity(timm.create_model(name, features_only=True))


def test_rule_is_torchvisions_own() -> None:
    """Where torchvision dilates itself (ResNet-50), the rule gives the same strides, dilations and paddings."""
    native = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
    ours = torchvision.models.resnet50(weights=None)
    ours.avgpool, ours.fc = nn.Identity(), nn.Identity()  # pyright: ignore
    ours.flatten = nn.Identity()
    features = create_feature_extractor(ours.eval(), {"layer4": "0"}, suppress_diff_warning=True)
    assert dilate(features, 8, meta_run(features, 3))
    modules = dict(features.named_modules())
    for name, module in native.named_modules():
        if isinstance(module, nn.Conv2d):
            got = modules[name]
            for key in ("stride", "dilation", "padding"):
                assert getattr(got, key) == getattr(module, key), name


def test_squeeze_excite_is_untouched() -> None:
    """Convolutions of 1×1 maps, and poolings to 1×1, stay as they are."""
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(1), nn.Sigmoid())

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = gate

        def forward(self, x: Tensor) -> Tensor:
            return x * self.gate(x)

    network = Stages(stem(), nn.Sequential(conv(2), Gated(), conv(1))).eval()
    assert dilate(network, 8, meta_run(network, 3))
    assert isinstance(gate[1], nn.Conv2d) and gate[1].dilation == (1, 1)


def test_nothing_to_do_changes_nothing() -> None:
    """A network that is fine enough already is left alone."""
    network = Stages(stem(), conv(2)).eval()
    before = repr(network)
    assert dilate(network, 16, meta_run(network, 3))
    assert repr(network) == before


class Fused(nn.Module):
    """A coarser branch, brought back by an upsampling, as in HRNet."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv(2), conv(2), conv(1), nn.Upsample(scale_factor=4, mode="nearest"))

    def forward(self, x: Tensor) -> Tensor:
        """Fuse."""
        return x + self.branch(x)


class Gridded(nn.Module):
    """A gate of 4×4 cells that covers any map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(1)

    def forward(self, x: Tensor) -> Tensor:
        """Gate."""
        return x * F.interpolate(self.conv(F.adaptive_avg_pool2d(x, 4)), size=x.shape[-2:])


def test_upsampling_follows_the_reductions() -> None:
    """Where the coarse cells lie, a dilated branch gives what the strided one gives; its upsampling shrinks."""
    network = Stages(stem(), Fused(), conv(2)).double().eval()
    strided = copy.deepcopy(network)
    assert dilate(network, 8, meta_run(network, 3))
    fused = network.parts[1]
    assert isinstance(fused, Fused) and isinstance(fused.branch[3], nn.Upsample)
    assert fused.branch[3].scale_factor == 1
    image = torch.randn(1, 3, 128, 192, dtype=torch.float64)
    with torch.inference_mode():
        want, got = strided(image)[1], network(image)[1]
    torch.testing.assert_close(got[..., ::4, ::4], want[..., ::4, ::4], rtol=0, atol=1e-12)


def test_grids_of_one_size_are_untouched() -> None:
    """Convolutions of maps that an adaptive pooling made, of the same size for every image, stay as they are."""
    gate = Gridded()
    network = Stages(stem(), nn.Sequential(conv(2), gate, conv(1))).eval()
    assert dilate(network, 8, meta_run(network, 3))
    assert gate.conv.dilation == (1, 1)


class Functional(nn.Module):
    """A stride hidden in a function."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        return F.max_pool2d(x, 2)


class Attention(nn.Module):
    """Attention between all cells of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        tokens = x.flatten(2).transpose(1, 2)
        return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)


class Products(nn.Module):
    """Attention by matrix products."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        tokens = x.flatten(2)
        return (tokens @ (tokens.transpose(1, 2) @ tokens).softmax(-1)).reshape(x.shape)


class Tokens(nn.Module):
    """A matrix over a fixed number of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(16 * 20, 16 * 20)

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        return self.mix(x.flatten(2)).reshape(x.shape)


REFUSED = {
    "function": nn.Sequential(Functional(), conv(1)),
    "attention": nn.Sequential(conv(2), Attention()),
    "products": nn.Sequential(conv(2), Products()),
    "space to depth": nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(16, 4, 1)),
    "bilinear": nn.Sequential(conv(2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
    "upsampled to a size": nn.Sequential(conv(2), nn.Upsample(size=(32, 48))),
    "uneven stride": nn.Conv2d(4, 4, 3, (2, 1), padding=1),
    "stride 3": nn.Conv2d(4, 4, 3, 3),
    "mirrored padding": conv(2, padding_mode="reflect"),
    "own convolution": timm.layers.StdConv2d(4, 4, 2, stride=2, padding=0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_leaves_no_trace(name: str) -> None:
    """Where the rule is not defined the answer is `False`, and the network computes what it did before."""
    network = Stages(stem(), nn.Sequential(conv(2), conv(1)), copy.deepcopy(REFUSED[name])).double().eval()
    before = copy.deepcopy(network)
    assert not dilate(network, 8, meta_run(network, 3, ((256, 384), (384, 384))))
    assert repr(network) == repr(before)
    image = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    for a, b in zip(network(image), before(image), strict=True):
        assert torch.equal(a, b)


def test_fixed_numbers_of_tokens_are_refused() -> None:
    """A layer that takes one number of cells only cannot take more."""
    network = Stages(stem(), nn.Sequential(conv(2), Tokens())).eval()
    assert not dilate(network, 8, meta_run(network, 3, ((256, 320),)))


def test_interrupted_changes_are_undone() -> None:
    """An error that is none of ours comes through, and the network is as it was."""
    network = Stages(stem(), conv(2)).eval()
    before, calls = repr(network), []

    def run() -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        meta_run(network, 3)()

    with pytest.raises(KeyboardInterrupt):
        dilate(network, 8, run)
    assert repr(network) == before


def test_dilated_networks_train_and_copy() -> None:
    """Gradients reach the first layer; a deep copy computes the same."""
    network = Stages(stem(), nn.Sequential(nn.MaxPool2d(2), conv(1)), nn.Sequential(nn.AvgPool2d(2), conv(1))).eval()
    assert dilate(network, 8, meta_run(network, 3))
    image = torch.randn(2, 3, 64, 96)
    result = network(image)[-1]
    assert tuple(result.shape) == (2, 4, 8, 12)
    torch.testing.assert_close(copy.deepcopy(network)(image)[-1], result)
    result.sum().backward()
    weight = network.parts[0][0].weight  # pyright: ignore
    assert weight.grad is not None and weight.grad.abs().min() > 0
