"""Fine-tune a network on your own classes: train by a recipe, evaluate, load the best weights.

    pip install "fcnzoo[train]"
    python examples/finetune.py my-data soil crop weed --out runs/mine

The data are pairs of the same name, `my-data/{train,val}/images/*.jpg` and `my-data/{train,val}/masks/*.png`; mask
values are the classes in the order given, 255 is ignored. The recipe `folder` starts from ImageNet weights of a small
network, which are downloaded. Any field of it can be changed: `--set schedule.epochs=20 --set optim.batch_size=4`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import fcnzoo
from fcnzoo.training import Recipe


def main(data: Path, classes: Sequence[str], out: Path, changes: Sequence[str]) -> None:
    """Train, then measure the best weights class by class."""
    recipe = Recipe.load("folder", changes)
    recipe = recipe.replace(
        data=recipe.data.replace(root=str(data), class_names=tuple(classes)),
        run=recipe.run.replace(out=str(out)),
    )
    # Data are checked whole before the first step; a run that was stopped goes on with `resume=True`.
    result = fcnzoo.train(recipe)
    print(f"best after epoch {result.epoch}: mean IoU {result.mean_iou:.3f}")

    # `best` is a folder like any other model's: for `load`, for `fcnzoo segment --model`, for `push_to_hub`.
    model = fcnzoo.load(out / "best")
    validation = fcnzoo.data.SegmentationFolder(data / "val", model.label_set)
    evaluation = fcnzoo.evaluate(model, validation, picture_grid=out / "validation.png")
    for what, iou, _ in evaluation.metrics.rows():  # a row per class, then the means
        print(f"  {what}: IoU {iou} %")
    print(f"photo, truth and prediction side by side: {out / 'validation.png'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data")
    parser.add_argument("classes", nargs="+", help="names of the classes, in the order of the mask values")
    parser.add_argument("--out", type=Path, required=True, help="folder for the run; new or empty")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a field of the recipe")
    main(**vars(parser.parse_args()))
