"""The networks of `torchvision.models.segmentation`: a dilated ResNet, FCNHead, aux FCNHead."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, Preprocess
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights
from fcnzoo.labels import get_label_set
from fcnzoo.zoo.entries.mmseg import PLAIN

VOC = get_label_set("voc")

COCO = "COCO val2017 (VOC classes)"

PUBLISHED = {50: ("fcn_resnet50_coco-1167a1af", 0.605, 0.914), 101: ("fcn_resnet101_coco-7ecb50ca", 0.637, 0.919)}
"""File, mean IoU and pixel accuracy of `FCN_ResNet…_Weights.COCO_WITH_VOC_LABELS_V1`, by depth."""


def _weights(file: str, mean_iou: float, accuracy: float) -> Weights:
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


ENTRIES = tuple(
    ModelSpec(
        name=f"fcn_resnet{depth}",
        config=FCNConfig(
            # timm's ResNets have torchvision's keys and, dilated, its outputs to the bit.
            backbone=BackboneConfig(f"timm/resnet{depth}.tv_in1k", output_stride=8, size_multiple=1),
            head=DilatedHeadConfig(),
            aux_head=DilatedHeadConfig(),
            num_classes=21,
            label_set=VOC,
            # `resize_size=520` of torchvision's FCN weights.
            preprocess=Preprocess(resize=520),
        ),
        weights=(_weights(*PUBLISHED[depth]), *PLAIN[depth]),
        description=f"torchvision's fcn_resnet{depth}: output stride 8, FCNHead, auxiliary FCNHead on layer3",
        reference="torchvision/models/segmentation/fcn.py",
    )
    for depth in (50, 101)
)
"""fcn_resnet50 and fcn_resnet101."""
