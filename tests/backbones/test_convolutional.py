"""Classifiers made convolutional: the same logits at 224, a heat map on anything larger."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from fcnzoo import fully_convolutional
from fcnzoo.backbones import linear_to_conv
from fcnzoo.backbones.convolutional import reshape_linear
from fcnzoo.errors import BackboneError


class SmallVGG(nn.Module):
    """VGG's form: features, pooling to 7×7, flattening, three Linear layers with dropout."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(8),
            nn.Conv2d(6, 5, 3, padding=1),
            nn.MaxPool2d(4),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(5 * 49, 20), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 10)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 10) logits."""
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


NETWORKS = {
    "small vgg": SmallVGG,
    "torchvision alexnet": lambda: torchvision.models.alexnet(weights=None),
    "torchvision resnet18": lambda: torchvision.models.resnet18(weights=None),
    "torchvision mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(weights=None),
    "timm resnet18": lambda: timm.create_model("resnet18"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_at_224_are_the_classifiers(name: str) -> None:
    """At 224×224 the convolutional network gives the Linear one's logits to 1e-5, as (B, classes, 1, 1)."""
    classifier = NETWORKS[name]().eval()
    network = fully_convolutional(classifier)
    image = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        want = classifier(image)
        got = network(image)
    assert tuple(got.shape) == (*want.shape, 1, 1)
    assert want.std() > 0
    torch.testing.assert_close(got.flatten(1), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "classes"), [("small vgg", 10), ("torchvision alexnet", 1000), ("torchvision resnet18", 1000)]
)
def test_larger_images_give_heat_maps(name: str, classes: int) -> None:
    """On a larger image there is one score per class and place, each step of 32 pixels one more."""
    network = fully_convolutional(NETWORKS[name]())
    with torch.inference_mode():
        assert tuple(network(torch.randn(1, 3, 288, 352)).shape) == (1, classes, 3, 5)


def test_heat_map_holds_the_logits_of_every_window() -> None:
    """Without padding inside, the map at (i, j) is what the classifier says of the window there."""
    classifier = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).double()
    network = fully_convolutional(classifier, image_size=17)
    image = torch.randn(1, 3, 21, 25, dtype=torch.float64)
    heat = network(image)
    assert tuple(heat.shape) == (1, 3, 3, 5)
    for i in range(3):
        for j in range(5):
            window = image[..., 2 * i : 2 * i + 17, 2 * j : 2 * j + 17]
            torch.testing.assert_close(heat[..., i, j], classifier(window))


def test_the_classifier_is_not_changed() -> None:
    """The network that was given keeps its weights, layers and mode; the copy has weights of its own."""
    classifier = SmallVGG().train()
    before = copy.deepcopy(classifier.state_dict())
    network = fully_convolutional(classifier)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert classifier.training
    assert isinstance(classifier.classifier[0], nn.Linear)
    assert all(torch.equal(before[key], value) for key, value in classifier.state_dict().items())


def test_the_result_can_be_trained() -> None:
    """Every convolution that was a Linear layer gets a gradient."""
    network = fully_convolutional(SmallVGG())
    network(torch.randn(1, 3, 256, 256)).mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_other_numbers_of_channels() -> None:
    """A classifier of gray images is made convolutional like any other."""
    classifier = SmallVGG(channels=1).eval()
    image = torch.randn(1, 1, 224, 224)
    torch.testing.assert_close(
        fully_convolutional(classifier)(image).flatten(1), classifier(image), rtol=1e-5, atol=1e-5
    )


class Branching(nn.Module):
    """Cannot be traced: what it does depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, 2)."""
        return self.head(x.mean((2, 3))) if x.sum() > 0 else self.head(x.amax((2, 3)))


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Conv2d(3, 4, 1)),
        nn.Sequential(nn.Linear(224, 4), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(100), nn.Flatten(), nn.Linear(40_000, 2)),
        Branching(),
    ],
    ids=["no classifier", "Linear on a map", "uneven pooling", "untraceable"],
)
def test_networks_of_another_form_are_refused(network: nn.Module) -> None:
    """A network that is not features, pooling, flattening, Linear layers is a BackboneError."""
    with pytest.raises(BackboneError):
        fully_convolutional(network)


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_a_convolution_at_one_place(kernel: int, bias: bool) -> None:
    """A Linear layer on a flattened C×k×k map is a k×k convolution of it."""
    linear = nn.Linear(4 * kernel**2, 5, bias=bias).double()
    conv = linear_to_conv(linear, kernel)
    x = torch.randn(2, 4, kernel, kernel, dtype=torch.float64)
    assert conv.weight.dtype == torch.float64
    assert (conv.bias is not None) == bias
    torch.testing.assert_close(conv(x).flatten(1), linear(x.flatten(1)))


def test_reshaping_is_channels_first() -> None:
    """The order is (out, C, row, column), as `flatten` lays a map out."""
    weight = torch.arange(2 * 3 * 4.0).view(2, 12)
    maps = torch.randn(1, 3, 2, 2)
    torch.testing.assert_close(F.conv2d(maps, reshape_linear(weight, 2)).flatten(1), maps.flatten(1) @ weight.T)


def test_inputs_that_are_no_map_are_refused() -> None:
    """Inputs that are not a multiple of k² are a ValueError that says both."""
    with pytest.raises(ValueError, match="10 inputs are no multiple of 3×3"):
        linear_to_conv(nn.Linear(10, 2), 3)
