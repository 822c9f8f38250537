"""Many classes in little memory: the loss and the labels from low-resolution scores of your own network.

    python examples/less_memory.py --classes 150 --size 512

At 1000 classes, logits of one picture of 1024 × 1024 take 4 GiB, and training makes several such tensors. Here they
never exist. This works for any network whose scores are upsampled bilinearly at the end, whoever built it: `Grid()` is
`F.interpolate(..., align_corners=False)`. Loss and labels are the same. Memory is measured on Linux, in a fresh process
for each way.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcnzoo
from fcnzoo.ops import upsample_argmax, upsample_cross_entropy


def plain(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return loss and labels as everybody computes them."""
    logits = F.interpolate(scores, target.shape[-2:], mode="bilinear", align_corners=False)  # (B, K, H, W)
    return F.cross_entropy(logits, target, ignore_index=255), logits.argmax(1)


def lean(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same from scores (B, K, h, w), without logits."""
    grid = fcnzoo.Grid()
    loss = upsample_cross_entropy(scores, target, grid, ignore_index=255)
    return loss, upsample_argmax(scores, grid, (target.shape[-2], target.shape[-1]))


def step(way: str, classes: int, size: int) -> tuple[float, int]:
    """Make one training step of a small network; return the loss and a checksum of the labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 32, 8, stride=8), nn.ReLU(), nn.Conv2d(32, classes, 1))  # your network
    target = torch.randint(classes, (1, size, size)).where(torch.rand(1, size, size) < 0.9, 255)
    loss, labels = (lean if way == "lean" else plain)(network(torch.randn(1, 3, size, size)), target)
    loss.backward()
    return loss.item(), int((labels.long() * torch.arange(size)).sum())


def status(name: str) -> int:
    """Return a figure in KiB that Linux has for this process."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def report(way: str, classes: int, size: int) -> None:
    """Print loss, checksum, and the MiB that one step adds to this process at its peak."""
    step(way, classes, 64)  # what is loaded or compiled on first use is not the step's
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    loss, labels = step(way, classes, size)
    print(loss, labels, (status("VmHWM") - before) / 1024)


def main(classes: int, size: int, measure: str | None) -> None:
    """Measure one way here, or both, each in a process of its own."""
    if measure:
        report(measure, classes, size)
        return
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("the peak is read from /proc, which only Linux has; the functions above run anywhere")
    for way in ("plain", "lean"):
        command = [sys.executable, __file__, "--classes", str(classes), "--size", str(size), "--measure", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        loss, labels, mib = output.split()
        print(f"{way:5}: loss {float(loss):.5f}, checksum of the labels {labels}, {float(mib):.1f} MiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=150)
    parser.add_argument("--size", type=int, default=512, help="height and width of the picture")
    parser.add_argument("--measure", choices=("plain", "lean"), help="one way, in this process")
    main(**vars(parser.parse_args()))
