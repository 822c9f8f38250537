"""The networks of Long, Shelhamer & Darrell 2015, and d2l's."""

from __future__ import annotations

from typing import Literal

from fcnzoo.config import CAFFE, BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.config.spec import Converter, Metric, ModelSpec, Publication, Weights
from fcnzoo.labels import LabelSet, get_label_set

REFERENCE = "Long, Shelhamer & Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015"

VOC = get_label_set("voc")

CONTEXT_ORDER = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower "
    "food grass ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky "
    "snow bedclothes track tree truck wall water window wood"
)
"""The 59 classes in the order of the authors' networks (`data/pascal-context/classes-59.txt` of their repository),
in the spelling of our label set, which is sorted."""

SBD = "SBD"
"""Semantic Boundaries Dataset, 8,498 images with VOC's classes: what the VOC networks were trained on."""

SEG11VALID = "VOC 2011 seg11valid (736 images)"
UNRESTRICTED = "unrestricted use"
"""Words of the publishers, for the weights."""

BERKELEY = "http://dl.caffe.berkeleyvision.org"
NO_DIGEST = "its publisher gives no digest, so nothing but the address vouches for the file"


def context_labels() -> LabelSet:
    """Return the label set of the authors' PASCAL-Context networks: background, then VOC's classes first."""
    known = get_label_set("pascal_context_60")
    names = ("background", *CONTEXT_ORDER.split())
    return known.replace(
        name="pascal_context_60_caffe",
        names=names,
        palette=tuple(known.palette[known.index(name)] for name in names),
        description="PASCAL-Context with background, in the order of the networks of Long et al. 2015",
        source=f"order: data/pascal-context/classes-59.txt of the authors; the rest: {known.source}",
    )


def _config(stride: Literal[8, 16, 32], labels: LabelSet = VOC) -> FCNConfig:
    return FCNConfig(
        backbone=BackboneConfig("paper/vgg16", geometry="paper"),
        head=SkipHeadConfig(stride=stride),
        num_classes=len(labels),
        label_set=labels,
        preprocess=CAFFE,
    )


def _torchfcn(tag: str, drive: str, md5: str, mean_iou: float, converter: Converter = "torchfcn") -> Weights:
    return Weights(
        tag=tag,
        dataset=SBD,
        license=UNRESTRICTED,
        metrics=(Metric("mean_iou", mean_iou, SEG11VALID),),
        published=Publication(converter, drive=drive, md5=md5),
        note="BVLC's weights as torchfcn gives them, on Google Drive: fetching them needs the package gdown",
    )


def _bvlc(tag: str, file: str, mean_iou: float | None, converter: Converter = "caffe", **options: object) -> Weights:
    return Weights(
        **{"tag": tag, "dataset": SBD, "license": UNRESTRICTED, "note": NO_DIGEST} | options,  # pyright: ignore
        metrics=() if mean_iou is None else (Metric("mean_iou", mean_iou, SEG11VALID),),
        published=Publication(converter, url=f"{BERKELEY}/{file}.caffemodel"),
    )


def _context_weights(stride: Literal[8, 16, 32]) -> Weights:
    return _bvlc(
        "bvlc_pascal_context",
        f"pascalcontext-fcn{stride}s-heavy",
        None,
        dataset="PASCAL-Context",
        config=_config(stride, context_labels()),
    )


WEIGHTS: dict[Literal[8, 16, 32], tuple[Weights, ...]] = {
    32: (
        _torchfcn("torchfcn", "11k2Q0bvRQgQbT6-jYWeh6nmAsWlSCY3f", "d3eb467a80e7da0468a20dfcbc13e6c8", 0.6363),
        _bvlc("bvlc", "fcn32s-heavy-pascal", 0.636),
        _context_weights(32),
    ),
    16: (
        _torchfcn("torchfcn", "1bctu58B6YH9bu6lBBSBB2rUeGlGhYLoP", "a2d4035f669f09483b39c9a14a0d6670", 0.6501),
        _bvlc("bvlc", "fcn16s-heavy-pascal", 0.650),
        _context_weights(16),
    ),
    8: (
        _torchfcn("torchfcn", "1ieXWyoG68xqoHJPWdyrDyaIaaWlfmUxI", "de93e540ec79512f8770033849c8ae89", 0.6551),
        _torchfcn(
            "torchfcn_atonce",
            "0B9P1L--7Wd2vblE1VUIxV1o2d2M",
            "bfed4437e941fef58932891217fe6464",
            0.6540,
            "torchfcn-atonce",
        ),
        _bvlc("bvlc", "fcn8s-heavy-pascal", 0.655),
        _bvlc("bvlc_atonce", "fcn8s-atonce-pascal", 0.654, "caffe-atonce"),
        _context_weights(8),
    ),
}
"""What the authors and torchfcn published, per stride; figures as published."""

ENTRIES = (
    *(
        ModelSpec(
            name=f"fcn{stride}s_vgg16",
            config=_config(stride),
            weights=weights,
            description=f"FCN-{stride}s of the paper: VGG-16 padded by 100, zero-initialized scores",
            reference=REFERENCE,
        )
        for stride, weights in WEIGHTS.items()
    ),
    ModelSpec(
        name="fcn32s_resnet18",
        config=FCNConfig(
            backbone=BackboneConfig("timm/resnet18.tv_in1k", size_multiple=1),
            head=SkipHeadConfig(stride=32, init="xavier", upsampling="deconv"),
            num_classes=21,
            label_set=VOC,
        ),
        description="FCN-32s in d2l's form: ResNet-18, one 1×1 convolution, a learned transposed convolution",
        reference="Zhang, Lipton, Li & Smola: Dive into Deep Learning, section 14.11",
    ),
)
"""FCN-32s, 16s and 8s on VGG-16, and d2l's FCN-32s on ResNet-18."""
