"""Time and memory of loading a saved network, against building it and loading a PyTorch checkpoint.

    python -m benchmarks.loading [NAME]

Default: `fcn8s_vgg16`, half a gigabyte; a temporary folder then takes 1.1 GB. Every figure is the best of three
fresh processes with a warm file cache; imports are not counted. Memory is what the process has at its peak beyond
what it had before loading, once every weight has been read (from /proc: Linux only). `run` adds one small forward
pass: mapped weights are paid for there, and oneDNN keeps a copy of fc6 in an order of its own meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import fcnzoo

START = """
import json, re, sys, time
from pathlib import Path
import torch
import fcnzoo
from fcnzoo.model.fcn import build
from fcnzoo.weights.load import load, read_config
torch.set_num_threads(1)
folder = sys.argv[1]
with torch.device("meta"):
    build(read_config(folder))  # what is imported when it is first used is imported now
def peak():
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
start = time.perf_counter()
"""
END = """
seconds = time.perf_counter() - start
for tensor in model.state_dict().values():
    tensor.sum()
memory = peak() - before
start = time.perf_counter() - seconds
with torch.inference_mode():
    model(torch.zeros(1, 3, 32, 32))
run = time.perf_counter() - start
running = peak() - before
print(json.dumps({"seconds": seconds, "run": run, "memory": memory, "running": running}))
"""
WAYS = {
    "load(folder)": "model = load(folder)",
    "load(folder, mmap=False)": "model = load(folder, mmap=False)",
    "build, torch.load, load_state_dict": """
model = build(read_config(folder)).eval()
model.load_state_dict(torch.load(f"{folder}/checkpoint.pth", weights_only=True))
""",
}


def measure(code: str, folder: Path) -> dict[str, float]:
    """Return the best of three fresh processes."""
    found = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", START + code + END, str(folder)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    return {key: min(one[key] for one in found) for key in found[0]}


def measure_all(name: str) -> dict[str, dict[str, float]]:
    """Return what `measure` finds for each way to load a network, and the size of its file in bytes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = fcnzoo.create(name)
        fcnzoo.save(model, folder)
        torch.save(model.state_dict(), folder / "checkpoint.pth")
        del model
        size = (folder / "model.safetensors").stat().st_size
        found = {way: measure(code, folder) for way, code in WAYS.items()}
    return found | {"file": {"bytes": size}}


def main(name: str) -> None:
    """Print a table, and whether the library's own bounds hold."""
    found = measure_all(name)
    size = found.pop("file")["bytes"]
    print(f"{name}, {size / 1e6:.0f} MB")
    for way, one in found.items():
        times = f"{one['seconds'] * 1e3:8.1f} ms  run {one['run'] * 1e3:8.1f} ms"
        print(f"{way:36} {times}  {one['memory'] / 1e6:7.0f} MB  running {one['running'] / 1e6:7.0f} MB")
    ours, theirs = found["load(folder)"], found["build, torch.load, load_state_dict"]
    print(f"time: 1/{theirs['seconds'] / ours['seconds']:.0f} of theirs (the bound is 1/20)")
    print(f"memory: file size + {(ours['memory'] - size) / 1e6:.0f} MB (the bound is + 300 MB)")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["fcn8s_vgg16"])
