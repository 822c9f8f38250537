"""Time and memory of the training loss, against `F.cross_entropy(F.interpolate(scores))`, forward and backward.

    python -m benchmarks.cross_entropy

All run in one process, in turns; times are medians. `compiled` and `strips` are fcnzoo's routes with and without
numba. Memory is what a fresh process has at its peak beyond what it had before the first call (read from /proc:
Linux only). The last table shows time per pixel and memory as the image grows: the first stays level, the second
does not follow the number of logits.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fcnzoo.config import Grid
from fcnzoo.ops import compiling, upsample_cross_entropy

CASES = {
    "K=21, 4×480×480": {"shape": (4, 21, 480, 480), "faster": 2, "memory": 8},
    "K=150, 4×512×512": {"shape": (4, 150, 512, 512), "faster": 3, "memory": 20},
}
CURVE = [(1, 21, side, side) for side in (256, 512, 1024, 2048)]
STRIDE = 8

PEAK = """
import json, re, sys
from pathlib import Path
import torch
from benchmarks.cross_entropy import WAYS, example
torch.set_num_threads(2)
way, shape = sys.argv[1], json.loads(sys.argv[2])
small = example([1, 3, 16, 16])
WAYS[way](*small)  # what is imported and compiled at first use is not counted
scores, target = example(shape)
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def now():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = now()
WAYS[way](scores, target)
print(peak() - before)
"""


def example(shape: tuple[int, int, int, int] | list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random scores at stride 8; the target has no ignored pixels."""
    torch.manual_seed(0)
    images, classes, height, width = shape
    scores = torch.randn(images, classes, height // STRIDE, width // STRIDE).mul_(3).requires_grad_()
    return scores, torch.randint(0, classes, (images, height, width))


def plain(scores: torch.Tensor, target: torch.Tensor) -> None:
    """Run PyTorch's composition."""
    size = (target.shape[1], target.shape[2])
    loss = F.cross_entropy(F.interpolate(scores, size, mode="bilinear"), target, ignore_index=255)
    torch.autograd.grad(loss, scores)


def compiled(scores: torch.Tensor, target: torch.Tensor) -> None:
    """Run fcnzoo's loss."""
    torch.autograd.grad(upsample_cross_entropy(scores, target, Grid()), scores)


def strips(scores: torch.Tensor, target: torch.Tensor) -> None:
    """Run fcnzoo's loss without numba."""
    before = os.environ.get(compiling.SWITCH)
    os.environ[compiling.SWITCH] = "0"
    try:
        compiled(scores, target)
    finally:
        os.environ.pop(compiling.SWITCH)
        if before is not None:
            os.environ[compiling.SWITCH] = before


WAYS: dict[str, Callable[[torch.Tensor, torch.Tensor], None]] = {"plain": plain, "compiled": compiled, "strips": strips}
OURS = ("compiled", "strips")


def seconds(shape: tuple[int, int, int, int], rounds: int) -> dict[str, float]:
    """Return the median time of each way, called in turns."""
    scores, target = example(shape)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):
        for way, run in WAYS.items():
            start = time.perf_counter()
            run(scores, target)
            if turn:  # the first is warm-up
                found[way].append(time.perf_counter() - start)
    return {way: statistics.median(times) for way, times in found.items()}


def peak(way: str, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a fresh process needs beyond its inputs."""
    command = [sys.executable, "-c", PEAK, way, json.dumps(shape)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(rounds: int = 7) -> dict[str, Any]:
    """Return all results as plain numbers."""
    cases = {}
    for name, case in CASES.items():
        times = seconds(case["shape"], rounds)
        memory = {way: peak(way, case["shape"]) for way in WAYS}
        cases[name] = {
            "seconds": times,
            "bytes": memory,
            "faster": {way: times["plain"] / times[way] for way in OURS},
            "memory": {way: memory["plain"] / memory[way] for way in OURS},
            "bounds": {"faster": case["faster"], "memory": case["memory"]},
        }
    curve = []
    for shape in CURVE:
        pixels = shape[0] * shape[2] * shape[3]
        times = seconds(shape, max(1, rounds // 2))
        curve.append(
            {
                "shape": list(shape),
                "ns_per_pixel": {way: 1e9 * value / pixels for way, value in times.items()},
                "bytes": {way: peak(way, shape) for way in WAYS},
            }
        )
    return {"threads": torch.get_num_threads(), "load": os.getloadavg()[0], "cases": cases, "curve": curve}


def main() -> None:
    """Print the tables."""
    torch.set_num_threads(2)
    found = measure()
    print(f"{found['threads']} threads, load average {found['load']:.1f}")
    for name, case in found["cases"].items():
        times, memory, bounds = case["seconds"], case["bytes"], case["bounds"]
        print(f"{name}: plain {times['plain'] * 1e3:.0f} ms, {memory['plain'] / 1e6:.0f} MB")
        for way in OURS:
            print(
                f"  {way:9}{times[way] * 1e3:6.0f} ms: {case['faster'][way]:5.1f}× faster (the bound is "
                f"{bounds['faster']}×); {memory[way] / 1e6:6.1f} MB: 1/{case['memory'][way]:.0f} "
                f"(the bound is 1/{bounds['memory']})"
            )
    for point in found["curve"]:
        ways = (f"{way} {point['ns_per_pixel'][way]:6.0f} ns/pixel {point['bytes'][way] / 1e6:7.1f} MB" for way in WAYS)
        print(f"{point['shape']!s:22} {'   '.join(ways)}")


if __name__ == "__main__":
    main()
