"""The shipped everyday network rebuilt in plain PyTorch and torchvision, to compare fcnzoo with.

Nothing here uses fcnzoo. Source: `deeplab/model.py` and `core/feature_extractor.py` of tensorflow/models: MobileNetV2
of half the width (channels rounded to multiples of 4), strides after output stride 8 replaced by dilation of the
depthwise convolutions, image-level pooling and a 1×1 convolution, concatenated and projected, no decoder.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

STAGES = (1, 2, 3, 4, 3, 3, 1)


class Reference(nn.Module):
    """Logits (B, K, H, W) of an image (B, 3, H, W) in −1…1."""

    def __init__(self, num_classes: int = 21) -> None:
        super().__init__()
        self.backbone = mobilenet_v2(width_mult=0.5, round_nearest=4).features[:18]
        dilate(self.backbone)
        self.image_pooling = nn.Conv2d(160, 256, 1)
        self.aspp0 = nn.Conv2d(160, 256, 1)
        self.project = nn.Conv2d(512, 256, 1)
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def scores(self, image: Tensor) -> Tensor:
        """Return scores (B, K, ⌈H / 8⌉, ⌈W / 8⌉)."""
        features = self.backbone(image)
        pooled = self.image_pooling(features.mean((2, 3), keepdim=True)).relu().expand(-1, -1, *features.shape[2:])
        return self.classifier(self.project(torch.cat([pooled, self.aspp0(features).relu()], 1)).relu())

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(self.scores(image), image.shape[2:], mode="bilinear", align_corners=True)


def dilate(backbone: nn.Module) -> None:
    """Replace strides after output stride 8; a stage's first depthwise convolution keeps the dilation before it."""
    stride = rate = 1
    for module in backbone.modules():
        if not isinstance(module, nn.Conv2d) or module.kernel_size != (3, 3):
            continue
        before = rate
        if module.stride == (2, 2) and stride == 8:
            module.stride, rate = (1, 1), rate * 2
        elif module.stride == (2, 2):
            stride *= 2
        if module.groups > 1:
            module.dilation = module.padding = (before, before)


def random_reference(num_classes: int = 21) -> Reference:
    """The network with random weights whose BatchNorm is folded: the identity and a bias."""
    network = Reference(num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            module.running_var.fill_(1 - 1e-5)
    return network.eval()


def rebuilt(weights: Mapping[str, Tensor]) -> Reference:
    """The network with the weights of the shipped file, which has timm's names and zero channels."""
    network = Reference(weights["head.score.weight"].shape[0])
    names = {"backbone.0.0": "conv_stem", "backbone.0.1": "bn1"}
    places = [(stage, block) for stage, count in enumerate(STAGES) for block in range(count)]
    for number, (stage, block) in enumerate(places, start=1):
        layers = ["conv_pw", "conv_dw", "conv_pwl"] if number > 1 else ["conv_dw", "conv_pw"]
        for i, layer in enumerate(layers):
            conv, norm = (f"{i}", f"{i + 1}") if i == len(layers) - 1 else (f"{i}.0", f"{i}.1")
            names[f"backbone.{number}.conv.{conv}"] = f"blocks.{stage}.{block}.{layer}"
            names[f"backbone.{number}.conv.{norm}"] = f"blocks.{stage}.{block}.bn{i + 1}"
    state = {}
    for key, own in network.state_dict().items():
        module, _, kind = key.rpartition(".")
        if module in names:
            tensor = weights[f"backbone.network.{names[module]}.{kind}"]
            state[key] = tensor[tuple(slice(length) for length in own.shape)] if own.ndim else tensor
    for ours, (conv, norm) in {
        "image_pooling": ("head.pooling.conv", "head.pooling.norm"),
        "aspp0": ("head.branches.0.0", "head.branches.0.1"),
        "project": ("head.project.0", "head.project.1"),
        "classifier": ("head.score", "head.score"),
    }.items():
        weight = weights[f"{conv}.weight"]
        state[f"{ours}.weight"] = weight.roll(256, 1) if ours == "project" else weight  # pooling comes first here
        state[f"{ours}.bias"] = weights[f"{norm}.bias"]
    network.load_state_dict({key: one.float() if one.is_floating_point() else one for key, one in state.items()})
    return network.eval()


def labels(network: Reference, picture: Image.Image, longer_side: int = 513) -> np.ndarray:
    """Label a photograph: its longer side brought to a length, scored, the scores resized to the photograph."""
    scale = longer_side / max(picture.size)
    seen = picture.resize([max(1, int(scale * side + 0.5)) for side in picture.size], Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(seen, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        scores = network.scores(image)
        size = (picture.height, picture.width)
        return F.interpolate(scores, size, mode="bilinear", align_corners=True).argmax(1)[0].numpy()


def tensorflow_names(network: Reference) -> dict[str, np.ndarray]:
    """The network's weights as the TensorFlow Lite file has them: names and layouts."""
    scopes = {"backbone.0.0": "MobilenetV2/Conv", "backbone.0.1": "MobilenetV2/Conv"}
    for number in range(1, 18):
        scope = f"MobilenetV2/expanded_conv{f'_{number - 1}' if number > 1 else ''}"
        parts = ["expand", "depthwise", "project"] if number > 1 else ["depthwise", "project"]
        for i, part in enumerate(parts):
            conv, norm = (f"{i}", f"{i + 1}") if part == "project" else (f"{i}.0", f"{i}.1")
            scopes[f"backbone.{number}.conv.{conv}"] = scopes[f"backbone.{number}.conv.{norm}"] = f"{scope}/{part}"
    scopes |= {"image_pooling": "image_pooling", "aspp0": "aspp0"}
    scopes |= {"project": "concat_projection", "classifier": "logits/semantic"}
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1
            order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
            word = "depthwise_weights" if depthwise else "weights"
            found[f"{scopes[name]}/{word}"] = module.weight.detach().permute(order).contiguous().numpy()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
            word = "depthwise_bias" if scopes[name].endswith("/depthwise") else "Conv2D_bias"
            found[f"{scopes[name]}/{word}"] = module.bias.detach().numpy()
    return found
