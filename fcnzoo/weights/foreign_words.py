"""What other libraries call the arguments of `create`."""

# The one place outside `backbones/` and `weights/converters/` for words of other libraries: they name no layer here,
# they are only answered.
FOREIGN_WORDS = {
    "in_chans": "in_channels=",
    "classes": "num_classes=, or label_set= for their names",
    "num_labels": "num_classes=, or label_set= for their names",
    "labels": "label_set=",
    "id2label": "label_set=",
    "class_names": "label_set=",
    "encoder_name": "backbone=, with a bare head: create('fcn8s', backbone='timm/…')",
    "encoder": "backbone=, with a bare head: create('fcn8s', backbone='timm/…')",
    "encoder_weights": "pretrained_backbone=True for ImageNet weights of the backbone, pretrained=True for the whole",
    "encoder_depth": "the head's name: fcn32s, fcn16s and fcn8s say how fine the finest feature is",
    "encoder_output_stride": "output_stride=",
    "replace_stride_with_dilation": "output_stride=",
    "weights": "pretrained=True; a tag in the name says which: 'fcn_resnet50.coco_voc'",
    "weights_backbone": "pretrained_backbone=True, or the path of a .safetensors file",
    "backbone_weights": "pretrained_backbone=True, or the path of a .safetensors file",
    "checkpoint_path": "fcnzoo.load(folder) for a saved network, fcnzoo.convert for other libraries' files",
    "aux_loss": "aux=True",
    "aux_params": "aux=True",
    "drop_rate": "head={'dropout': …}",
    "dropout": "head={'dropout': …}",
    "features_only": "model.features(image), which every network has",
    "out_indices": "model.features(image), which gives all of them",
    "img_size": "no argument: networks take images of any size",
    "activation": "softmax on the logits, or model.predict(image) for labels",
    "progress": "no argument: downloads go to the log",
}
"""What timm, torchvision, segmentation_models_pytorch and transformers call the arguments of `create`, and what does
the same here."""
