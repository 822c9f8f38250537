"""`import fcnzoo` and a list of its models, beside `import segmentation_models_pytorch`.

    python -m benchmarks.startup [--rounds 7]

Each in a fresh process, taking turns, byte code compiled and files cached; the time of an empty Python is taken off
both. Medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CODE = {
    "nothing": "",
    "fcnzoo": "import fcnzoo; fcnzoo.list_models()",
    "segmentation_models_pytorch": "import segmentation_models_pytorch",
}


def measure(rounds: int = 7) -> dict[str, Any]:
    """Return median seconds beyond an empty Python's, and the ratio."""
    root = str(Path(__file__).parent.parent)
    seconds: dict[str, list[float]] = {name: [] for name in CODE}
    for turn in range(rounds + 1):
        for name, code in CODE.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=root)
            if turn:  # the first round compiles byte code
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    found = {name: medians[name] - medians["nothing"] for name in CODE if name != "nothing"}
    return {"seconds": found, "ratio": found["segmentation_models_pytorch"] / found["fcnzoo"]}


def show(found: dict[str, Any]) -> None:
    """Print what `measure` returned."""
    for name, seconds in found["seconds"].items():
        print(f"import {name:32} {seconds * 1e3:8.1f} ms")
    print(f"ratio {found['ratio']:.0f}×")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    show(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
