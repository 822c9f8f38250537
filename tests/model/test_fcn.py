"""The network: exactly the paper's, torchvision's and d2l's; any size; loss, labels, errors."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from references import d2l_kernel, d2l_network, paper_features, paper_scores
from torch import Tensor, nn

import fcnzoo
from fcnzoo.backbones import Backbone, FeatureInfo
from fcnzoo.config import (
    BackboneConfig,
    ContextHeadConfig,
    DilatedHeadConfig,
    FCNConfig,
    LossConfig,
    LRASPPHeadConfig,
    Preprocess,
    SkipHeadConfig,
)
from fcnzoo.errors import BackboneError, LabelError
from fcnzoo.model.fcn import FCN, build, evaluating
from fcnzoo.model.heads import build_head

TINY = BackboneConfig("timm/test_resnet")
DILATED = BackboneConfig("timm/test_resnet", output_stride=8)
NO_DROPOUT = DilatedHeadConfig(dropout=0)

HEADS: dict[str, FCNConfig] = {
    "fcn32s": FCNConfig(TINY, SkipHeadConfig(stride=32, init="xavier"), num_classes=5),
    "fcn8s": FCNConfig(TINY, SkipHeadConfig(init="xavier"), num_classes=5),
    "fcn8s hidden": FCNConfig(TINY, SkipHeadConfig(hidden_channels=8, dropout=0.1, init="xavier"), num_classes=5),
    "fcn8s subpixel": FCNConfig(TINY, SkipHeadConfig(subpixel=2, init="xavier"), num_classes=5),
    "fcn32s deconv": FCNConfig(TINY, SkipHeadConfig(stride=32, init="xavier", upsampling="deconv"), num_classes=5),
    "fcn8s depthwise": FCNConfig(TINY, SkipHeadConfig(init="xavier", upsampling="deconv_depthwise"), num_classes=5),
    "fcn": FCNConfig(DILATED, DilatedHeadConfig(), DilatedHeadConfig(), num_classes=5),
    "fcn concat": FCNConfig(DILATED, DilatedHeadConfig(num_convs=2, concat_input=True), num_classes=5),
    "fcn unpadded": FCNConfig(
        DILATED.replace(size_multiple=1), DilatedHeadConfig(), DilatedHeadConfig(), num_classes=5
    ),
    "fcn32s unpadded": FCNConfig(
        TINY.replace(size_multiple=1),
        SkipHeadConfig(stride=32, init="xavier", upsampling="deconv"),
        num_classes=5,
    ),
    "deeplabv3": FCNConfig(
        DILATED, ContextHeadConfig(hidden_channels=8, rates=(2, 3)), DilatedHeadConfig(), num_classes=5
    ),
    "deeplabv3 aligned": FCNConfig(
        DILATED.replace(size_multiple=1),
        ContextHeadConfig(hidden_channels=8, rates=(), num_convs=0, align_corners=True),
        num_classes=5,
    ),
    "lraspp": FCNConfig(TINY.replace(output_stride=16), LRASPPHeadConfig(hidden_channels=8), num_classes=5),
    "convnext": FCNConfig(BackboneConfig("timm/test_convnext"), SkipHeadConfig(init="xavier"), num_classes=5),
    "efficientnet": FCNConfig(BackboneConfig("timm/test_efficientnet"), SkipHeadConfig(init="xavier"), num_classes=5),
}
"""One network of every kind of head, each small enough to be trained here."""

SIZES = [(1, 1), (1, 7), (5, 2), (31, 33), (32, 32), (33, 47), (64, 40)]


def randomize(model: nn.Module) -> None:
    """Give every weight and BatchNorm statistic a value of its own, keeping activations near 1."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=(2 / fan_in) ** 0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def paper_model(stride: int, geometry: str = "paper") -> FCN:
    """The paper's network in float64 with random weights (the paper's own scores start at zero)."""
    model = fcnzoo.create(f"fcn{stride}s_vgg16", geometry=geometry, dtype=torch.float64).eval()  # pyright: ignore
    randomize(model)
    return model


def parts(model: FCN) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the backbone and of the score layers, under the names of the prototxt."""
    return model.backbone.state_dict(), model.head.score.state_dict()  # pyright: ignore


# The networks of the field -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(375, 500), (97, 131), (33, 47)])
def test_paper_networks_equal_dense_deconvolution(narrow_vgg: None, size: tuple[int, int]) -> None:
    """FCN-32s, 16s, 8s and 8s at once agree with real `ConvTranspose2d` and crops to 1e-9, and in every label.

    "At once" (pool4 × 0.01, pool3 × 0.0001) is FCN-8s with those factors in its score weights.
    """
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    model = paper_model(8)
    weights, score = parts(model)
    large = {key: value * (1 if "bias" in key or "32" in key else 300) for key, value in score.items()}
    folded = large | {"16.weight": 0.01 * large["16.weight"], "8.weight": 0.0001 * large["8.weight"]}
    with torch.inference_mode():
        features = paper_features(weights, image)
        wanted = [(stride, score, paper_scores(features, score, stride, size)) for stride in (32, 16, 8)]
        wanted.append((8, folded, paper_scores(features, large, 8, size, at_once=True)))
        for stride, own, want in wanted:
            network = fcnzoo.create(f"fcn{stride}s_vgg16", dtype=torch.float64).eval()
            network.backbone.load_state_dict(weights)
            network.head.score.load_state_dict(  # pyright: ignore
                {key: value for key, value in own.items() if int(key.partition(".")[0]) >= stride}
            )
            assert want.std() > 0.1
            scores = network.scores(image)
            torch.testing.assert_close(fcnzoo.ops.upsample(scores.main, scores.grid, size), want, rtol=0, atol=1e-9)
            assert torch.equal(fcnzoo.ops.upsample_argmax(scores.main, scores.grid, size).long(), want.argmax(1))


def test_paper_network_at_its_full_width() -> None:
    """The real VGG-16, all 4096 channels of fc6 and fc7: FCN-8s agrees to 1e-9 in float64."""
    with torch.device("meta"):
        model = fcnzoo.create("fcn8s_vgg16", dtype=torch.float64)
    model.to_empty(device="cpu").eval()
    for weight in model.parameters():
        # Cheaper than normal numbers for 134 million weights.
        weight.data.uniform_(-1, 1).mul_((6 / max(weight[0].numel(), 60)) ** 0.5)
    image = torch.randn(1, 3, 33, 47, dtype=torch.float64)
    weights, score = parts(model)
    with torch.inference_mode():
        want = paper_scores(paper_features(weights, image), score, 8, (33, 47))
        assert want.std() > 0.1
        torch.testing.assert_close(model(image), want, rtol=0, atol=1e-9)


def test_paper_network_counts_its_parameters() -> None:
    """FCN-8s has torchfcn's 134,489,759 parameters at K = 21, less the three frozen deconvolutions."""
    model = fcnzoo.create("fcn8s_vgg16", device="meta")
    deconvolutions = 21 * 21 * (4 * 4 + 4 * 4 + 16 * 16)
    assert sum(p.numel() for p in model.parameters()) == 134_489_759 - deconvolutions


@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_same_geometry_has_no_padding_by_100(narrow_vgg: None, size: tuple[int, int]) -> None:
    """`geometry="same"` takes the same weights, and its scores cover the image padded to 32."""
    model = paper_model(8, "same")
    model.load_state_dict(paper_model(8).state_dict())
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    padded = tuple(-(-length // 32) * 32 for length in size)
    with torch.inference_mode():
        scores = model.scores(image)
        assert tuple(scores.main.shape[2:]) == (padded[0] // 8, padded[1] // 8)
        want = F.interpolate(scores.main, padded, mode="bilinear", align_corners=False)[..., : size[0], : size[1]]
        torch.testing.assert_close(model(image), want)


def rename_torchvision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keys of torchvision's `fcn_resnet…` as fcnzoo calls them."""
    layers = {"0": "convs.0.0", "1": "convs.0.1", "4": "score"}
    renamed = {}
    for key, tensor in weights.items():
        part, _, rest = key.partition(".")
        if part == "backbone":
            renamed[f"backbone.network.{rest}"] = tensor
        else:
            layer, _, kind = rest.partition(".")
            renamed[f"{'head' if part == 'classifier' else 'aux_head'}.{layers[layer]}.{kind}"] = tensor
    return renamed


@pytest.mark.parametrize(
    ("depth", "size", "parameters"),
    [(50, (480, 480), 35_322_218), (50, (250, 333), 35_322_218), (101, (250, 333), 54_314_346)],
)
def test_torchvision_networks_are_reproduced(depth: int, size: tuple[int, int], parameters: int) -> None:
    """fcn_resnet50/101 by renaming keys: logits and aux logits agree to 1e-6, parameters in number."""
    make = getattr(torchvision.models.segmentation, f"fcn_resnet{depth}")
    theirs = make(weights=None, weights_backbone=None, aux_loss=True).eval()
    randomize(theirs)
    for module in theirs.modules():
        # Residual sums of random layers grow without bound; a quarter of each branch keeps them near 1.
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.bn3.weight.data.mul_(0.25)
    with torch.device("meta"):
        ours = fcnzoo.create(f"fcn_resnet{depth}")
    ours.load_state_dict(rename_torchvision(theirs.state_dict()), assign=True)
    ours.eval()
    assert sum(p.numel() for p in ours.parameters()) == parameters
    image = torch.randn(1, 3, *size)
    with torch.inference_mode():
        want = theirs(image)
        scores = ours.scores(image, aux=True)
        assert scores.aux is not None
        assert scores.aux_grid is not None
        for got, grid, key in ((scores.main, scores.grid, "out"), (scores.aux, scores.aux_grid, "aux")):
            assert 0.05 < want[key].std() < 50
            torch.testing.assert_close(fcnzoo.ops.upsample(got, grid, size), want[key], rtol=1e-6, atol=1e-6)


def test_d2l_network_is_reproduced() -> None:
    """d2l's Sequential with its learned deconvolution: logits agree to 1e-6 at 320×480; other sizes give H×W."""
    theirs = d2l_network(21).eval()
    ours = fcnzoo.create("fcn32s_resnet18").eval()
    assert ours.head.deconv is not None
    torch.testing.assert_close(ours.head.deconv.weight.detach(), d2l_kernel(21, 21, 64))  # pyright: ignore
    children = dict(enumerate(["conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4"]))
    names = {f"{i}": f"backbone.network.{name}" for i, name in children.items()}
    names |= {"final_conv": "head.score.32", "transpose_conv": "head.deconv"}
    randomize(theirs)
    renamed = {}
    for key, tensor in theirs.state_dict().items():
        part, _, rest = key.partition(".")
        renamed[f"{names[part]}.{rest}"] = tensor
    ours.load_state_dict(renamed)
    image = torch.randn(1, 3, 320, 480)
    with torch.inference_mode():
        want = theirs(image)
        scale = want.std().item()
        torch.testing.assert_close(ours(image), want, rtol=1e-6, atol=1e-6 * scale)
        for size in ((97, 131), (1, 1), (33, 320)):
            assert tuple(ours(torch.randn(1, 3, *size)).shape) == (1, 21, *size)


# Any size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HEADS)
def test_any_size_scores(name: str) -> None:
    """Every head gives (B, K, H, W) logits and (B, H, W) labels for any H, W ≥ 1."""
    model = build(HEADS[name]).eval()
    with torch.inference_mode():
        for size in SIZES:
            image = torch.randn(2, 3, *size)
            logits = model(image)
            assert tuple(logits.shape) == (2, 5, *size)
            assert logits.isfinite().all()
            labels = model.predict(image)
            assert labels.dtype == torch.uint8
            assert torch.equal(labels.long(), logits.argmax(1))


@pytest.mark.parametrize("name", HEADS)
def test_any_size_trains_with_batch_one(name: str) -> None:
    """Every head trains on a single image of any H, W ≥ 1: the loss and all gradients are finite."""
    model = build(HEADS[name]).train()
    for size in ((1, 1), (9, 40), (33, 47)):
        model.zero_grad()
        loss = model(torch.randn(1, 3, *size), torch.randint(0, 5, (1, *size)))
        assert loss.shape == ()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("geometry", ["paper", "same"])
def test_any_size_of_the_papers_network(narrow_vgg: None, geometry: str) -> None:
    """The paper's network takes any H, W ≥ 1 in both geometries, and trains on it with batch 1."""
    model = paper_model(8, geometry)
    for size in SIZES:
        assert tuple(model.eval()(torch.randn(2, 3, *size, dtype=torch.float64)).shape) == (2, 21, *size)
    loss = model.train()(torch.randn(1, 3, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, dtype=torch.int64))
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name", ["fcn8s", "fcn", "fcn8s subpixel"])
@pytest.mark.parametrize("size", [(33, 47), (5, 64)])
def test_odd_sizes_are_the_padded_image_cropped(name: str, size: tuple[int, int]) -> None:
    """An image is padded with zeros to a multiple of 32, scored, resized by interpolation and cropped."""
    model = build(HEADS[name]).double().eval()
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    padded = [-(-length // 32) * 32 for length in size]
    with torch.inference_mode():
        large = model(F.pad(image, (0, padded[1] - size[1], 0, padded[0] - size[0])))
        torch.testing.assert_close(model(image), large[..., : size[0], : size[1]])


def test_batches_are_independent_in_eval_mode() -> None:
    """What an image scores does not depend on its neighbors in the batch."""
    model = build(HEADS["fcn8s"]).eval()
    images = torch.randn(3, 3, 40, 50)
    with torch.inference_mode():
        torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-5)


# The loss -------------------------------------------------------------------------------------------------


def with_loss(name: str, **loss: object) -> FCN:
    """A network without dropout in float64, its loss configured."""
    config = HEADS[name]
    if isinstance(config.head, DilatedHeadConfig):
        config = config.replace(head=NO_DROPOUT, aux_head=NO_DROPOUT if config.aux_head else None)
    return build(config.replace(loss=LossConfig(**loss))).double()  # pyright: ignore


@pytest.mark.parametrize("name", ["fcn8s", "fcn", "fcn unpadded"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5, 0.0, 1.0)},
        {"aux_weight": 0.4, "ignore_index": -1},
        {"aux_weight": 0.0},
    ],
)
def test_loss_is_cross_entropy_of_interpolated_scores(name: str, options: dict[str, object]) -> None:
    """`model(image, target)` is main + aux_weight · aux cross-entropy of the resized scores; gradients too."""
    model = with_loss(name, **options).train()
    config = model.config.loss
    size = (64, 96)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    target = torch.randint(0, 5, (2, *size))
    target[torch.rand(target.shape) < 0.3] = config.ignore_index
    twin = copy.deepcopy(model)
    loss = model(image, target)
    loss.backward()
    scores = twin.scores(image)
    weight = None if config.class_weights is None else torch.tensor(config.class_weights, dtype=torch.float64)

    def term(low: Tensor) -> Tensor:
        logits = F.interpolate(low, size, mode="bilinear", align_corners=False)
        return F.cross_entropy(
            logits, target, weight, ignore_index=config.ignore_index, label_smoothing=config.label_smoothing
        )

    want = term(scores.main)
    if name != "fcn8s":
        assert scores.aux is not None
        want = want + config.aux_weight * term(scores.aux)
    want.backward()
    torch.testing.assert_close(loss, want, rtol=1e-10, atol=1e-12)
    for (key, got), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(
            got.grad, other.grad, rtol=1e-8, atol=1e-12, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_aux_head_takes_part_in_training_only() -> None:
    """In eval mode the loss is the main head's alone, and scores have no aux unless asked for."""
    model = with_loss("fcn").eval()
    image, target = torch.randn(1, 3, 32, 32, dtype=torch.float64), torch.randint(0, 5, (1, 32, 32))
    logits = model(image)
    torch.testing.assert_close(model(image, target), F.cross_entropy(logits, target))
    assert model.scores(image).aux is None
    asked = model.scores(image, aux=True)
    assert asked.aux is not None
    assert asked.aux_grid is not None
    assert model.train().scores(image).aux is not None
    assert model.scores(image, aux=False).aux is None


def test_asking_for_an_absent_aux_head_is_refused() -> None:
    """`scores(aux=True)` without an aux head is a ValueError that says how to get one."""
    with pytest.raises(ValueError, match="aux=True"):
        build(HEADS["fcn8s"]).scores(torch.randn(1, 3, 32, 32), aux=True)


@pytest.mark.parametrize("name", ["fcn8s", "fcn", "fcn32s deconv"])
def test_everything_ignored_is_zero_with_zero_gradients(name: str) -> None:
    """A batch whose target is all ignored gives the loss 0 and gradients 0, not NaN."""
    model = build(HEADS[name]).train()
    loss = model(torch.randn(2, 3, 40, 40), torch.full((2, 40, 40), 255))
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_targets_of_every_integer_dtype(dtype: torch.dtype) -> None:
    """The dtype of the target changes nothing."""
    model = build(HEADS["fcn8s"]).eval()
    image, target = torch.randn(1, 3, 20, 20), torch.randint(0, 5, (1, 20, 20))
    target[:, :4] = 255
    assert torch.equal(model(image, target.to(dtype)), model(image, target))


@pytest.mark.parametrize(
    ("value", "dtype"), [(5, torch.uint8), (254, torch.uint8), (-1, torch.int64), (256, torch.int16), (21, torch.int64)]
)
def test_labels_out_of_range_are_refused(value: int, dtype: torch.dtype) -> None:
    """A label that is neither a class nor ignored is a LabelError that names it."""
    model = build(HEADS["fcn8s"])
    target = torch.zeros(1, 20, 20, dtype=dtype)
    target[0, 3, 3] = value
    with pytest.raises(LabelError, match=rf"\[{value}\].*0…4.*255"):
        model(torch.randn(1, 3, 20, 20), target)


# Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [(3, 32, 32), (32, 32), (3,), (), (1, 1, 32, 32), (1, 4, 32, 32), (0, 3, 32, 32), (1, 3, 0, 32), (1, 3, 1, 8, 8)],
)
@pytest.mark.parametrize("call", ["forward", "scores", "predict", "loss"])
def test_images_of_wrong_shape_are_refused(shape: tuple[int, ...], call: str) -> None:
    """An image that is not (B, 3, H, W) is a ValueError that shows its shape, whatever is called."""
    model = build(HEADS["fcn8s"])
    arguments = (torch.zeros(1, 32, 32, dtype=torch.int64),) if call == "loss" else ()
    method = getattr(model, "forward" if call == "loss" else call)
    with pytest.raises(ValueError, match="image must be"):
        method(torch.zeros(shape), *arguments)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float64, torch.bfloat16])
def test_images_of_wrong_dtype_are_refused(dtype: torch.dtype) -> None:
    """Integers, and floats of another precision than the network's, are a TypeError that names them."""
    with pytest.raises(TypeError, match=str(dtype)):
        build(HEADS["fcn8s"])(torch.zeros(1, 3, 32, 32, dtype=dtype))


@pytest.mark.parametrize("image", ["photo.jpg", None, [1, 2]])
def test_images_that_are_no_tensor_are_refused(image: object) -> None:
    """A path or a list is a TypeError that says a tensor is wanted."""
    with pytest.raises(TypeError, match=r"[Tt]ensor"):
        build(HEADS["fcn8s"])(image)


@pytest.mark.parametrize("shape", [(1, 31, 32), (2, 32, 32), (32, 32), (1, 1, 32, 32)])
def test_targets_of_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    """A target that is not the image's (B, H, W) is a ValueError that shows both."""
    with pytest.raises(ValueError, match=r"\(1, 32, 32\)"):
        build(HEADS["fcn8s"])(torch.zeros(1, 3, 32, 32), torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_targets_of_wrong_dtype_are_refused(dtype: torch.dtype) -> None:
    """A target that does not hold integers is a TypeError."""
    with pytest.raises(TypeError, match="integer"):
        build(HEADS["fcn8s"])(torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32, dtype=dtype))


def test_details_that_a_backbone_lacks_are_named() -> None:
    """A detail tap at 4 on a network of patches of 16 is a BackboneError with what is asked for and what there is."""
    with pytest.raises(BackboneError, match=r"timm/test_vit .*reduction 4.*16 \("):
        build(FCNConfig(BackboneConfig("timm/test_vit"), SkipHeadConfig(detail=(4,))))


class FixedSize(Backbone):
    """Takes images of 32×48 only."""

    def __init__(self) -> None:
        super().__init__()
        self.config = BackboneConfig("timm/fixed")
        self.features = tuple(FeatureInfo(reduction, 3, f"pool{reduction}") for reduction in (8, 16, 32))
        self.preprocess = Preprocess()
        self.fixed_size = (32, 48)

    def forward(self, image: Tensor) -> list[Tensor]:
        assert tuple(image.shape[-2:]) == (32, 48)
        return [F.avg_pool2d(image, info.reduction, ceil_mode=True) for info in self.features]


@pytest.mark.parametrize("size", [(32, 48), (97, 131), (5, 3)])
def test_networks_of_a_fixed_size_see_the_whole_image_resized(size: tuple[int, int]) -> None:
    """The image is resized for the network, and the scores of that lie on the whole image."""
    torch.manual_seed(0)
    backbone = FixedSize()
    config = FCNConfig(backbone.config, SkipHeadConfig(stride=8, init="xavier"), num_classes=4)
    model = FCN(config, backbone, build_head(config.head, backbone.features, 4, "fixed"))
    image = torch.rand(2, 3, *size)
    seen = F.interpolate(image, (32, 48), mode="bilinear", antialias=True)
    expected = F.interpolate(model.scores(seen).main, size, mode="bilinear")
    torch.testing.assert_close(model(image), expected)
    assert tuple(model.predict(image).shape) == (2, *size)


# Habits of PyTorch ----------------------------------------------------------------------------------------


def test_config_is_completed_from_the_backbone() -> None:
    """`model.config.preprocess` is never None; what the config says wins over the backbone."""
    model = build(HEADS["fcn8s"])
    assert model.config.preprocess is not None
    assert model.preprocess == model.backbone.preprocess == model.config.preprocess
    own = Preprocess(mean=(0.1, 0.2, 0.3))
    assert build(HEADS["fcn8s"].replace(preprocess=own)).preprocess == own
    assert build(model.config).config == model.config


def test_building_draws_from_the_seed() -> None:
    """The same seed gives the same weights, and nothing else draws."""
    torch.manual_seed(3)
    first = build(HEADS["fcn"])
    torch.manual_seed(3)
    second = build(HEADS["fcn"])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "torchvision/shufflenet_v2_x0_5"])
def test_deepcopy_is_independent_and_equal(backbone: str) -> None:
    """A deep copy computes the same in both modes, and training it leaves the original alone."""
    model = fcnzoo.create("fcn8s", backbone=backbone)
    nn.init.normal_(model.head.score["8"].weight)  # pyright: ignore
    twin = copy.deepcopy(model)
    image = torch.randn(2, 3, 40, 40)
    for mode in (True, False):
        assert torch.equal(model.train(mode)(image), twin.train(mode)(image))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin.train()(image, torch.zeros(2, 40, 40, dtype=torch.int64)).backward()
    for parameter in twin.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", HEADS)
def test_state_dict_round_trip(name: str) -> None:
    """Weights of one network loaded strictly into another make it compute the same."""
    first, second = build(HEADS[name]).eval(), build(HEADS[name]).eval()
    second.load_state_dict(first.state_dict())
    image = torch.randn(1, 3, 40, 48)
    assert torch.equal(first(image), second(image))


@pytest.mark.parametrize("name", ["fcn"])
def test_compiles_as_one_graph(name: str) -> None:
    """`torch.compile(fullgraph=True)` takes the logits and the training loss, and changes neither."""
    torch.compiler.reset()
    model = with_loss(name).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    image, target = torch.randn(2, 3, 33, 47, dtype=torch.float64), torch.randint(0, 5, (2, 33, 47))
    torch.testing.assert_close(compiled(image), model(image))
    twin = copy.deepcopy(model).train()
    model.train()
    torch.testing.assert_close(compiled(image, target), twin(image, target))


DDP_SCRIPT = """
    import sys
    import torch, torch.distributed as dist, torch.multiprocessing as mp
    from torch.nn.parallel import DistributedDataParallel
    from fcnzoo.backbones import paper as vgg
    vgg.BLOCKS = ((4, 1), (4, 1), (256, 1), (512, 1), (8, 1))
    vgg.FC_CHANNELS = 8
    from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
    from fcnzoo.model.fcn import build

    def make():
        torch.manual_seed(0)
        torch.set_num_threads(1)
        head = SkipHeadConfig(init="xavier")
        # Eval mode: no dropout, so that one process and two compute the same.
        return build(FCNConfig(BackboneConfig("paper/vgg16", geometry="same"), head, num_classes=3)).double().eval()

    def data():
        generator = torch.Generator().manual_seed(1)
        image = torch.randn(2, 3, 33, 40, generator=generator, dtype=torch.float64)
        return image, torch.randint(0, 3, (2, 33, 40), generator=generator)

    def run(rank, store):
        dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
        model = DistributedDataParallel(make())
        image, target = data()
        model(image[rank : rank + 1], target[rank : rank + 1]).backward()
        single = make()
        single(image, target).backward()
        for ours, want in zip(model.module.parameters(), single.parameters()):
            torch.testing.assert_close(ours.grad, want.grad)
        dist.destroy_process_group()

    if __name__ == "__main__":
        mp.start_processes(run, args=(sys.argv[1],), nprocs=2, start_method="fork")
        print("equal")
"""


def test_trains_under_distributed_data_parallel(tmp_path: Path) -> None:
    """Two processes (gloo) with one image each average to the gradient of both images in one process."""
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(DDP_SCRIPT))
    root = Path(fcnzoo.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


@pytest.mark.parametrize("name", ["fcn8s", "fcn"])
def test_autocast_bfloat16(name: str) -> None:
    """Under autocast logits are near the float32 ones; the loss is float32 and has finite gradients."""
    model = build(HEADS[name]).eval()
    image, target = torch.randn(2, 3, 40, 40), torch.randint(0, 5, (2, 40, 40))
    want = model(image)
    with torch.autocast("cpu", torch.bfloat16):
        got = model(image)
        loss = model.train()(image, target)
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["fcn8s", "fcn", "fcn32s deconv", "convnext"])
def test_channels_last(name: str) -> None:
    """The memory format of weights and image changes nothing but the order of sums."""
    model = build(HEADS[name]).eval()
    image = torch.randn(2, 3, 40, 56)
    want = model(image)
    got = model.to(memory_format=torch.channels_last)(image.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_predicts(dtype: torch.dtype) -> None:
    """A network in half precision takes images of its dtype and labels nearly as in float32."""
    model = build(HEADS["fcn8s"]).eval()
    image = torch.randn(1, 3, 48, 48)
    want = model.predict(image)
    got = copy.deepcopy(model).to(dtype).predict(image.to(dtype))
    assert (got == want).float().mean() > 0.9


def test_predict_leaves_modes_as_they_were() -> None:
    """`predict` computes in eval mode; afterwards every part has the mode it had, frozen ones too."""
    model = build(HEADS["fcn"]).train()
    model.backbone.eval()
    frozen = [module.training for module in model.modules()]
    running = {key: value.clone() for key, value in model.state_dict().items()}
    model.predict(torch.randn(2, 3, 40, 40))
    assert [module.training for module in model.modules()] == frozen
    assert all(torch.equal(running[key], value) for key, value in model.state_dict().items())


def test_predict_leaves_traced_backbones_as_they_were() -> None:
    """Torchvision's feature extractors hold one graph per mode: after `predict` the training graph is back."""
    network = fcnzoo.create("fcn8s", backbone="torchvision/shufflenet_v2_x0_5").train()
    extractor = network.backbone.network
    network.predict(torch.randn(1, 3, 32, 32))
    assert extractor.training  # pyright: ignore
    assert extractor.graph is extractor.train_graph  # pyright: ignore


def test_evaluating_restores_after_an_error() -> None:
    """The modes come back when the block raises."""
    model = build(HEADS["fcn8s"]).train()

    def fail() -> None:
        with evaluating(model):
            assert not model.backbone.training
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(module.training for module in model.modules())


def test_predicted_labels_are_ordinary_tensors() -> None:
    """Labels can be changed in place and used in later computations that want gradients."""
    labels = build(HEADS["fcn8s"]).predict(torch.randn(1, 3, 32, 32))
    labels[labels == 2] = 0
    weight = torch.ones(5, requires_grad=True)
    weight[labels.long()].sum().backward()
    assert weight.grad is not None


def test_predict_keeps_no_graph() -> None:
    """Nothing that `predict` does is recorded for gradients."""
    model = build(HEADS["fcn8s"])
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    assert not model.predict(image).requires_grad
    assert image.grad is None


def test_many_classes_predict_int16() -> None:
    """Above 256 classes labels are int16."""
    config = HEADS["fcn32s"].replace(num_classes=300, loss=LossConfig(ignore_index=-1))
    assert build(config).predict(torch.randn(1, 3, 32, 32)).dtype == torch.int16


def test_grid_follows_the_mode() -> None:
    """`model.grid` says where pixels lie on `scores().main` in either mode, tiny images included."""
    model = build(HEADS["fcn8s"]).double()
    for training, size in itertools.product((True, False), ((1, 1), (20, 33))):
        model.train(training)
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        scores = copy.deepcopy(model).scores(image)
        assert scores.grid == model.grid
        padded = [scores.grid.padded(length) for length in size]
        assert tuple(scores.main.shape[2:]) == (padded[0] // 8, padded[1] // 8)
        torch.testing.assert_close(fcnzoo.ops.upsample(scores.main, scores.grid, size), model(image))


@pytest.mark.parametrize(("init", "low", "high"), [("zero", 0.0, 0.0), ("normal", 0.027, 0.033), ("xavier", 0.04, 0.2)])
def test_how_score_layers_start(init: str, low: float, high: float) -> None:
    """Zero, or a deviation of 0.03, or Xavier's; biases at zero. Only zero leaves hidden layers without gradients."""
    torch.manual_seed(0)
    model = fcnzoo.create("fcn8s_test_resnet", num_classes=64, head={"init": init, "hidden_channels": 64}).train()
    scores = [layer for layer in model.head.modules() if isinstance(layer, nn.Conv2d) and layer.out_channels == 64]
    scores = [layer for layer in scores if layer.kernel_size == (1, 1)]
    assert len(scores) == 3
    for layer in scores:
        assert low <= float(layer.weight.detach().std()) <= high
        assert layer.bias is None or not layer.bias.any()
    model(torch.rand(2, 3, 64, 64), torch.randint(0, 64, (2, 64, 64))).backward()
    hidden = next(layer for layer in model.head.modules() if getattr(layer, "kernel_size", None) == (3, 3))
    assert bool(hidden.weight.grad.any()) == (init != "zero")
