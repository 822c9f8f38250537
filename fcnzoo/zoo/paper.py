"""The networks of Long, Shelhamer & Darrell 2015, and d2l's."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, FCNConfig, Preprocess, SkipHeadConfig
from fcnzoo.labels import get_label_set
from fcnzoo.spec import ModelSpec

REFERENCE = "Long, Shelhamer & Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015"

CAFFE = Preprocess(
    mean=(104.00698793, 116.66876762, 122.67891434), std=(1.0, 1.0, 1.0), channel_order="bgr", value_range=255
)
"""Mean of ImageNet in BGR, 0–255: `infer.py` of the authors' repository."""

VOC = get_label_set("voc")

ENTRIES = (
    *(
        ModelSpec(
            name=f"fcn{stride}s_vgg16",
            config=FCNConfig(
                backbone=BackboneConfig("paper/vgg16", geometry="paper"),
                head=SkipHeadConfig(stride=stride),
                num_classes=21,
                label_set=VOC,
                preprocess=CAFFE,
            ),
            description=f"FCN-{stride}s of the paper: VGG-16 padded by 100, zero-initialised scores",
            reference=REFERENCE,
        )
        for stride in (32, 16, 8)
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
