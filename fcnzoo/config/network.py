"""What a network is, as data: backbone, head, geometry, preprocessing, loss.

Nothing here imports torch. A [`FCNConfig`][fcnzoo.config.FCNConfig] says everything that
[`fcnzoo.build`][fcnzoo.build] needs; it goes to JSON and back, and refuses what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fcnzoo.files.records import Record
from fcnzoo.labels import LabelSet

FORMAT = 1
"""Version of the JSON form of `FCNConfig`; raised when an older library could misread it."""

MAX_CHANNELS = 2**16
"""Most channels of an image or of a hidden layer."""

MAX_CONVS = 64
"""Most convolutions of a head; files are read that say a billion."""


@dataclass(frozen=True)
class Preprocess(Record):
    """From an 8-bit picture to the tensor a network was trained on: `(pixel · scale − mean) / std`.

    Attributes:
        mean: One value per channel, in the network's channel order and value range.
        std: One value per channel.
        channel_order: `"rgb"`, or `"bgr"` for networks from Caffe.
        value_range: The largest pixel value the network saw: 1 (`scale` = 1/255) or 255 (`scale` = 1).
        resize: Length in pixels to which the shorter side is brought before the network; `None`: as it is.
        interpolation: Filter of that resize.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: Literal[1, 255] = 1
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"

    def check(self) -> None:
        """See `Record.check`."""
        if not self.mean or len(self.mean) != len(self.std):
            self.refuse("std", f"must hold as many values as mean ({len(self.mean)})")
        if min(self.std) <= 0:
            self.refuse("std", "must be positive")
        if self.resize is not None and self.resize < 1:
            self.refuse("resize", "must be at least 1")


@dataclass(frozen=True)
class BackboneConfig(Record):
    """Which network gives the features.

    Attributes:
        name: `"timm/<name>"`, `"torchvision/<name>"`, or `"paper/vgg16"`: the network of Long et al. 2015.
        in_channels: Channels of the image.
        output_stride: Coarsest reduction; deeper stages are dilated instead of strided. `None`: the
            network's own.
        size_multiple: Image sides are padded to a multiple of this; `None`: the coarsest reduction, so
            that features cover the image exactly. 1 runs the network at the image's own size, as
            torchvision and d2l do; borders of features and image then differ by up to a reduction.
        image_size: (H, W) to which images are resized, for networks of a fixed size only; `None`: the size
            these were made for.
        geometry: For `paper/…` only: `"paper"` pads the image by 100 and pads fc6 nowhere; `"same"`
            runs the same weights with padded convolutions, so that scores cover the image exactly.
    """

    name: str
    in_channels: int = 3
    output_stride: Literal[8, 16, 32] | None = None
    size_multiple: int | None = None
    geometry: Literal["paper", "same"] | None = None
    image_size: tuple[int, int] | None = None

    def check(self) -> None:
        """See `Record.check`."""
        source, _, rest = self.name.partition("/")
        if source not in ("timm", "torchvision", "paper") or not rest:
            self.refuse("name", "must be 'timm/…', 'torchvision/…' or 'paper/…'")
        if not 1 <= self.in_channels <= MAX_CHANNELS:
            self.refuse("in_channels", f"must be at least 1, at most {MAX_CHANNELS}")
        if self.size_multiple is not None and self.size_multiple < 1:
            self.refuse("size_multiple", "must be at least 1 (or None)")
        if self.image_size is not None and (min(self.image_size) < 1 or source == "paper"):
            self.refuse("image_size", "must be (H, W) of at least 1, and goes with 'timm/…' and 'torchvision/…' only")
        if self.geometry is not None and source != "paper":
            self.refuse("geometry", "is for 'paper/…' backbones only")
        if self.output_stride is not None and source == "paper":
            self.refuse("output_stride", "cannot be changed for 'paper/…' backbones")

    @property
    def source(self) -> str:
        """`"timm"`, `"torchvision"` or `"paper"`."""
        return self.name.partition("/")[0]

    @property
    def architecture(self) -> str:
        """The name inside its source, with the tag, if any: `"resnet50.a1_in1k"`."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class SkipHeadConfig(Record):
    """The skip fusion of Long et al. 2015: FCN-32s, FCN-16s, FCN-8s.

    Attributes:
        stride: Finest reduction that is scored: 32 (no fusion), 16 or 8.
        hidden_channels: 0 scores the features with a 1×1 convolution, as the paper does; more puts a
            3×3 convolution, BatchNorm and ReLU of that width before each score layer.
        dropout: Probability of dropping a hidden feature (only with `hidden_channels`).
        detail: Finer reductions, 4 or 4 and 2, that are scored and added after the fusion of the paper,
            which stops at 8: for poles, signs and other thin things.
        detail_channels: As `hidden_channels`, for these.
        init: Score layers start at zero (the paper) or from Xavier's uniform distribution.
        subpixel: Side of the block of scores that the finest score layer gives for each feature: 2 doubles
            the resolution of the scores (dense upsampling convolution, Wang et al. 2018). 1: the paper.
        upsampling: `"bilinear"`: the frozen bilinear sampling of the scores. `"deconv"`: the scores are
            brought to stride 1 by a learned, bilinearly initialised `ConvTranspose2d` (d2l);
            `"deconv_depthwise"`: the same with one kernel per class.
    """

    kind: Literal["skip"] = "skip"
    stride: Literal[8, 16, 32] = 8
    hidden_channels: int = 0
    dropout: float = 0.0
    detail: tuple[Literal[4, 2], ...] = ()
    detail_channels: int = 0
    init: Literal["zero", "xavier"] = "zero"
    subpixel: Literal[1, 2, 4, 8] = 1
    upsampling: Literal["bilinear", "deconv", "deconv_depthwise"] = "bilinear"

    def check(self) -> None:
        """See `Record.check`."""
        if not 0 <= self.hidden_channels <= MAX_CHANNELS:
            self.refuse("hidden_channels", f"must be 0 or more, at most {MAX_CHANNELS}")
        if self.detail not in ((), (4,), (4, 2)) or (self.detail and self.stride != 8):
            self.refuse("detail", "must be empty, [4] or [4, 2], and goes with stride=8")
        if not 0 <= self.detail_channels <= MAX_CHANNELS or (self.detail_channels and not self.detail):
            self.refuse("detail_channels", f"must be 0 or more, at most {MAX_CHANNELS}, and goes with detail")
        if self.detail and self.upsampling != "bilinear":
            self.refuse("detail", "goes only with upsampling='bilinear'")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "must be in [0, 1)")
        if self.dropout and not self.hidden_channels:
            self.refuse("dropout", "needs hidden_channels")
        if self.subpixel > 1 and self.upsampling != "bilinear":
            self.refuse("subpixel", "goes only with upsampling='bilinear'")


@dataclass(frozen=True)
class DilatedHeadConfig(Record):
    """The FCNHead of torchvision and mmsegmentation: 3×3 convolutions, then a 1×1 score layer.

    Attributes:
        hidden_channels: Width of the 3×3 convolutions; `None`: a quarter of the features' (torchvision).
        num_convs: How many 3×3 convolutions (torchvision 1, mmsegmentation 2).
        concat_input: Concatenate the features to the last convolution's output and mix them with
            one more 3×3 convolution (mmsegmentation's `conv_cat`).
        dropout: Probability of dropping an element before the score layer.
        align_corners: Scores are resized as by `F.interpolate(align_corners=True)` (some of mmsegmentation's).
    """

    kind: Literal["dilated"] = "dilated"
    hidden_channels: int | None = None
    num_convs: int = 1
    concat_input: bool = False
    dropout: float = 0.1
    align_corners: bool = False

    def check(self) -> None:
        """See `Record.check`."""
        if self.hidden_channels is not None and not 1 <= self.hidden_channels <= MAX_CHANNELS:
            self.refuse("hidden_channels", f"must be at least 1, at most {MAX_CHANNELS} (or None)")
        if not 1 <= self.num_convs <= MAX_CONVS:
            self.refuse("num_convs", f"must be at least 1, at most {MAX_CONVS}")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "must be in [0, 1)")


@dataclass(frozen=True)
class LossConfig(Record):
    """How `model(image, target)` becomes a number: cross-entropy, plus the weighted aux loss.

    Attributes:
        ignore_index: Target value that takes no part.
        class_weights: One weight per class, or `None`: all 1.
        label_smoothing: As in `torch.nn.functional.cross_entropy`.
        aux_weight: Factor of the aux head's loss (0.5 in torchvision's reference training).
    """

    ignore_index: int = 255
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    aux_weight: float = 0.5

    def check(self) -> None:
        """See `Record.check`."""
        if not 0 <= self.label_smoothing <= 1:
            self.refuse("label_smoothing", "must be in [0, 1]")
        if self.aux_weight < 0:
            self.refuse("aux_weight", "must be 0 or more")
        if self.class_weights is not None and (
            min(self.class_weights, default=-1.0) < 0 or not sum(self.class_weights)
        ):
            self.refuse("class_weights", "must be 0 or more, and not all 0")


@dataclass(frozen=True)
class FCNConfig(Record):
    """A whole network.

    Attributes:
        backbone: Where the features come from.
        head: How features become scores.
        aux_head: A second head on the next finer feature, computed in training only; `None`: none.
        num_classes: K, the number of score channels.
        label_set: Names and colours of the classes; `None` if nobody said what they are.
        preprocess: `None` takes the backbone's own.
        loss: The training loss.
        format: Version of this form.
    """

    backbone: BackboneConfig
    head: SkipHeadConfig | DilatedHeadConfig
    aux_head: DilatedHeadConfig | None = None
    num_classes: int = 21
    label_set: LabelSet | None = None
    preprocess: Preprocess | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    format: int = FORMAT

    def check(self) -> None:
        """See `Record.check`."""
        if self.format > FORMAT:
            raise ValueError(_future(self.format))
        if self.format < 1:
            self.refuse("format", "must be at least 1")
        if self.num_classes < 1:
            self.refuse("num_classes", "must be at least 1")
        if self.num_classes > 2**15:
            self.refuse("num_classes", f"must be at most {2**15} (labels are stored as int16)")
        if self.label_set is not None and len(self.label_set.names) != self.num_classes:
            raise ValueError(
                f"FCNConfig.label_set: {self.label_set.name!r} has {len(self.label_set.names)} classes, "
                f"num_classes is {self.num_classes}; give labels that fit, or None"
            )
        if self.preprocess is not None and len(self.preprocess.mean) != self.backbone.in_channels:
            raise ValueError(
                f"FCNConfig.preprocess: mean has {len(self.preprocess.mean)} values, "
                f"the backbone takes {self.backbone.in_channels} channels"
            )
        weights = self.loss.class_weights
        if weights is not None and len(weights) != self.num_classes:
            raise ValueError(
                f"FCNConfig.loss.class_weights has {len(weights)} values, num_classes is {self.num_classes}"
            )
        if 0 <= self.loss.ignore_index < self.num_classes:
            raise ValueError(
                f"FCNConfig.loss.ignore_index {self.loss.ignore_index} is one of the {self.num_classes} classes; "
                "choose a value outside 0…num_classes−1 (−1, say)"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: str | None = None) -> FCNConfig:
        """As `Record.from_dict`, but a config of a future version says so before anything else."""
        version = data.get("format", FORMAT) if isinstance(data, Mapping) else FORMAT
        if isinstance(version, int) and version > FORMAT:
            raise ValueError(_future(version))
        return super().from_dict(data, where=where)


def _future(version: int) -> str:
    return (
        f"FCNConfig.format {version}: this fcnzoo reads formats 1 to {FORMAT}; "
        "the file was written by a newer fcnzoo: upgrade with `pip install -U fcnzoo`"
    )


def fit_channels(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    """Repeat per-channel statistics for another number of channels: 1 takes the mean of them."""
    if count == len(values):
        return values
    if count == 1:
        return (math.fsum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(count))
