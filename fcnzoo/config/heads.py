"""How features become scores, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcnzoo.config.limits import MAX_CHANNELS, MAX_CONVS, MAX_RATE
from fcnzoo.files.records import Record


@dataclass(frozen=True)
class SkipHeadConfig(Record):
    """The skip fusion of Long et al. 2015: FCN-32s, FCN-16s, FCN-8s.

    Attributes:
        stride: Finest reduction that is scored: 32 (no fusion), 16 or 8.
        hidden_channels: 0 scores the features with a 1×1 convolution, as the paper does; more puts a
            3×3 convolution, BatchNorm and ReLU of that width before each score layer.
        dropout: Probability of dropping an element of what the score layers see: the hidden features, or without
            `hidden_channels` the backbone's.
        detail: Finer reductions, 4 or 4 and 2, that are scored and added after the fusion of the paper,
            which stops at 8: for poles, signs and other thin things.
        detail_channels: As `hidden_channels`, for these.
        init: Score layers start at zero (the paper), from Xavier's uniform distribution, or from a normal one of
            deviation 0.03, which lets hidden layers and backbone learn from the first step.
        subpixel: Side of the block of scores that the finest score layer gives for each feature: 2 doubles
            the resolution of the scores (dense upsampling convolution, Wang et al. 2018). 1: the paper.
        upsampling: `"bilinear"`: the frozen bilinear sampling of the scores. `"deconv"`: the scores are
            brought to stride 1 by a learned, bilinearly initialized `ConvTranspose2d` (d2l);
            `"deconv_depthwise"`: the same with one kernel per class.
    """

    kind: Literal["skip"] = "skip"
    stride: Literal[8, 16, 32] = 8
    hidden_channels: int = 0
    dropout: float = 0.0
    detail: tuple[Literal[4, 2], ...] = ()
    detail_channels: int = 0
    init: Literal["zero", "xavier", "normal"] = "zero"
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
class ContextHeadConfig(Record):
    """Global context for the last feature: image-level pooling, a 1×1 convolution, atrous ones, and a projection.

    Image-level pooling is ParseNet's (Liu, Rabinovich & Berg 2015, "ParseNet: Looking wider to see better", section
    3.1), the whole is the head of DeepLabV3 (Chen et al. 2017, "Rethinking atrous convolution for semantic image
    segmentation", section 3.3). The defaults are torchvision's `DeepLabHead`.

    Attributes:
        hidden_channels: Width of every layer; 256 in DeepLabV3.
        rates: Dilations of the 3×3 convolutions beside the 1×1 one and the pooling (atrous spatial pyramid pooling):
            (12, 24, 36) at output stride 8, half of it at 16, in DeepLabV3. Empty: none, as in its networks for phones.
        num_convs: How many 3×3 convolutions stand between the projection and the score layer (torchvision 1,
            DeepLab's own networks 0).
        dropout: Probability of dropping an element of the projection.
        align_corners: Scores are resized as by `F.interpolate(align_corners=True)` (DeepLab's own networks).
    """

    kind: Literal["context"] = "context"
    hidden_channels: int = 256
    rates: tuple[int, ...] = (12, 24, 36)
    num_convs: int = 1
    dropout: float = 0.5
    align_corners: bool = False

    def check(self) -> None:
        """See `Record.check`."""
        if not 1 <= self.hidden_channels <= MAX_CHANNELS:
            self.refuse("hidden_channels", f"must be at least 1, at most {MAX_CHANNELS}")
        if len(self.rates) > MAX_CONVS or not all(1 <= rate <= MAX_RATE for rate in self.rates):
            self.refuse("rates", f"must be at most {MAX_CONVS} numbers in 1…{MAX_RATE}")
        if not 0 <= self.num_convs <= MAX_CONVS:
            self.refuse("num_convs", f"must be 0 or more, at most {MAX_CONVS}")
        if not 0 <= self.dropout < 1:
            self.refuse("dropout", "must be in [0, 1)")


@dataclass(frozen=True)
class LRASPPHeadConfig(Record):
    """Lite reduced ASPP: the last feature gated by its global context, its scores added to those of a finer one.

    Source: Howard et al. 2019, "Searching for MobileNetV3", section 6.4 and figure 10;
    `torchvision/models/segmentation/lraspp.py`.

    Attributes:
        hidden_channels: Width of the gated features (128 in both).
    """

    kind: Literal["lraspp"] = "lraspp"
    hidden_channels: int = 128

    def check(self) -> None:
        """See `Record.check`."""
        if not 1 <= self.hidden_channels <= MAX_CHANNELS:
            self.refuse("hidden_channels", f"must be at least 1, at most {MAX_CHANNELS}")


HeadConfig = SkipHeadConfig | DilatedHeadConfig | ContextHeadConfig | LRASPPHeadConfig
"""What a network's main head may be; records in files are told apart by `kind`."""
