"""A training loop of your own: `model(image, target)` is the loss. Plain PyTorch, no recipe, no trainer.

    python examples/training_loop.py my-data soil crop weed --out my-model

The data are pairs of the same name, `my-data/{train,val}/images/*.jpg` and `my-data/{train,val}/masks/*.png`; mask
values are the classes in the order given, 255 is ignored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import fcnzoo
from fcnzoo.data import SegmentationFolder, make_transform


def main(
    data: Path, classes: Sequence[str], out: Path, model: str, pretrained: bool, epochs: int, crop: int, lr: float
) -> None:
    """Train, measure after every epoch, save."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    labels = fcnzoo.LabelSet.from_names(classes)
    network = fcnzoo.create(model, label_set=labels, pretrained_backbone=pretrained).to(device)

    # Image and mask are changed together: scale, crop, flip, colors, and the network's own normalization.
    training = SegmentationFolder(data / "train", labels)
    training.transform = make_transform(network.preprocess, train=True, crop_size=(crop, crop))
    validation = SegmentationFolder(data / "val", labels)  # as it is: `evaluate` does what the network needs
    loader = DataLoader(training, batch_size=4, shuffle=True, drop_last=len(training) > 4)

    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, epochs * len(loader), power=0.9)
    for epoch in range(epochs):
        network.train()
        for image, target in loader:
            # Cross-entropy at the image's size, computed from low-resolution scores; the aux head's is added.
            loss = network(image.to(device), target.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        metrics = fcnzoo.evaluate(network, validation, progress=False).metrics
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, mean IoU {metrics.mean_iou:.3f}")
    fcnzoo.save(network, out)
    print(f"{out}: fcnzoo.load({str(out)!r}), or fcnzoo segment photo.jpg --model {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data")
    parser.add_argument("classes", nargs="+", help="names of the classes, in the order of the mask values")
    parser.add_argument("--out", type=Path, required=True, help="folder for the trained model")
    parser.add_argument("--model", default="fcn8s_mobilenetv3_large_100")
    parser.add_argument("--pretrained", action="store_true", help="start from ImageNet weights, which are downloaded")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--crop", type=int, default=384, help="side of the pictures trained on, in pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    main(**vars(parser.parse_args()))
