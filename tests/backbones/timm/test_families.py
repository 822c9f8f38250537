"""Families of timm networks: any size of image, dilation, channels, and what is said of them."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import model_entrypoint
from torch import nn

from fcnzoo.backbones import build_backbone
from fcnzoo.backbones.timm.families import DEFAULT, FAMILIES, find_family
from fcnzoo.backbones.timm.layers import restate_as_layers
from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, SkipHeadConfig
from fcnzoo.errors import BackboneError
from fcnzoo.model.fcn import FCN, build

SMALL = (
    "test_vit",  # position embedding resampled
    "test_coatnet",  # tables of one size
    "test_maxvit",  # windows must divide the image
    "test_mambaout",  # NHWC
    "test_convnext",
    "test_resnet",
    "test_nfnet",
    "mobilevitv2_050",  # patches of features
    "swin_tiny_patch4_window7_224",
    "xcit_nano_12_p16_224",
    "gmlp_ti16_224",  # mixes a fixed number of tokens
    "pit_ti_224",  # hooks, reductions rounded
    "crossvit_tiny_240",  # two grids
    "efficientvit_m0",  # ends at 64
    "mvitv2_tiny",  # index tables that the meta device does not check
    "legacy_xception",  # stem without padding
    "hrnet_w18_small",
    "dla46x_c",
    "csatv2",  # three channels only
    "tresnet_m",  # space to depth
)
"""Of each important family a small member."""


def network(name: str, **changes: object) -> FCN:
    """An FCN-8s whose layers that begin at zero are random, so that every pixel can matter."""
    config = FCNConfig(BackboneConfig(f"timm/{name}").replace(**changes), SkipHeadConfig(stride=8), num_classes=3)
    model = build(config).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", SMALL)
def test_any_size_and_every_pixel(name: str) -> None:
    """Scores of an image of an odd size are finite, one by one as in a batch, and its last 8×8 block counts."""
    torch.manual_seed(0)
    model = network(name)
    images = torch.rand(2, 3, 75, 109)
    images[1] = images[0]
    images[1, :, -8:, -8:] = 1 - images[0, :, -8:, -8:]
    with torch.no_grad():
        both = model.scores(images).main
        alone = model.scores(images[1:]).main
        assert model(images[:1]).shape == (1, 3, 75, 109)
    assert both.isfinite().all()
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3 * both.abs().max().item())
    assert (both[0, :, -1, -1] != both[1, :, -1, -1]).any()


@pytest.mark.parametrize(
    ("name", "dilation", "reductions"),
    [
        ("test_resnet", "native", [2, 4, 8, 8, 8]),
        ("legacy_seresnet18", "dilated", [2, 4, 8, 8, 8]),
        ("vgg11", "dilated", [1, 2, 4, 8, 8, 8]),
        ("test_vit", "emulated", [8, 8, 8]),
        ("vit_small_patch16_dinov3", "dilated", [8, 8, 8]),
        ("coat_lite_tiny", "dilated", [4, 8, 8, 8]),
        ("coat_tiny", "emulated", [4, 8, 8, 8]),
        ("twins_svt_small", "emulated", [4, 8, 8, 8]),
        ("swin_tiny_patch4_window7_224", "emulated", [4, 8, 8, 8]),
        ("test_coatnet", "emulated", [2, 4, 8, 8, 8]),
        ("convmixer_768_32", "none", [7, 7, 7]),
    ],
)
def test_dilation_is_said_truly(name: str, dilation: str, reductions: list[int]) -> None:
    """Features come out at the output stride, and the backbone says how it was reached."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(f"timm/{name}", output_stride=8)).eval()
        height, width = backbone.fixed_size or (112, 224)
        features = backbone(torch.empty(1, 3, height, width))
    assert backbone.dilation == dilation
    assert [info.reduction for info in backbone.features] == reductions
    for info, feature in zip(backbone.features, features, strict=True):
        assert tuple(feature.shape[1:]) == (info.channels, height // info.reduction, width // info.reduction)


DILATED = {
    "xcit_nano_12_p16_224": "attention between channels",
    "ghostnetv3_050": "a gate at half the size",
    "pvt_v2_b2_li": "keys and values of 7×7 cells",
    "swiftformer_xs": "sums with weights of norm 1",
}
COSTLY = {
    "hrnet_w18_small": "upsamplings inside",
    "ghostnetv2_100": "a gate at half the size",
    "twins_pcpvt_small": "keys and values of a subsampled map",
    "csatv2": "a spatial gate of 7×7 cells",
    "iformer_t": "attention on subsampled maps",
    "coat_lite_tiny": "a class token",
    "vit_tiny_patch16_dinov3_qkvb": "rotary positions from −1 to 1",
}
"""Left to the exhaustive run."""


@pytest.mark.parametrize("name", [*DILATED, *(pytest.param(name, marks=pytest.mark.slow) for name in COSTLY)])
def test_dilation_of_a_family(name: str) -> None:
    """Weights keep their names and shapes, and load; no coarse map is left; features are finite at two sizes."""
    strided = build_backbone(BackboneConfig(f"timm/{name}"))
    dilated = build_backbone(BackboneConfig(f"timm/{name}", output_stride=8)).eval()
    assert dilated.dilation == "dilated"
    dilated.load_state_dict(strided.state_dict(), strict=True)
    seen: list[tuple[int, ...]] = []

    def record(_: nn.Module, __: object, out: torch.Tensor) -> None:
        seen.append(tuple(out.shape[-2:]))

    for module in dilated.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and max(_kernel(module)) > 1:
            module.register_forward_hook(record)
    for size in (dilated.fixed_size,) if dilated.fixed_size else ((64, 96), (128, 64)):
        seen.clear()
        with torch.no_grad():
            features = dilated(torch.rand(1, 3, *size))
        for info, feature in zip(dilated.features, features, strict=True):
            assert feature.isfinite().all()
            assert tuple(feature.shape[-2:]) == (size[0] // info.reduction, size[1] // info.reduction)
        coarse = {shape for shape in seen if shape[0] < size[0] // 8 or shape[1] < size[1] // 8}
        assert coarse <= {(7, 7)}  # adaptive poolings, of any image


def _kernel(layer: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> tuple[int, ...]:
    return layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,)


@pytest.mark.parametrize("name", ["ghostnetv2_100", "ghostnetv3_050", "twins_pcpvt_small", "swiftformer_xs"])
def test_parts_said_with_layers_compute_the_same(name: str) -> None:
    """Classes that take the place of timm's give the same numbers."""
    torch.manual_seed(0)
    network = timm.create_model(name, features_only=True).eval()
    image = torch.rand(1, 3, 96, 160)
    with torch.no_grad():
        before = network(image)
        kinds = {type(module) for module in network.modules()}
        restate_as_layers(network)
        after = network(image)
    assert {type(module) for module in network.modules()} != kinds
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b)


def test_sums_with_weights_of_norm_1_keep_their_size() -> None:
    """SwiftFormer's dilated attention of a map with every cell repeated is the strided attention, repeated."""
    torch.manual_seed(0)
    dilated = build_backbone(BackboneConfig("timm/swiftformer_xs", output_stride=8)).eval()
    strided = build_backbone(BackboneConfig("timm/swiftformer_xs")).eval()
    strided.load_state_dict(dilated.state_dict())
    fine, coarse = ([m for m in net.modules() if hasattr(m, "w_g")][-1] for net in (dilated, strided))
    x = torch.rand(1, fine.get_submodule("to_query").in_features, 3, 5)  # pyright: ignore
    repeated = x.repeat_interleave(4, -1).repeat_interleave(4, -2)
    with torch.no_grad():
        torch.testing.assert_close(fine(repeated)[..., ::4, ::4], coarse(x))


@pytest.mark.parametrize(
    ("name", "layer", "wanted"),
    [
        ("hrnet_w18_small", "stage4.0.branches.3.0.conv1", 4),
        ("xcit_nano_12_p16_224", "model.blocks.0.local_mp.conv1", 2),
        ("twins_pcpvt_small", "model.pos_block.3.proj.0", 4),
        ("pvt_v2_b2_li", "stages_3.blocks.0.mlp.dwconv", 4),
    ],
)
def test_convolutions_of_coarse_maps_reach_further(name: str, layer: str, wanted: int) -> None:
    """A 3×3 convolution of a map that was coarser than 8 is dilated by what the map has become finer."""
    with torch.device("meta"):
        network = build_backbone(BackboneConfig(f"timm/{name}", output_stride=8)).get_submodule("network")
    modules = {key.removeprefix("model."): module for key, module in network.named_modules()}
    convolution = modules[layer.removeprefix("model.")]
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.dilation == convolution.padding == (wanted, wanted)


@pytest.mark.parametrize(
    ("name", "taps"),
    [
        ("vit_tiny_patch16_224", ["blocks.3", "blocks.7", "blocks.11"]),
        ("selecsls42b", ["stem.2", "features.1", "features.3", "features.5", "head.1", "head.3"]),
        ("volo_d1_224", [8, 16, 16, 16]),
        ("sedarknet21", [1, 2, 4, 8, 16, 32]),
    ],
)
def test_no_stage_is_dropped(name: str, taps: list[str] | list[int]) -> None:
    """Isotropic networks give three even depths; pyramids give stages that timm's default leaves out."""
    with torch.device("meta"):
        features = build_backbone(BackboneConfig(f"timm/{name}")).features
    assert taps in ([info.tap for info in features], [info.reduction for info in features])


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
@pytest.mark.parametrize("name", ["csatv2", "test_vit", "test_mambaout", "crossvit_tiny_240", "pit_ti_224"])
def test_channels(name: str, channels: int) -> None:
    """Any number of channels builds the first layer, or an adapter before it, and the statistics."""
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(f"timm/{name}", in_channels=channels)).eval()
        features = backbone(torch.empty(1, channels, *(backbone.fixed_size or (128, 192))))
    assert len(features) >= 3
    assert backbone.in_channels == channels == len(backbone.preprocess.mean)


def test_adapter_does_what_timm_does_to_weights() -> None:
    """A gray image through the adapter is the image repeated; four channels are summed as timm sums weights."""
    gray = build_backbone(BackboneConfig("timm/csatv2", in_channels=1)).adapter
    four = build_backbone(BackboneConfig("timm/csatv2", in_channels=4)).adapter
    assert isinstance(gray, nn.Conv2d) and isinstance(four, nn.Conv2d)
    weight = torch.randn(5, 3, 3, 3)
    adapted = timm.models.adapt_input_conv(4, weight)
    torch.testing.assert_close(torch.einsum("oi...,ic->oc...", weight, four.weight[..., 0, 0]), adapted)
    assert torch.equal(gray(torch.ones(1, 1, 2, 2)), torch.ones(1, 3, 2, 2))


def test_image_size_of_networks_of_one_size() -> None:
    """`image_size` builds a network of fixed size for another one; images of any size are resized to it."""
    config = BackboneConfig("timm/test_coatnet")
    assert build_backbone(config).fixed_size == (160, 160)
    backbone = build_backbone(config.replace(image_size=(64, 96))).eval()
    assert backbone.fixed_size == (64, 96)
    assert "64×96" in backbone.note
    assert backbone(torch.randn(1, 3, 64, 96))[-1].shape[2:] == (2, 3)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("test_resnet", (64, 64), "takes images of any size"),
        ("test_vit", (64, 64), "takes images of any size"),
        ("nest_tiny_jx", (224, 448), "square images only"),
        ("crossvit_tiny_240", (480, 480), r"only be built for image_size=\(240, 240\)"),
    ],
)
def test_image_sizes_that_have_no_meaning(name: str, size: tuple[int, int], message: str) -> None:
    """`image_size` where it cannot be obeyed is a BackboneError that says what can."""
    with pytest.raises(BackboneError, match=message), torch.device("meta"):
        build_backbone(BackboneConfig(f"timm/{name}", image_size=size))


def test_features_of_a_wrong_size_are_refused() -> None:
    """A network whose features are not at the reduction timm states is refused, never guessed at."""
    backbone = build_backbone(BackboneConfig("timm/test_resnet")).eval()
    backbone._reductions[-1] = 16  # pyright: ignore
    with pytest.raises(BackboneError, match="reduction 16; this network needs a record"):
        backbone(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4"])
def test_stems_without_padding_are_aligned(name: str) -> None:
    """What a pixel changes lies, in the features of unpadded networks, where the grid says it does."""
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(f"timm/{name}")).eval()
    image = torch.rand(1, 3, 160, 224)
    other = image.clone()
    other[..., 76:84, 108:116] = 1 - image[..., 76:84, 108:116]
    with torch.no_grad():
        changes = [(a - b).abs().sum(1)[0] for a, b in zip(backbone(image), backbone(other), strict=True)][:3]
    for info, change in zip(backbone.features, changes, strict=False):
        for axis, center in ((0, 80), (1, 112)):
            mass = change.sum(1 - axis)
            cells = torch.arange(len(mass)) + 0.5
            assert abs((mass * cells).sum() / mass.sum() - center / info.reduction) < 0.75


def test_preprocess_interpolation() -> None:
    """The filter of the weights' own resize is kept; images are not shrunk to their native size."""
    with torch.device("meta"):
        preprocess = build_backbone(BackboneConfig("timm/vit_tiny_patch16_224")).preprocess
    assert (preprocess.interpolation, preprocess.resize) == ("bicubic", None)


def test_table_names_modules_that_exist() -> None:
    """Every record fits a network of the installed timm, unless this timm has not got its module."""
    networks = [(model_entrypoint(name).__module__.rpartition(".")[2], name) for name in timm.list_models()]
    modules = {module for module, _ in networks}
    used = {id(find_family(*network)) for network in networks}
    for family in FAMILIES:
        assert id(family) in used or not modules.intersection(family.modules), family
    assert find_family("resnet", "resnet50") is DEFAULT


@pytest.mark.slow
@pytest.mark.parametrize("stride", [None, 8])
def test_every_network_builds_and_runs(stride: int | None) -> None:
    """All networks of timm give features of the stated sizes for an odd image, on the meta device."""
    failed = {}
    for name in timm.list_models():
        backbone = BackboneConfig(f"timm/{name}").replace(output_stride=stride)
        head = SkipHeadConfig(stride=8) if stride is None else DilatedHeadConfig()
        try:
            with torch.device("meta"):
                model = build(FCNConfig(backbone, head, aux_head=DilatedHeadConfig())).eval()
                scores = model.scores(torch.empty(1, 3, 250, 333), aux=True)
            assert scores.aux is not None
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    assert not failed
