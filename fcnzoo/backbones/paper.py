"""The VGG-16 of Long et al. 2015: a classifier made fully convolutional.

Source: the paper, section 4; `voc-fcn8s/train.prototxt` of the authors' repository for the padding
of 100 and the ceiling pools (Caffe's); Simonyan & Zisserman 2015, configuration D, for the layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fcnzoo.backbones.base import Backbone, FeatureInfo, Pretrained, logger
from fcnzoo.backbones.convolutional import reshape_linear
from fcnzoo.config import CAFFE, BackboneConfig, Grid, Preprocess, fit_channels
from fcnzoo.errors import UnknownModelError, WeightsError
from fcnzoo.files.keys import check_keys
from fcnzoo.files.safetensors import read_safetensors

IMAGENET = Preprocess()
"""Of the VGG-16 that timm (`vgg16.tv_in1k`) and torchvision publish."""

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of the 3×3 convolutions of each block (VGG configuration D)."""

FC_CHANNELS = 4096

# In the padded geometry a map at stride s starts before the image. The offsets say by how many pixels, less
# half a stride: fc7 is the final crop of FCN-32s (19 − 32/2); pool4 and pool3 follow from the prototxt's
# crops 5 and 9 (see SkipHead): 99 = 100 (padding) − 1 (each 3×3 convolution is centered, pools round up).
PAPER_OFFSETS = {32: 3.0, 16: 99.0, 8: 99.0}


def _convolutions() -> list[tuple[str, int]]:
    """Names of the 13 convolutions and their index in `torchvision.models.vgg16().features`."""
    names, index = [], 0
    for block, (_, count) in enumerate(BLOCKS, start=1):
        for number in range(1, count + 1):
            names.append((f"conv{block}_{number}", index))
            index += 2
        index += 1
    return names


class PaperVGG16(Backbone):
    """VGG-16 with fc6 and fc7 as convolutions; features after pool3, pool4 and fc7.

    Args:
        config: `geometry="paper"` (default): the first convolution pads by 100, fc6 does not pad, features
            extend beyond the image. `"same"`: it pads by 1, fc6 by 3, features fit the padded image.
        pretrained: `True` takes timm's `vgg16.tv_in1k`; a file may have the keys of timm's or torchvision's
            VGG-16 classifier, or this network's own.

    Raises:
        UnknownModelError: The name is not `"paper/vgg16"`.
        WeightsError: The weights cannot be had or do not fit.
    """

    def __init__(self, config: BackboneConfig, pretrained: Pretrained = False) -> None:
        super().__init__()
        if config.architecture != "vgg16":
            raise UnknownModelError(f"there is no {config.name!r}; the paper's network here is 'paper/vgg16'")
        self.config = config
        paper = config.geometry != "same"
        channels = config.in_channels
        for block, (width, count) in enumerate(BLOCKS, start=1):
            for number in range(1, count + 1):
                padding = 100 if paper and (block, number) == (1, 1) else 1
                self.add_module(f"conv{block}_{number}", nn.Conv2d(channels, width, 3, padding=padding))
                channels = width
        self.fc6 = nn.Conv2d(channels, FC_CHANNELS, 7, padding=0 if paper else 3)
        self.fc7 = nn.Conv2d(FC_CHANNELS, FC_CHANNELS, 1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.dropout = nn.Dropout(0.5)
        taps = ((8, BLOCKS[2][0], "pool3"), (16, BLOCKS[3][0], "pool4"), (32, FC_CHANNELS, "fc7"))
        self.features = tuple(
            FeatureInfo(r, c, tap, Grid(stride=r, offset=PAPER_OFFSETS[r], border="zeros") if paper else Grid())
            for r, c, tap in taps
        )
        self.size_multiple = config.size_multiple or (1 if paper else 32)
        self.preprocess = _fit(CAFFE, config.in_channels)
        if pretrained is not False:
            self._load(pretrained)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return pool3 (B, 256, …), pool4 (B, 512, …) and fc7 (B, 4096, …)."""
        taps = []
        features = image
        for block, (_, count) in enumerate(BLOCKS, start=1):
            for number in range(1, count + 1):
                features = self.relu(self.get_submodule(f"conv{block}_{number}")(features))
            features = self.pool(features)
            if block in (3, 4):
                taps.append(features)
        features = self.dropout(self.relu(self.fc6(features)))
        taps.append(self.dropout(self.relu(self.fc7(features))))
        return taps

    def _load(self, pretrained: Pretrained) -> None:
        source = "timm's vgg16.tv_in1k" if pretrained is True else str(pretrained)
        weights = _provider_weights() if pretrained is True else read_safetensors(str(pretrained))
        if "conv1_1.weight" not in weights:
            weights = rename_classifier(weights, source)
            self.preprocess = _fit(IMAGENET, self.config.in_channels)
        first = "conv1_1.weight"
        if first in weights and weights[first].shape[1] != self.config.in_channels:
            from timm.models import adapt_input_conv

            weights[first] = adapt_input_conv(self.config.in_channels, weights[first])
        own = {key: tensor.shape for key, tensor in self.state_dict().items()}
        check_keys({key: tensor.shape for key, tensor in weights.items()}, own, source=source)
        self.load_state_dict(weights, assign=self.fc7.weight.is_meta)


def _fit(preprocess: Preprocess, channels: int) -> Preprocess:
    return preprocess.replace(mean=fit_channels(preprocess.mean, channels), std=fit_channels(preprocess.std, channels))


def rename_classifier(weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Rename a VGG-16 classifier's weights to `PaperVGG16`'s, its Linear layers made convolutions.

    timm's `pre_logits.fc1/fc2` are fc6 and fc7 already; torchvision's `classifier.0/3` are the same
    numbers as Linear layers. The 1000-way classifier is left out and named in the log.

    Raises:
        WeightsError: A key is of neither.
    """
    layers = {f"features.{index}": name for name, index in _convolutions()}
    layers |= {"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "classifier.0": "fc6", "classifier.3": "fc7"}
    renamed, aside, unknown = {}, [], []
    for key, tensor in weights.items():
        layer, _, kind = key.rpartition(".")
        if layer in ("classifier.6", "head.fc"):
            aside.append(key)
        elif layer not in layers:
            unknown.append(key)
        elif tensor.ndim == 2:
            try:
                renamed[f"{layers[layer]}.{kind}"] = reshape_linear(tensor, 7 if layers[layer] == "fc6" else 1)
            except ValueError as error:
                raise WeightsError(f"{source}: {key} does not fit {layers[layer]}: {error}") from None
        else:
            renamed[f"{layers[layer]}.{kind}"] = tensor
    if unknown:
        raise WeightsError(f"{source} is not a VGG-16 of timm or torchvision; unknown keys: {', '.join(unknown[:5])}")
    logger.info("%s: classifier keys left out: %s", source, aside or "none")
    return renamed


def _provider_weights() -> dict[str, Tensor]:
    import timm

    try:
        with torch.device("cpu"):
            return dict(timm.create_model("vgg16.tv_in1k", pretrained=True).state_dict())
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"the weights of timm's vgg16.tv_in1k cannot be had ({type(error).__name__}: {error}). Where there is no "
            "network, give pretrained_backbone the path of a local .safetensors file with a VGG-16 classifier"
        ) from error
