"""`ops.upsample_argmax` beside `F.interpolate(scores).argmax(1)`: time, extra memory, and how time grows.

    python -m benchmarks.argmax [--rounds 7]

Scores are random, and real: the shipped model's on a photograph. It has 11 classes; to stand for 21 or 150, its
maps are repeated, each copy with a smooth field of its own added (noise of 5×9 values, drawn up bicubically, as
strong as the maps vary between classes, less 1 for every copy). So copies win in regions with borders as long as
those of real classes; the table tells which part of the cells has more than one winner at its corners.
The three take turns in one process; medians. Memory is the peak resident set of a process of its own, less what it
had before the call; the output is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.config import Grid
from fcnzoo.ops import upsample_argmax
from fcnzoo.ops.labels import compiled as compiled_route

MODEL = "fcn8s_tf_efficientnet_lite0"
PHOTO = Path(__file__).parent.parent / "examples" / "street.jpg"
CASES = (
    (21, (520, 520), 8),
    (21, (520, 520), 32),
    (21, (1024, 2048), 8),
    (21, (1024, 2048), 32),
    (150, (1024, 2048), 8),
)
ROUTES = ("compiled", "plain")
CURVE = ((256, 256), (512, 512), (1024, 1024), (2048, 2048))


@contextmanager
def route(name: str) -> Iterator[None]:
    """Choose the compiled or the plain route."""
    before = os.environ.get(compiled_route.SWITCH)
    os.environ[compiled_route.SWITCH] = "0" if name == "plain" else "1"
    try:
        yield
    finally:
        os.environ.pop(compiled_route.SWITCH)
        if before is not None:
            os.environ[compiled_route.SWITCH] = before


def reference(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """What everybody writes."""
    return F.interpolate(scores, size=size, mode="bilinear").argmax(1)


def ours(name: str) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    """Return one of our routes."""

    def label(scores: Tensor, size: tuple[int, int]) -> Tensor:
        with route(name):
            return upsample_argmax(scores, Grid(), size)

    return label


def real_scores(classes: int, cells: tuple[int, int], photo: Path = PHOTO) -> Tensor:
    """Scores (1, K, h, w) of the shipped model, stretched to more classes as told at the top."""
    import fcnzoo
    from fcnzoo.images.load import load_image
    from fcnzoo.images.preprocess import to_tensor

    model = fcnzoo.create(MODEL, pretrained=True).eval()
    with torch.inference_mode():
        main = model.scores(to_tensor(load_image(photo), model.preprocess)).main
    main = F.interpolate(main, cells, mode="bilinear", antialias=True)
    generator = torch.Generator().manual_seed(0)
    copies = []
    for copy in range(-(-classes // main.shape[1])):
        field = torch.randn(1, main.shape[1], 5, 9, generator=generator)
        field = F.interpolate(field, cells, mode="bicubic") * main.std(1).mean()
        copies.append(main + (field - 1) * (copy > 0))
    return torch.cat(copies, 1)[:, :classes].clone()


def calls(scores: Tensor, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """All that take turns."""
    every = {"reference": reference, **{name: ours(name) for name in ROUTES}}
    return {name: partial(label, scores, size) for name, label in every.items()}


def make_scores(kind: str, classes: int, size: tuple[int, int], stride: int) -> Tensor:
    """Scores of one row of the table."""
    cells = (-(-size[0] // stride), -(-size[1] // stride))
    if kind == "real":
        return real_scores(classes, cells)
    return torch.randn(1, classes, *cells, generator=torch.Generator().manual_seed(0))


def mixed_cells(scores: Tensor) -> float:
    """Share of the cells whose four corners do not have one winner."""
    winner = scores.argmax(1)
    a = winner[:, :-1, :-1]
    same = (a == winner[:, 1:, :-1]) & (a == winner[:, :-1, 1:]) & (a == winner[:, 1:, 1:])
    return 1 - same.float().mean().item()


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each call; they take turns, and the first turn warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def extra_memory(name: str, classes: int, size: tuple[int, int], stride: int) -> float:
    """Peak MiB that one call adds to a process that has made a small call before."""
    code = (
        "import re, pathlib, torch\n"
        "from benchmarks import argmax\n"
        f"call = argmax.reference if {name!r} == 'reference' else argmax.ours({name!r})\n"
        f"scores = argmax.make_scores('random', {classes}, {size}, {stride})\n"
        f"call(scores[..., :8, :8].clone(), (64, 64))\n"
        # Not ru_maxrss, which begins with the peak of the process that started this one.
        "def status(name):\n"
        "    return int(re.search(name + r':\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])\n"
        "pathlib.Path('/proc/self/clear_refs').write_text('5')\n"  # the peak begins anew
        "before = status('VmRSS')\n"
        f"call(scores, {size})\n"
        "print(status('VmHWM') - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def measure(rounds: int = 7, *, memory: bool = True) -> dict[str, object]:
    """Measure everything; what comes back can be written as JSON."""
    rows = []
    for classes, size, stride in CASES:
        used = {name: extra_memory(name, classes, size, stride) for name in ("reference", *ROUTES)} if memory else None
        for kind in ("real", "random"):
            scores = make_scores(kind, classes, size, stride)
            times = medians(calls(scores, size), rounds)
            ratios = {name: times["reference"] / times[name] for name in ROUTES}
            row = {"classes": classes, "size": size, "stride": stride, "scores": kind, "mixed": mixed_cells(scores)}
            rows.append({**row, "milliseconds": times, "ratios": ratios, "extra_mib": used})
    return {"threads": torch.get_num_threads(), "rows": rows, "curve": curve(rounds)}


def curve(rounds: int = 7) -> list[dict[str, object]]:
    """Measure how time and memory grow with the pixels and with the classes: stride 8, random scores."""
    points: list[dict[str, object]] = []
    for classes in (21, 150):
        for size in CURVE:
            scores = make_scores("random", classes, size, 8)
            times = medians(calls(scores, size), rounds)
            memory = {name: extra_memory(name, classes, size, 8) for name in ("reference", *ROUTES)}
            pixels = size[0] * size[1]
            points.append({"classes": classes, "pixels": pixels, "milliseconds": times, "extra_mib": memory})
    return points


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results here too")
    options = parser.parse_args()
    results = measure(options.rounds)
    print(f"{results['threads']} threads; times in ms, memory in MiB")
    print(
        "   K       size stride scores  mixed | reference compiled  ratio    plain  ratio | memory:  ref compiled plain"
    )
    for row in results["rows"]:  # type: ignore[attr-defined]
        t, r, m = row["milliseconds"], row["ratios"], row["extra_mib"]
        size = "×".join(map(str, row["size"]))
        print(
            f"{row['classes']:4} {size:>10} {row['stride']:6} {row['scores']:6} {row['mixed']:6.1%} | "
            f"{t['reference']:9.1f} {t['compiled']:8.2f} {r['compiled']:6.1f} {t['plain']:8.2f} {r['plain']:6.1f} | "
            f"{m['reference']:12.1f} {m['compiled']:8.1f} {m['plain']:5.1f}"
        )
    names = ("reference", *ROUTES)
    print("\n   K    pixels reference compiled  plain (ns per pixel) | reference compiled  plain (MiB)")
    for point in results["curve"]:  # type: ignore[attr-defined]
        times = (f"{1e6 * point['milliseconds'][name] / point['pixels']:8.2f}" for name in names)
        print(
            f"{point['classes']:4} {point['pixels']:9}", *times, *(f"{point['extra_mib'][name]:8.1f}" for name in names)
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
