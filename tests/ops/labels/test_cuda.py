"""The Triton kernel of `ops.upsample_argmax`: its numbers, in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

SCRIPT = """
import torch
from fcnzoo.config import Grid
from fcnzoo.ops import label_dtype, upsample
from fcnzoo.ops.labels import cuda as triton_argmax
torch.manual_seed(0)
grids = (Grid(), Grid(align_corners=True), Grid(stride=4, offset=6, border="zeros"))
cases = (grids[0], 3, (3, 130)), (grids[1], 3, (2, 9)), (grids[2], 3, (5, 9)), (grids[0], 300, (1, 5))
for grid, classes, size in cases:
    scores = torch.randn(1, classes, 3, 4).to(memory_format=torch.channels_last)
    out = torch.empty(1, *size, dtype=label_dtype(classes))
    assert triton_argmax.label(scores, grid, out)
    assert torch.equal(out.long(), upsample(scores.double(), grid, size).argmax(1)), grid
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernel_finds_the_argmax_of_the_logits() -> None:
    """Interpreted on the CPU, the kernel gives the labels of the upsampled scores in float64."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
