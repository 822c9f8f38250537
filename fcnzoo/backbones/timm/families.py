"""What families of timm networks need to run on any image: one table, as data.

Most need nothing: what a network asks for is read off the network itself (its reductions, whether timm marks its
size as fixed). A record stands here where that is not enough. Nothing here imports torch or timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal


@dataclass(frozen=True)
class TimmFamily:
    """How one family of networks is run.

    Attributes:
        modules: Modules of timm (`timm.models.…`) that define its networks.
        names: Shell patterns of architectures; empty: all of these modules.
        options: Given to `timm.create_model`.
        size: `"pad"`: images are padded to a multiple; `"resize"`: they are resized to the one size the network is
            built for; `"square"`: the same, and that size must be square; `"native"`: the same, and it is that of
            the weights; `None`: `"resize"` where timm marks the size as fixed, else `"pad"`.
        multiple: Image sides must be a multiple of this; `"native"`: of the size of the pretrained weights;
            `None`: the coarsest reduction.
        out_indices: Which of timm's features are taken; `None`: see `backbones/timm/taps.py`.
        margin: Zeros around the image at (top and left, bottom and right), and features cropped to the image.
        centers: Pixel in the middle of what the first cell of each feature sees, without the margin; empty: half a
            reduction. By them features are cropped at the top and left.
        tokens: Features are taken as (B, N, C) and laid out here, where timm would read their grid from the device
            (which no meta device, no export and no GPU without waiting can do).
        channels: Channels of the image the network takes, if it takes only one number of them.
        global_attention: Its attention is between all cells of a map, normalized over them, and knows no tables of
            positions: dilation then means the same as for a global average (see `backbones/dilation/rule.py`).
        nearly: Its reductions are rounded, so that sizes of features may differ by one.
        note: One line for the user.
    """

    modules: tuple[str, ...]
    names: tuple[str, ...] = ()
    options: tuple[tuple[str, object], ...] = ()
    size: Literal["pad", "resize", "square", "native"] | None = None
    multiple: int | Literal["native"] | None = None
    out_indices: tuple[int, ...] | None = None
    margin: tuple[int, int] = (0, 0)
    centers: tuple[int, ...] = ()
    tokens: bool = False
    channels: int | None = None
    global_attention: bool = False
    nearly: bool = False
    note: str = ""


FAMILIES = (
    # No table: rotary positions by the cell's place in the image, from −1 to 1. Dilated, its patches overlap (Amir et
    # al. 2021, "Deep ViT features as dense visual descriptors").
    TimmFamily(
        ("eva",),
        names=("vit_*_dinov3*",),
        options=(("dynamic_img_size", True),),
        size="pad",
        global_attention=True,
        note="rotary positions of any image; three depths of the transformer",
    ),
    TimmFamily(
        ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "vitamin"),
        options=(("dynamic_img_size", True),),
        size="pad",
        note="position embedding resampled to the image; three depths of the transformer",
    ),
    TimmFamily(
        ("naflexvit", "deepseek_vit", "vision_transformer_sam"),
        size="pad",
        note="position embedding resampled to the image; three depths of the transformer",
    ),
    TimmFamily(
        ("qwen3_vit",),
        size="pad",
        multiple=32,
        note="position embedding resampled to the image; three depths of the transformer; it merges 2×2 patches of 16",
    ),
    TimmFamily(
        ("gemma4_vit",),
        size="pad",
        multiple=48,
        tokens=True,
        note="three depths of the transformer; it pools 3×3 patches of 16, so images are padded to multiples of 48",
    ),
    # Attention between channels, by cosines over all cells; patches are made by 3×3 convolutions of stride 2.
    TimmFamily(
        ("xcit",),
        size="pad",
        global_attention=True,
        note="Fourier position encoding of any image; three depths of the transformer",
    ),
    TimmFamily(
        ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr"),
        options=(("strict_img_size", False),),
        size="pad",
        note="windows of the size that the weights have, laid over any image",
    ),
    TimmFamily(
        ("maxxvit",),
        names=("maxvit*", "maxxvit*"),
        size="pad",
        multiple="native",
        note="windows and grids of the size that the weights have must divide the image: padded to whole native sizes",
    ),
    TimmFamily(
        ("byoanet",),
        names=("halonet*", "sehalonet*", "eca_halonext*", "haloregnetz*"),
        size="pad",
        multiple="native",
        note="blocks of 7 or 8 features at stride 32 must divide the image: padded to whole native sizes",
    ),
    TimmFamily(
        ("byobnet",),
        names=("bat_*",),
        size="pad",
        multiple=256,
        note="blocks of 8 features at stride 32 must divide the image: padded to multiples of 256",
    ),
    TimmFamily(
        ("mobilevit",),
        names=("mobilevitv2_*",),
        size="pad",
        multiple=64,
        note="patches of 2×2 features at stride 32 must divide the image, or timm resizes them: padded to 64",
    ),
    # Of one size for the sake of its patch embeddings' counts only; positions come from depthwise convolutions.
    TimmFamily(("coat",), names=("coat_lite_*",), global_attention=True),
    TimmFamily(("twins",), names=("twins_pcpvt_*",), size="pad", global_attention=True),
    # Marked as fixed by timm for the sake of parts that are cut off (attention pooling), or needlessly.
    TimmFamily(("byobnet", "twins", "swiftformer"), size="pad"),
    # timm's reductions of the first stages; its default leaves the last stage out.
    TimmFamily(("sequencer",), size="pad", out_indices=(0, 1, 2, 3)),
    TimmFamily(("nest", "convit", "mvitv2"), size="square"),
    # timm builds its attention biases for one resolution, whatever `img_size` says.
    TimmFamily(("efficientformer",), size="native"),
    TimmFamily(("pit",), nearly=True),
    # Indices 0 … n−1 are depths of the fine branch, n … 2n−1 of the coarse one; n is 3 in all of timm's.
    TimmFamily(
        ("crossvit",),
        size="native",
        out_indices=(2, 4, 5),
        nearly=True,
        note="two branches on two grids of fixed size; features of the fine one, and two depths of the coarse one",
    ),
    TimmFamily(
        ("csatv2",),
        channels=3,
        global_attention=True,
        note="its fixed cosine transform takes 3 channels: others go through a 1×1 convolution first",
    ),
    # Stems without padding. The centers follow from kernels and strides: every 3×3 layer without padding moves
    # the first cell inwards by its stride so far.
    TimmFamily(
        ("inception_v3", "inception_resnet_v2"),
        margin=(17, 26),
        centers=(3, 9, 13, 21, 37),
        note="its layers have no padding: zeros are put around the image and features cropped; no border is lost",
    ),
    TimmFamily(
        ("inception_v4",),
        margin=(17, 26),
        centers=(3, 5, 13, 21, 37),
        note="its layers have no padding: zeros are put around the image and features cropped; no border is lost",
    ),
    TimmFamily(
        ("xception",),
        margin=(2, 3),
        note="its stem has no padding: zeros are put around the image; no border is lost",
    ),
    TimmFamily(
        ("nasnet", "pnasnet"),
        margin=(0, 1),
        note="its stem has no padding: a row and a column of zeros are added; no border is lost",
    ),
    # Real stages that timm's default leaves out.
    TimmFamily(
        ("fastvit",), names=("fastvit_mci3", "fastvit_mci4"), out_indices=(0, 1, 2, 3, 4), global_attention=True
    ),
    TimmFamily(("selecsls",), out_indices=(0, 1, 2, 3, 4, 5)),
    TimmFamily(("cspnet",), names=("sedarknet21",), out_indices=(0, 1, 2, 3, 4, 5)),
    # Read in timm's source: softmax or linear attention over all cells, positions only through convolutions.
    TimmFamily(
        (
            "cpubone",
            "edgenext",
            "efficientvim",
            "efficientvit_mit",
            "fastvit",
            "iformer",
            "lowformer",
            "metaformer",
            "mobilenetv5",
            "nextvit",
            "pvt_v2",
            "shvit",
        ),
        global_attention=True,
    ),
)
"""The first that fits counts."""

DEFAULT = TimmFamily(())
"""A network that no record names."""


def find_family(module: str, architecture: str) -> TimmFamily:
    """Return the record of a network: the first whose module and pattern fit, or `DEFAULT`.

    Args:
        module: The module of `timm.models` that defines it.
        architecture: Its name, without a tag.
    """
    for family in FAMILIES:
        if module in family.modules and (not family.names or any(fnmatch(architecture, name) for name in family.names)):
            return family
    return DEFAULT
