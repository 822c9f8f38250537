"""The networks of Long, Shelhamer & Darrell 2015, and their training in three stages: FCN-32s, then 16s, then 8s.

    python examples/paper_2015.py                                     # what the three networks are
    python examples/paper_2015.py --voc VOCdevkit --out runs/paper    # train them (days on a GPU)

Each stage starts from the best weights of the one before; the new score layer starts at zero, so that nothing is lost.
The recipe `paper_voc` is the authors' solver: SGD with momentum 0.99, one picture per step, and a learning rate a
hundred times lower for each finer stage. It starts from timm's ImageNet VGG-16, which is downloaded. For Caffe's own
VGG-16 give a file of it: `--set model.pretrained_backbone=vgg16.safetensors` with the keys `conv1_1.weight` to
`fc7.bias`; the preprocessing then stays Caffe's. `--set schedule.steps=…` and the like change the recipe.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import fcnzoo
from fcnzoo.training import Recipe, train

STAGES = (("fcn32s_vgg16", 1.9e-5), ("fcn16s_vgg16", 1.9e-7), ("fcn8s_vgg16", 1.9e-9))
"""Learning rates of the authors (1e-10, 1e-12, 1e-14) times 500 × 375 pixels, since our loss is a mean over pixels."""


def describe(name: str) -> None:
    """Print a network's size, geometry and preprocessing; nothing is computed or stored."""
    model = fcnzoo.create(name, device="meta")
    count = sum(parameter.numel() for parameter in model.parameters())
    scores = model.scores(torch.zeros(1, 3, 375, 500, device="meta")).main
    # The image is padded by 100: its first pixel lies inside the scores, where the paper crops.
    crop = model.grid.offset + model.grid.stride / 2
    print(f"{name}: {count:,} parameters, scores {tuple(scores.shape[1:])} of a picture of 375 × 500")
    print(f"  upsampled {model.grid.stride:g} times, cropped by {crop:g} pixels, zeros outside the scores")
    print(f"  sees {model.preprocess.channel_order.upper()}, 0–255, minus {model.preprocess.mean}")


def main(voc: Path | None, out: Path, changes: Sequence[str]) -> None:
    """Describe the networks; train them, one from the other, if there are data."""
    for name, _ in STAGES:
        describe(name)
    if voc is None:
        return
    before = None
    for name, lr in STAGES:
        recipe = Recipe.load("paper_voc", changes)
        model = recipe.model.replace(name=name)
        if before is not None:  # weights and preprocessing come from there
            model = model.replace(init_from=str(before), pretrained_backbone=False)
        recipe = recipe.replace(
            model=model,
            data=recipe.data.replace(root=str(voc)),
            optim=recipe.optim.replace(lr=lr),
            run=recipe.run.replace(out=str(out / name)),
        )
        result = train(recipe)
        before = out / name / "best"
        print(f"{name}: mean IoU {result.mean_iou:.4f}, in {before}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voc", type=Path, help="folder of VOCdevkit")
    parser.add_argument("--out", type=Path, default=Path("runs/paper"), help="folder for the three runs")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a field of the recipe")
    main(**vars(parser.parse_args()))
