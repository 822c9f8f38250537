"""Every benchmark against its bounds, in one command: prints all ratios, writes `docs/benchmarks.json` and a plot.

    python -m benchmarks [--rounds 5] [--only argmax,loss,…]

Twenty minutes on two idle cores. Peers: PyTorch's own composition, torchvision, segmentation_models_pytorch (which
must be installed). Training speed and the backbone matrix have commands of their own (`benchmarks.training`,
`benchmarks.coverage`).
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import argmax, cross_entropy, inference, loading, startup

DOCS = Path(__file__).parents[1] / "docs"


@dataclass(frozen=True)
class Ratio:
    """One comparison: how many times faster, or smaller, than the peer.

    Attributes:
        what: Ours, and the case.
        against: The peer.
        kind: `"time"` or `"memory"`.
        ratio: Peer divided by ours: above 1 is better.
        bound: The least that is promised.
    """

    what: str
    against: str
    kind: str
    ratio: float
    bound: float


def argmax_ratios(rounds: int) -> list[Ratio]:
    """Labels from scores, compiled and plain."""
    # K=21: at least 18 and 9 times faster, 4 and 2.5 without the compiled route; K=150: 15 and 9.
    bounds = {("compiled", "real"): 18, ("compiled", "random"): 9, ("plain", "real"): 4, ("plain", "random"): 2.5}
    many = {("compiled", "real"): 15, ("compiled", "random"): 9, ("plain", "real"): 1, ("plain", "random"): 1}
    found = []
    for row in argmax.measure(rounds)["rows"]:  # type: ignore[attr-defined]
        size = "×".join(map(str, row["size"]))
        case = f"upsample_argmax K={row['classes']} {size} stride {row['stride']}"
        for route in argmax.ROUTES:
            bound = (bounds if row["classes"] == 21 else many)[route, row["scores"]]
            name = f"{case}, {row['scores']} scores, {route}"
            found.append(Ratio(name, "F.interpolate, argmax", "time", row["ratios"][route], bound))
            if row["scores"] == "random":  # memory does not depend on the scores
                extra = row["extra_mib"]
                smaller = extra["reference"] / max(extra[route], 0.1)  # below the resolution of the measurement
                least = 20 if row["classes"] == 21 else 50 if route == "compiled" else 1
                found.append(Ratio(f"{case}, {route}", "F.interpolate, argmax", "memory", smaller, least))
    return found


def loss_ratios(rounds: int) -> list[Ratio]:
    """Loss and gradient."""
    found = []
    for name, case in cross_entropy.measure(rounds)["cases"].items():
        peer = "F.interpolate, F.cross_entropy"
        for way in case["faster"]:
            what = f"upsample_cross_entropy {name}, {'plain' if way == 'strips' else way}"
            found.append(Ratio(what, peer, "time", case["faster"][way], case["bounds"]["faster"]))
            found.append(Ratio(what, peer, "memory", case["memory"][way], case["bounds"]["memory"]))
    return found


def inference_ratios(rounds: int) -> list[Ratio]:
    """Image to labels, and fcn_resnet50."""
    results = inference.measure(rounds)
    inference.show(results)
    found = []
    for case, key, peer, bounds in (
        ("predict", "ratio to the fastest of SMP", "the fastest of SMP's FPN, Unet, Linknet", {"auto": 3}),
        ("resnet50", "ratio to torchvision", "torchvision", {"auto": 2.5, "float32": 1.4}),
    ):
        for name, ratio in results[case][key].items():
            bound = next((bound for word, bound in bounds.items() if f"optimize {word}" in name), 1.0)
            if name.startswith("fcnzoo"):
                found.append(Ratio(f"{case}: {name}", peer, "time", ratio, bound))
    return found


def startup_ratios(rounds: int) -> list[Ratio]:
    """Import and list."""
    ratio = startup.measure(rounds)["ratio"]
    return [Ratio("import fcnzoo, list_models()", "import segmentation_models_pytorch", "time", ratio, 30)]


def loading_ratios(_: int) -> list[Ratio]:
    """Load a saved fcn8s_vgg16."""
    found = loading.measure_all("fcn8s_vgg16")
    ours, theirs = found["load(folder)"], found["build, torch.load, load_state_dict"]
    ratio = theirs["seconds"] / ours["seconds"]
    return [Ratio("load fcn8s_vgg16 (537 MB)", "build, torch.load, load_state_dict", "time", ratio, 20)]


GROUPS: dict[str, Callable[[int], list[Ratio]]] = {
    "startup": startup_ratios,
    "loading": loading_ratios,
    "argmax": argmax_ratios,
    "loss": loss_ratios,
    "inference": inference_ratios,
}


def plot(ratios: list[Ratio], path: Path) -> None:
    """Draw how many times faster each case is, with its bound."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [one for one in ratios if one.kind == "time"]
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(shown) + 1), layout="constrained")
    places = range(len(shown))
    axes.barh(places, [one.ratio for one in shown], color="#3f7fbf")
    axes.plot([one.bound for one in shown], places, "|", color="black", markersize=11, markeredgewidth=2, label="bound")
    axes.set_yticks(places, [one.what for one in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xlabel("times faster than the peer")
    axes.legend(loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def plot_curve(points: list[dict[str, Any]], path: Path) -> None:
    """Draw how time and memory of labels grow with the pixels, for both numbers of classes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    names = {"reference": "F.interpolate, argmax", "compiled": "upsample_argmax", "plain": "upsample_argmax, plain"}
    units = {"milliseconds": "milliseconds", "extra_mib": "MiB besides the scores"}
    for axes, (unit, label) in zip(both, units.items(), strict=True):
        for color, (name, shown) in zip(("#888888", "#3f7fbf", "#c8553d"), names.items(), strict=True):
            for classes, line in ((21, "-"), (150, "--")):
                mine = [point for point in points if point["classes"] == classes]
                values = [max(point[unit][name], 0.05) for point in mine]
                pixels = [point["pixels"] / 1e6 for point in mine]
                axes.plot(pixels, values, line, marker=".", color=color, label=f"{shown}, K={classes}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("megapixels")
        axes.set_ylabel(label)
    both[0].legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(GROUPS), help="names, separated by commas")
    options = parser.parse_args()
    wanted = options.only.split(",")
    unknown = set(wanted) - set(GROUPS)
    if unknown:
        parser.error(f"--only takes {', '.join(GROUPS)}, not {', '.join(sorted(unknown))}")
    ratios: list[Ratio] = []
    for name in wanted:
        for one in GROUPS[name](options.rounds):
            mark = "" if one.ratio >= one.bound else "   BELOW"
            ratio = f"{one.kind:6} {one.ratio:8.1f}× (at least {one.bound:g})"
            print(f"{ratio}  {one.what}  against {one.against}{mark}", flush=True)
            ratios.append(one)
    if set(wanted) == set(GROUPS):
        machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "processor": platform.machine()}
        points = argmax.curve(options.rounds)
        table = {"machine": machine, "ratios": [asdict(one) for one in ratios], "curve": points}
        (DOCS / "benchmarks.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        plot(ratios, DOCS / "benchmarks.svg")
        plot_curve(points, DOCS / "benchmarks-curve.svg")


if __name__ == "__main__":
    main()
