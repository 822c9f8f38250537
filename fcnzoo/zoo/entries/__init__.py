"""The built-in entries, as data: one file per family."""

from fcnzoo.zoo.entries import mmseg, paper, timm, torchvision

ENTRIES = (*paper.ENTRIES, *torchvision.ENTRIES, *mmseg.ENTRIES, *timm.ENTRIES)
"""Every built-in `ModelSpec`."""

DEFAULT_MODEL: str | None = "fcn8s_tf_efficientnet_lite0.camvid"
"""The model that is shipped in the wheel, as `name.tag`."""
