"""The networks of `torchvision.models.segmentation`: FCN, DeepLabV3 and Lite R-ASPP."""

from __future__ import annotations

from typing import Literal

from fcnzoo.config import (
    BackboneConfig,
    ContextHeadConfig,
    DilatedHeadConfig,
    FCNConfig,
    HeadConfig,
    LRASPPHeadConfig,
    Preprocess,
)
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights
from fcnzoo.labels import get_label_set
from fcnzoo.zoo.entries.mmseg import PLAIN

VOC = get_label_set("voc")

COCO = "COCO val2017 (VOC classes)"

# timm's ResNets have torchvision's keys and, dilated, its outputs to the bit.
RESNETS = {
    depth: BackboneConfig(f"timm/resnet{depth}.tv_in1k", output_stride=8, size_multiple=1) for depth in (50, 101)
}
# The *first* block of stride 8: `stage_indices[-4]` of `_deeplabv3_mobilenetv3` and `_lraspp_mobilenetv3`.
MOBILENET = BackboneConfig(
    "torchvision/mobilenet_v3_large", output_stride=16, size_multiple=1, taps=("features.4", "features.16")
)


def _config(backbone: BackboneConfig, head: HeadConfig, *, aux: bool = True) -> FCNConfig:
    return FCNConfig(
        backbone=backbone,
        head=head,
        aux_head=DilatedHeadConfig() if aux else None,
        num_classes=21,
        label_set=VOC,
        # `resize_size=520` of torchvision's segmentation weights.
        preprocess=Preprocess(resize=520),
    )


def _weights(file: str, mean_iou: float, accuracy: float) -> Weights:
    """Return the weights of a published file; figures are those of its `…_Weights.COCO_WITH_VOC_LABELS_V1`."""
    return Weights(
        tag="coco_voc",
        dataset="COCO (VOC classes)",
        license="BSD-3-Clause",
        metrics=(Metric("mean_iou", mean_iou, COCO), Metric("pixel_accuracy", accuracy, COCO)),
        published=Publication(
            "torchvision",
            url=f"https://download.pytorch.org/models/{file}.pth",
            # torchvision's file names end in the first digits of the file's sha256.
            sha256=file.rpartition("-")[2],
        ),
    )


def _fcn(depth: Literal[50, 101], file: str, mean_iou: float, accuracy: float) -> ModelSpec:
    return ModelSpec(
        name=f"fcn_resnet{depth}",
        config=_config(RESNETS[depth], DilatedHeadConfig()),
        weights=(_weights(file, mean_iou, accuracy), *PLAIN[depth]),
        description=f"torchvision's fcn_resnet{depth}: output stride 8, FCNHead, auxiliary FCNHead on layer3",
        reference="torchvision/models/segmentation/fcn.py",
    )


def _deeplabv3(depth: Literal[50, 101], file: str, mean_iou: float, accuracy: float) -> ModelSpec:
    return ModelSpec(
        name=f"deeplabv3_resnet{depth}",
        config=_config(RESNETS[depth], ContextHeadConfig()),
        weights=(_weights(file, mean_iou, accuracy),),
        description=f"torchvision's deeplabv3_resnet{depth}: output stride 8, ASPP, auxiliary FCNHead on layer3",
        reference="Chen et al. 2017; torchvision/models/segmentation/deeplabv3.py",
    )


ENTRIES = (
    _fcn(50, "fcn_resnet50_coco-1167a1af", 0.605, 0.914),
    _fcn(101, "fcn_resnet101_coco-7ecb50ca", 0.637, 0.919),
    _deeplabv3(50, "deeplabv3_resnet50_coco-cd0a2569", 0.664, 0.924),
    _deeplabv3(101, "deeplabv3_resnet101_coco-586e9e4e", 0.674, 0.924),
    ModelSpec(
        name="deeplabv3_mobilenet_v3_large",
        config=_config(MOBILENET, ContextHeadConfig()),
        weights=(_weights("deeplabv3_mobilenet_v3_large-fc3c493d", 0.603, 0.912),),
        description="torchvision's deeplabv3_mobilenet_v3_large: output stride 16, ASPP, auxiliary FCNHead at 8",
        reference="Chen et al. 2017; torchvision/models/segmentation/deeplabv3.py",
    ),
    ModelSpec(
        name="lraspp_mobilenet_v3_large",
        config=_config(MOBILENET, LRASPPHeadConfig(), aux=False),
        weights=(_weights("lraspp_mobilenet_v3_large-d234d4ea", 0.579, 0.912),),
        description="torchvision's lraspp_mobilenet_v3_large: output strides 16 and 8, Lite R-ASPP",
        reference="Howard et al. 2019; torchvision/models/segmentation/lraspp.py",
    ),
)
"""All six of torchvision's segmentation networks."""
