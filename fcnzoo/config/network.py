"""What a network is, as data: backbone, head, geometry, preprocessing, loss.

Nothing here imports torch. A [`FCNConfig`][fcnzoo.config.FCNConfig] says everything that
[`fcnzoo.build`][fcnzoo.build] needs; it goes to JSON and back, and refuses what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fcnzoo.config.heads import DilatedHeadConfig, HeadConfig
from fcnzoo.config.limits import LARGEST_STATISTIC, MAX_CHANNELS, MAX_MULTIPLE, MAX_SIDE, SMALLEST_STD
from fcnzoo.files.records import Record
from fcnzoo.labels import LabelSet, LabelSetLike, as_label_set

FORMAT = 1
"""Version of the JSON form of `FCNConfig`; raised when an older library could misread it."""


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
        longer_side: Length in pixels to which the longer side is brought, in place of `resize`.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: Literal["rgb", "bgr"] = "rgb"
    value_range: Literal[1, 255] = 1
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    longer_side: int | None = None

    def check(self) -> None:
        """See `Record.check`."""
        if not self.mean or len(self.mean) != len(self.std):
            self.refuse("std", f"must hold as many values as mean ({len(self.mean)})")
        if not SMALLEST_STD <= min(self.std) <= max(self.std) <= LARGEST_STATISTIC:
            self.refuse("std", f"must be positive, in {SMALLEST_STD}…{LARGEST_STATISTIC:g}")
        if max(map(abs, self.mean)) > LARGEST_STATISTIC:
            self.refuse("mean", f"must be at most {LARGEST_STATISTIC:g}")
        for name in ("resize", "longer_side"):
            side = getattr(self, name)
            if side is not None and not 1 <= side <= MAX_SIDE:
                self.refuse(name, f"must be at least 1, at most {MAX_SIDE}")
        if self.longer_side is not None and self.resize is not None:
            self.refuse("longer_side", "goes without resize")

    @property
    def resizes(self) -> bool:
        """Whether pictures are brought to another size."""
        return self.resize is not None or self.longer_side is not None


CAFFE = Preprocess(
    mean=(104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255
)
"""Mean of ImageNet in BGR, 0–255: `infer.py` of the repository of Long et al."""

IMAGENET_255 = Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), value_range=255)
"""Mean and deviation of ImageNet in RGB, 0–255: `img_norm_cfg` of mmsegmentation's `configs/_base_/datasets`."""


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
        taps: For `torchvision/…` only: blocks whose outputs are the features, such as `("features.4", "features.16")`;
            `None`: the last block of each reduction.
    """

    name: str
    in_channels: int = 3
    output_stride: Literal[8, 16, 32] | None = None
    size_multiple: int | None = None
    geometry: Literal["paper", "same"] | None = None
    image_size: tuple[int, int] | None = None
    taps: tuple[str, ...] | None = None

    def check(self) -> None:
        """See `Record.check`."""
        source, _, rest = self.name.partition("/")
        if source not in ("timm", "torchvision", "paper") or not rest:
            self.refuse("name", "must be 'timm/…', 'torchvision/…' or 'paper/…'")
        if not 1 <= self.in_channels <= MAX_CHANNELS:
            self.refuse("in_channels", f"must be at least 1, at most {MAX_CHANNELS}")
        if self.size_multiple is not None and not 1 <= self.size_multiple <= MAX_MULTIPLE:
            self.refuse("size_multiple", f"must be at least 1, at most {MAX_MULTIPLE} (or None)")
        if self.image_size is not None and (
            not 1 <= min(self.image_size) <= max(self.image_size) <= MAX_SIDE or source == "paper"
        ):
            self.refuse(
                "image_size", f"must be (H, W) of 1…{MAX_SIDE}, and goes with 'timm/…' and 'torchvision/…' only"
            )
        if self.geometry is not None and source != "paper":
            self.refuse("geometry", "is for 'paper/…' backbones only")
        if self.taps is not None and (source != "torchvision" or not 1 <= len(set(self.taps)) == len(self.taps)):
            self.refuse("taps", "must be distinct names of blocks, and goes with 'torchvision/…' only")
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
        label_set: Names and colors of the classes; `None` if nobody said what they are.
        preprocess: `None` takes the backbone's own.
        loss: The training loss.
        format: Version of this form.
    """

    backbone: BackboneConfig
    head: HeadConfig
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
                f"num_classes is {self.num_classes}; give a label_set that fits, or None"
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

    def with_classes(self, num_classes: int | None = None, label_set: LabelSetLike | None = None) -> FCNConfig:
        """Return the config of the same network for other classes; what belonged to the old ones goes.

        Args:
            num_classes: K; with `label_set` it must agree.
            label_set: Their names. Without: nameless, unless K stays.

        Raises:
            ValueError: The two contradict each other, or are impossible.
            TypeError: One of them has a wrong type.
        """
        if label_set is not None:
            label_set = as_label_set(label_set)
            if num_classes not in (None, len(label_set)):
                raise ValueError(
                    f"num_classes={num_classes}, but label_set has {len(label_set)} names; leave one of them out"
                )
            loss = self.loss.replace(class_weights=None, ignore_index=label_set.ignore_index)
            return self.replace(num_classes=len(label_set), label_set=label_set, loss=loss)
        if num_classes is None or num_classes == self.num_classes:
            return self
        loss = self.loss.replace(class_weights=None)
        if isinstance(num_classes, int) and num_classes > loss.ignore_index >= 0:
            loss = loss.replace(ignore_index=-1)  # 255 is a class of its own here
        return self.replace(num_classes=num_classes, label_set=None, loss=loss)

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
