"""Labels and the training loss on a GPU, against eager PyTorch in the same dtype: time and peak memory.

    python -m benchmarks.gpu [--rounds 20] [--json results.json]

Both sides take turns; times are medians between CUDA events, after a first turn that warms up (and compiles). Memory
is the peak that a call allocates beyond what was there before it, output counted. Without a GPU it says so and exits
with code 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.config import Grid
from fcnzoo.ops import upsample_argmax, upsample_cross_entropy

CLASSES, STRIDE = 150, 8
SIZES = ((8, 512, 512), (1, 1024, 2048))
DTYPES = (torch.float32, torch.bfloat16)


def eager_labels(scores: Tensor, target: Tensor) -> None:
    """Upsample, then argmax."""
    F.interpolate(scores, target.shape[1:], mode="bilinear").argmax(1)


def labels(scores: Tensor, target: Tensor) -> None:
    """Find labels without logits."""
    upsample_argmax(scores, Grid(), (target.shape[1], target.shape[2]))


def eager_loss(scores: Tensor, target: Tensor) -> None:
    """Upsample, then cross-entropy, forward and backward."""
    loss = F.cross_entropy(F.interpolate(scores, target.shape[1:], mode="bilinear"), target, ignore_index=255)
    torch.autograd.grad(loss, scores)


def loss(scores: Tensor, target: Tensor) -> None:
    """Find loss and gradient without logits."""
    torch.autograd.grad(upsample_cross_entropy(scores, target, Grid()), scores)


PAIRS = {"upsample_argmax": (eager_labels, labels), "upsample_cross_entropy": (eager_loss, loss)}


def milliseconds(call: Callable[[], None]) -> float:
    """Time one call on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def peak(call: Callable[[], None]) -> int:
    """Bytes that one call allocates at its peak."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return one row for every operation, size and dtype."""
    rows = []
    for batch, height, width in SIZES:
        for dtype in DTYPES:
            torch.manual_seed(0)
            scores = torch.randn(batch, CLASSES, height // STRIDE, width // STRIDE, device="cuda")
            scores = scores.mul_(3).to(dtype).requires_grad_()
            target = torch.randint(0, CLASSES, (batch, height, width), device="cuda")
            for name, pair in PAIRS.items():
                eager, ours = (partial(call, scores, target) for call in pair)
                times: tuple[list[float], list[float]] = ([], [])
                for turn in range(rounds + 1):
                    for call, found in zip((eager, ours), times, strict=True):
                        spent = milliseconds(call)
                        if turn:
                            found.append(spent)
                rows.append(
                    {
                        "what": name,
                        "size": [batch, CLASSES, height, width],
                        "dtype": str(dtype).removeprefix("torch."),
                        "milliseconds": [statistics.median(found) for found in times],
                        "bytes": [peak(eager), peak(ours)],
                    }
                )
    return rows


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing was measured", file=sys.stderr)
        return 2
    rows = measure(options.rounds)
    print(torch.cuda.get_device_name())
    for row in rows:
        (eager, ours), (much, little) = row["milliseconds"], row["bytes"]
        size = "×".join(map(str, row["size"]))
        print(
            f"{row['what']:24}{size:>16} {row['dtype']:9} eager {eager:8.2f} ms {much / 2**20:8.0f} MiB   "
            f"ours {ours:8.2f} ms {little / 2**20:7.1f} MiB   {eager / ours:5.1f}× faster, "
            f"1/{much / max(little, 1):.0f} of the memory (the bounds are 3× and 1/20)"
        )
    if options.json:
        options.json.write_text(json.dumps({"device": torch.cuda.get_device_name(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
