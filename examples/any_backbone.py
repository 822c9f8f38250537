"""Any backbone under any head: what is taken from it, where, and what comes out.

    python examples/any_backbone.py
    python examples/any_backbone.py --heads fcn8s fcn --backbones timm/swin_s3_tiny_224 torchvision/mnasnet0_5

`fcnzoo.list_backbones()` lists all of timm and torchvision. A head scores features at low resolution (fcn32s, fcn16s
and fcn8s fuse several of them; fcn, deeplabv3 and lraspp see the last of a dilated network); logits or labels of the
image's size are made from these scores. Weights are random here: `pretrained_backbone=True` would load ImageNet's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

import fcnzoo

HEADS = ("fcn32s", "fcn16s", "fcn8s", "fcn", "deeplabv3", "lraspp")
BACKBONES = ("timm/resnet18", "timm/vit_tiny_patch16_224", "torchvision/shufflenet_v2_x0_5")


def main(heads: Sequence[str], backbones: Sequence[str], height: int, width: int) -> None:
    """Build every head on every backbone and send an image of any size through."""
    image = torch.randn(1, 3, height, width)
    for backbone in backbones:
        for head in heads:
            # "fcn8s_resnet18" would do for a name that timm or torchvision knows.
            model = fcnzoo.create(head, backbone=backbone, num_classes=5).eval()
            print(f"{head} on {backbone}: {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
            show_taps(model)
            with torch.inference_mode():
                scores = model.scores(image)  # all that the network computes
                labels = fcnzoo.ops.upsample_argmax(scores.main, scores.grid, (height, width))  # model.predict(image)
            print(f"  scores {tuple(scores.main.shape)} -> labels {tuple(labels.shape)}")


def show_taps(model: fcnzoo.FCN) -> None:
    """Print which feature serves which level of the head."""
    if model.config.head.kind == "skip":
        uses = [f"level {level}" for level in model.head.levels]
    else:
        stride = model.config.backbone.output_stride
        uses = [f"the head (output stride {stride}: {model.backbone.dilation})"] * len(model.head.taps)
    for use, tap in zip(uses, model.head.taps, strict=True):
        feature = model.backbone.features[tap]
        print(f"  {use}: {feature.tap}, {feature.channels} channels at 1/{feature.reduction}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES)
    parser.add_argument("--height", type=int, default=250)
    parser.add_argument("--width", type=int, default=333)
    main(**vars(parser.parse_args()))
