"""A Lightning module around a network: training and validation steps in a few lines.

    pip install lightning
    python examples/lightning_module.py my-data soil crop weed --out my-model

The data are pairs of the same name, `my-data/{train,val}/images/*.jpg` and `my-data/{train,val}/masks/*.png`; mask
values are the classes in the order given, 255 is ignored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import fcnzoo
from fcnzoo.data import SegmentationFolder, make_transform


class Segmenter(lightning.LightningModule):
    """Trains a network; logs the loss of each step and the mean IoU of each validation."""

    def __init__(self, network: fcnzoo.FCN, lr: float) -> None:
        super().__init__()
        self.network, self.lr = network, lr
        self.matrix = fcnzoo.metrics.ConfusionMatrix(network.num_classes)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss: of the labels at the image's size, with the aux head's."""
        image, target = batch
        loss = self.network(image, target)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Count pixels by (truth, prediction), without logits."""
        image, target = batch
        scores = self.network.scores(image)
        self.matrix.merge(fcnzoo.ops.upsample_confusion(scores.main, target, scores.grid))

    def on_validation_epoch_end(self) -> None:
        """Log the mean IoU of all images together (under DDP, the mean over processes), and count anew."""
        self.log("mean_iou", self.matrix.compute().mean_iou, prog_bar=True, sync_dist=True)
        self.matrix = fcnzoo.metrics.ConfusionMatrix(self.network.num_classes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.network.parameters(), lr=self.lr)


def main(data: Path, classes: Sequence[str], out: Path, model: str, crop: int, lr: float, **trainer: Any) -> None:
    """Train with Lightning, save for fcnzoo."""
    labels = fcnzoo.LabelSet.from_names(classes)
    network = fcnzoo.create(model, label_set=labels)
    training = SegmentationFolder(data / "train", labels)
    training.transform = make_transform(network.preprocess, train=True, crop_size=(crop, crop))
    validation = SegmentationFolder(data / "val", labels)
    validation.transform = make_transform(network.preprocess, train=False)
    batches = DataLoader(training, batch_size=4, shuffle=True, drop_last=len(training) > 4)

    engine = lightning.Trainer(default_root_dir=out, log_every_n_steps=len(batches), **trainer)
    engine.fit(Segmenter(network, lr), batches, DataLoader(validation))  # one at a time: pictures may differ in size
    fcnzoo.save(network, out / "model")  # checkpoints are Lightning's; this folder is fcnzoo's
    print(f"{out / 'model'}: fcnzoo.load({str(out / 'model')!r})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data")
    parser.add_argument("classes", nargs="+", help="names of the classes, in the order of the mask values")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints, logs and the trained model")
    parser.add_argument("--model", default="fcn8s_mobilenetv3_large_100")
    parser.add_argument("--crop", type=int, default=384, help="side of the pictures trained on, in pixels")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--max-epochs", type=int, default=50)
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu, …")
    main(**vars(parser.parse_args()))
