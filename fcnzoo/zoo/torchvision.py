"""The networks of `torchvision.models.segmentation`: a dilated ResNet, FCNHead, aux FCNHead."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, Preprocess
from fcnzoo.labels import get_label_set
from fcnzoo.spec import ModelSpec

VOC = get_label_set("voc")

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
        description=f"torchvision's fcn_resnet{depth}: output stride 8, FCNHead, auxiliary FCNHead on layer3",
        reference="torchvision/models/segmentation/fcn.py",
    )
    for depth in (50, 101)
)
"""fcn_resnet50 and fcn_resnet101."""
