"""The small networks that the figures show, trained on CamVid in some minutes each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

import fcnzoo
from fcnzoo.data import CamVid, SegmentationDataset
from fcnzoo.images.preprocess import to_tensor
from fcnzoo.training import Recipe, train

STAGES = {
    "fcn32s": ("fcn32s", None, 6, ()),
    "fcn16s": ("fcn16s", "fcn32s", 3, ()),
    "fcn8s": ("fcn8s", "fcn16s", 3, ()),
    "deconv": ("fcn32s", "fcn32s", 3, ("model.head.upsampling=deconv",)),
}
"""Head, stage it starts from, epochs, changes: the paper's 32s, 16s, 8s, and the 32s with a learned deconvolution."""

CROP = 112
"""Side in pixels of the crops that the VGG-16 classifies; it sees them at twice the size, 224."""

HIDDEN = 256
"""Width of fc6 and fc7; the paper's 4096 would be learned by heart."""


def train_stages(camvid: Path, lite0: Path, work: Path, changes: Sequence[str] = ()) -> dict[str, Path]:
    """Train the stages that are not in `work` yet; return the folder of each one's best weights.

    Args:
        camvid: CamVid, as `fcnzoo.data.CamVid` reads it.
        lite0: ImageNet weights of timm's `tf_efficientnet_lite0`.
        work: Where runs are kept.
        changes: Fields of the recipe, as after `--set`.
    """
    folders = {}
    for name, (head, start, epochs, own) in STAGES.items():
        folders[name] = work / name / "best"
        if folders[name].is_dir():
            continue
        recipe = Recipe.load(
            "camvid_lite0",
            [
                f"model.name={head}",
                "model.backbone=timm/tf_efficientnet_lite0",
                f'model.pretrained_backbone="{lite0}"',
                f'model.init_from="{folders[start]}"' if start else "model.init_from=none",
                f'data.root="{camvid}"',
                f'run.out="{work / name}"',
                f"schedule.epochs={epochs}",
                f"run.eval_epochs={epochs}",
                "schedule.warmup_steps=20",
                "optim.ema=0.98",
                "augment.crop=[240,320]",
                "run.plots=false",
                "run.tensorboard=false",
                *own,
                *changes,
            ],
        )
        train(recipe)
    return folders


def sample_crops(data: SegmentationDataset, per_picture: int, side: int = CROP) -> tuple[Tensor, Tensor]:
    """Cut random squares out of a data set, each with the class that covers most of its middle.

    Returns:
        Crops (N, 3, side, side), uint8, and classes (N,). Squares whose middle is mostly void are left out.
    """
    draw = torch.Generator().manual_seed(0)
    crops, classes = [], []
    for index in range(len(data)):
        image, mask = data[index]
        for _ in range(per_picture):
            top, left = (int(torch.randint(0, length - side + 1, (), generator=draw)) for length in mask.shape)
            third = side // 3
            middle = mask[top + third : top + 2 * third, left + third : left + 2 * third]
            value = int(middle.flatten().mode().values)
            if value != data.label_set.ignore_index:
                crops.append(image[:, top : top + side, left : left + side])
                classes.append(value)
    return torch.stack(crops), torch.tensor(classes)


def vgg_classifier(features: Path | None, num_classes: int, hidden: int = HIDDEN) -> nn.Module:
    """Return torchvision's VGG-16 with fully connected layers of another width.

    Args:
        features: ImageNet weights of its convolutions, keys as in `vgg16().features`; `None`: random ones.
        num_classes: Classes.
        hidden: Width of fc6 and fc7.
    """
    network = torchvision.models.vgg16(weights=None, num_classes=num_classes)
    network.classifier[0], network.classifier[3] = nn.Linear(512 * 7 * 7, hidden), nn.Linear(hidden, hidden)
    network.classifier[6] = nn.Linear(hidden, num_classes)
    if features is not None:
        weights = {key.removeprefix("features."): value.float() for key, value in load_file(features).items()}
        network.features.load_state_dict(weights)
    return network


def train_classifier(network: nn.Module, crops: Tensor, classes: Tensor, epochs: int = 30) -> None:
    """Train the fully connected layers of a VGG-16 on crops; its convolutions stay as they are."""
    network.eval()
    with torch.no_grad():
        seen = torch.cat([network.avgpool(network.features(enlarge(part))).flatten(1) for part in crops.split(8)])
    layers = network.classifier.train()
    optimizer = torch.optim.AdamW(layers.parameters(), lr=3e-4, weight_decay=0.1)
    for _ in range(epochs):
        for part in torch.randperm(len(seen)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layers(seen[part]), classes[part]).backward()
            optimizer.step()
    network.eval()


def enlarge(image: Tensor) -> Tensor:
    """Return uint8 images (B, 3, H, W) as the VGG-16 sees them: twice as large, preprocessed as for ImageNet."""
    tensor = torch.cat([to_tensor(one, fcnzoo.config.Preprocess()) for one in image])
    return nn.functional.interpolate(tensor, scale_factor=2, mode="bilinear")


def camvid_split(camvid: Path, split: str) -> CamVid:
    """Return a split of CamVid."""
    return CamVid(camvid, split)
