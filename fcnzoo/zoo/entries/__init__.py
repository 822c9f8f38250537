"""The built-in entries, as data: one file per family."""

from fcnzoo.zoo.entries import deeplab, mmseg, paper, timm, torchvision

ENTRIES = (*paper.ENTRIES, *torchvision.ENTRIES, *deeplab.ENTRIES, *mmseg.ENTRIES, *timm.ENTRIES)
"""Every built-in `ModelSpec`."""

ALIASES = {
    "everyday": "deeplabv3_mobilenetv2_050.coco_voc",
    "street": "fcn8s_tf_efficientnet_lite0.camvid",
}
"""Short names of the models that are shipped in the wheel, each as `name.tag`."""

DEFAULT_MODEL: str | None = ALIASES["everyday"]
"""The model that serves where none is named."""
