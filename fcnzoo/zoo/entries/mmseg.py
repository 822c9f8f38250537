"""The FCNs of mmsegmentation: a dilated ResNet-V1c, FCNHead with two convolutions and `conv_cat`, aux FCNHead."""

from __future__ import annotations

import functools
from typing import NamedTuple

from fcnzoo.config import IMAGENET_255, BackboneConfig, DilatedHeadConfig, FCNConfig, LossConfig
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights
from fcnzoo.labels import get_label_set

ADDRESS = "https://download.openmmlab.com/mmsegmentation/v0.5/fcn"


class DataSet(NamedTuple):
    """How mmsegmentation trains on a data set.

    Attributes:
        name: The data set's, as we spell it.
        label_set: Its classes.
        crop: Of the training images, as file names spell it.
        split: What the figures were measured on.
        resize: Shorter side of the images at the test, where that is not the images' own.
    """

    name: str
    label_set: str
    crop: str
    split: str
    resize: int | None = None


DATA_SETS = {
    "cityscapes": DataSet("Cityscapes", "cityscapes", "512x1024", "Cityscapes val"),
    "ade20k": DataSet("ADE20K", "ade20k", "512x512", "ADE20K val", 512),
    "voc12aug": DataSet("VOC 2012 + SBD", "voc", "512x512", "VOC 2012 val", 512),
    "pascal_context": DataSet("PASCAL-Context", "pascal_context_60", "480x480", "PASCAL-Context val"),
    "pascal_context_59": DataSet("PASCAL-Context", "pascal_context_59", "480x480", "PASCAL-Context val, 59 classes"),
}
"""By the names mmsegmentation's files have for them. Sizes are of the test pipelines in its `configs/_base_/datasets`:
(2048, 512) with the ratio kept for ADE20K and VOC; Cityscapes as it is. PASCAL-Context's (520, 520) bounds the longer
side, which a `Preprocess` cannot say: its pictures, up to 500 pixels long, are taken as they are."""

TABLE: dict[int, tuple[tuple[str, str, str, float], ...]] = {
    50: (
        ("cityscapes", "80k", "20200606_113019-03aa804d", 73.61),
        ("cityscapes", "40k", "20200604_192608-efe53f0d", 72.25),
        ("ade20k", "160k", "20200615_100713-4edbc3b4", 36.10),
        ("ade20k", "80k", "20200614_144016-f8ac5082", 35.94),
        ("voc12aug", "20k", "20200617_010715-52dc5306", 67.08),
        ("voc12aug", "40k", "20200613_161222-5e2dbf40", 66.97),
    ),
    101: (
        ("cityscapes", "fp16_80k", "20200717_230921-fb13e883", 76.80),
        ("cityscapes", "40k", "20200604_181852-a883d3a1", 75.45),
        ("cityscapes", "80k", "20200606_113038-3fb937eb", 75.13),
        ("ade20k", "160k", "20200615_105816-fd192bd5", 39.91),
        ("ade20k", "80k", "20200615_014143-bc1809f7", 39.61),
        ("voc12aug", "20k", "20200617_010842-0bb4e798", 71.16),
        ("voc12aug", "40k", "20200613_161240-4c8bcefd", 69.91),
        ("pascal_context", "40k", "20210421_154757-b5e97937", 44.43),
        ("pascal_context", "80k", "20210421_163310-4711813f", 44.13),
        ("pascal_context_59", "80k", "20210416_110804-9a6f2c94", 49.35),
        ("pascal_context_59", "40k", "20210415_230724-8cf83682", 48.42),
    ),
}
PLAIN_TABLE = {
    50: (("cityscapes", "80k", "20201225_094221-82957416", 75.65),),
    101: (("cityscapes", "80k", "20201226_160213-4543858f", 77.37),),
}
"""Per depth: data set, schedule, date and digest of the file, mean IoU in percent (one scale, no flip), from
`configs/fcn/README.md` of mmsegmentation 1.2; plain are the networks that are called `r50b` and `r101b` there. Left
out: the 769×769 networks, which want corners aligned and a sliding window, and backbones that timm has not."""


@functools.cache
def _config(backbone: str, data: DataSet) -> FCNConfig:
    label_set = get_label_set(data.label_set)
    return FCNConfig(
        # Images run at their own size.
        backbone=BackboneConfig(backbone, output_stride=8, size_multiple=1),
        head=DilatedHeadConfig(hidden_channels=512, num_convs=2, concat_input=True),
        aux_head=DilatedHeadConfig(hidden_channels=256),
        num_classes=len(label_set),
        label_set=label_set,
        preprocess=IMAGENET_255.replace(resize=data.resize),
        loss=LossConfig(aux_weight=0.4),
    )


def _weights(backbone: str, data_set: str, schedule: str, file: str, mean_iou: float, *, plain: bool) -> Weights:
    data = DATA_SETS[data_set]
    steps = schedule.rpartition("_")[2]
    precision = "fp16_" if schedule != steps else ""
    depth = backbone.partition("resnet")[2].removesuffix("c")
    stem = f"fcn_r{depth}{'b' if plain else ''}-d8_{precision}{data.crop}_{steps}_{data_set}"
    return Weights(
        tag=f"{'mmseg_' if plain else ''}{data_set}_{schedule}",
        dataset=data.name,
        license="Apache-2.0",
        metrics=(Metric("mean_iou", mean_iou / 100, data.split),),
        published=Publication("mmseg", url=f"{ADDRESS}/{stem}/{stem}_{file}.pth", sha256=file.rpartition("-")[2]),
        config=_config(backbone, data),
    )


PLAIN = {
    depth: tuple(_weights(f"timm/resnet{depth}", *row, plain=True) for row in rows)
    for depth, rows in PLAIN_TABLE.items()
}
"""Weights on plain ResNets, by depth, for the entries of torchvision's networks."""

ENTRIES = tuple(
    ModelSpec(
        name=f"fcn_resnet{depth}c",
        # ResNet-V1c is timm's `c`: three 3×3 convolutions instead of one 7×7.
        config=_config(f"timm/resnet{depth}c", DATA_SETS["cityscapes"]),
        weights=tuple(_weights(f"timm/resnet{depth}c", *row, plain=False) for row in rows),
        description=f"mmsegmentation's fcn_r{depth}-d8: ResNet-{depth}-V1c at output stride 8, FCNHead, aux FCNHead",
        reference="mmsegmentation, configs/fcn",
    )
    for depth, rows in TABLE.items()
)
"""fcn_resnet50c and fcn_resnet101c."""
