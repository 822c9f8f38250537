"""DeepLab's network for phones, which comes with the package: everyday photographs, VOC's 21 classes."""

from __future__ import annotations

from fcnzoo.config import BackboneConfig, ContextHeadConfig, FCNConfig, Preprocess
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights
from fcnzoo.labels import get_label_set

TFLITE = "https://storage.googleapis.com/download.tensorflow.org/models/tflite/gpu/deeplabv3_257_mv_gpu.tflite"

EVERYDAY = ModelSpec(
    name="deeplabv3_mobilenetv2_050",
    config=FCNConfig(
        backbone=BackboneConfig("timm/mobilenetv2_050", output_stride=8, size_multiple=1),
        # `deeplab/model.py` of tensorflow/models: no ASPP, no decoder, keep_prob=0.9, bilinear with aligned corners.
        head=ContextHeadConfig(rates=(), num_convs=0, dropout=0.1, align_corners=True),
        num_classes=21,
        label_set=get_label_set("voc"),
        # x / 127.5 − 1. The side is that of the training crops and of `deeplab_demo.ipynb`, which enlarges small photos
        # too: 480×360 frames of CamVid val give a person IoU of 0.64 so and 0.60 as they are (cars 0.75 and 0.64).
        preprocess=Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), longer_side=513),
    ),
    weights=(
        Weights(
            tag="coco_voc",
            dataset="COCO and PASCAL VOC 2012",
            license="Apache-2.0",
            packaged="zoo/shipped/deeplabv3_mobilenetv2_050.coco_voc",
            sha256="86b94e60f5d2d2d2780abef451cd281c0f38ad9c75cdb86a619c605b5a54d54e",
            metrics=(
                Metric("label_agreement", 0.9997, "the published TensorFlow Lite file, 50 photographs at 257×257"),
            ),
            published=Publication(
                "deeplab", url=TFLITE, sha256="68a539782c2c6a72f8aac3724600124a85ed977162b44e84cbae5db717c933c6"
            ),
            note=(
                "Google's, converted. Google gives 70.2 % mean IoU on VOC 2012 val for its checkpoint of this form "
                "(mobilenetv2_dm05_coco_voc_trainaug, output stride 16); here it was not measured, and "
                "`fcnzoo evaluate everyday --data VOCdevkit --dataset voc` measures it"
            ),
        ),
    ),
    description="everyday: DeepLabV3 for phones, MobileNetV2 ×0.5 at output stride 8 with image-level pooling",
    reference="Chen et al. 2017, section 3.3; Sandler et al. 2018; tensorflow/models, research/deeplab",
)
"""The default model: small, permissively licensed, of people, animals, vehicles and furniture."""

ENTRIES = (EVERYDAY,)
"""deeplabv3_mobilenetv2_050."""
