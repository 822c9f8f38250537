"""From image to labels, side by side with segmentation_models_pytorch and torchvision.

    python -m benchmarks.inference [--rounds 5]      # needs segmentation-models-pytorch

`predict`: the shipped network (11 classes, tf_efficientnet_lite0) at 1024×2048, as it is and through
`fcnzoo.optimize`, beside SMP's Unet, FPN and Linknet on the same backbone, eager float32, `.argmax(1)`.
`resnet50`: `optimize(fcn_resnet50)` beside torchvision's eager `fcn_resnet50` at 480×480: logits both.
All take turns in one process, same threads, same image; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fcnzoo
from fcnzoo.images.load import load_image
from fcnzoo.images.preprocess import to_tensor

MODEL = "fcn8s_tf_efficientnet_lite0"
BACKBONE = "tu-tf_efficientnet_lite0"
PHOTO = Path(__file__).parent.parent / "examples" / "street.jpg"
SIZE = (1024, 2048)


def interleave(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call, all taking turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def photograph(size: tuple[int, int], preprocess: Any) -> Tensor:
    """Return the example photograph as a network sees it, (1, 3, H, W)."""
    return to_tensor(load_image(PHOTO).resize(size[::-1]), preprocess)


def measure_predict(rounds: int) -> dict[str, Any]:
    """Labels of a photograph of 1024×2048."""
    import segmentation_models_pytorch as smp

    model = fcnzoo.create(MODEL, pretrained=True).eval()
    image = photograph(SIZE, model.preprocess)
    fast = {dtype: fcnzoo.optimize(model, dtype=dtype, size=SIZE) for dtype in ("float32", "auto")}  # type: ignore[arg-type]
    peers = {
        name: getattr(smp, name)(BACKBONE, encoder_weights=None, classes=model.num_classes).eval()
        for name in ("FPN", "Unet", "Linknet")
    }
    calls: dict[str, Callable[[], object]] = {
        "fcnzoo predict": lambda: model.predict(image),
        "fcnzoo optimize float32": lambda: fast["float32"].predict(image),
        f"fcnzoo optimize auto ({fast['auto'].optimization.dtype})": lambda: fast["auto"].predict(image),
    }
    calls |= {f"SMP {name}": lambda peer=peer: peer(image).argmax(1) for name, peer in peers.items()}
    seconds = interleave(calls, rounds)
    fastest = min(value for name, value in seconds.items() if name.startswith("SMP"))
    plain = model.predict(image)
    same = {dtype: float((one.predict(image) == plain).float().mean()) for dtype, one in fast.items()}
    ratios = {name: fastest / value for name, value in seconds.items()}
    return {"seconds": seconds, "ratio to the fastest of SMP": ratios, "labels as the plain network's": same}


def measure_resnet(rounds: int) -> dict[str, Any]:
    """Logits of fcn_resnet50 at 480×480."""
    import torchvision

    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True).eval()
    model = fcnzoo.create("fcn_resnet50", aux=True).eval()
    image = photograph((480, 480), model.preprocess.replace(resize=None))
    fast = {dtype: fcnzoo.optimize(model, dtype=dtype, size=(480, 480)) for dtype in ("float32", "auto")}  # type: ignore[arg-type]
    calls: dict[str, Callable[[], object]] = {
        "torchvision fcn_resnet50": lambda: theirs(image)["out"],
        "fcnzoo fcn_resnet50": lambda: model(image),
        "fcnzoo optimize float32": lambda: fast["float32"](image),
        f"fcnzoo optimize auto ({fast['auto'].optimization.dtype})": lambda: fast["auto"](image),
    }
    seconds = interleave(calls, rounds)
    ratios = {name: seconds["torchvision fcn_resnet50"] / value for name, value in seconds.items()}
    return {"seconds": seconds, "ratio to torchvision": ratios}


def measure(rounds: int = 5) -> dict[str, Any]:
    """Return both tables, ready for JSON."""
    return {"threads": torch.get_num_threads(), "predict": measure_predict(rounds), "resnet50": measure_resnet(rounds)}


def show(found: dict[str, Any]) -> None:
    """Print what `measure` returned."""
    for case in ("predict", "resnet50"):
        ratios = next(value for key, value in found[case].items() if key.startswith("ratio"))
        print(f"{case}, {found['threads']} threads")
        for name, seconds in found[case]["seconds"].items():
            print(f"  {name:36} {seconds * 1e3:8.0f} ms   {ratios[name]:5.2f}×")
    print(f"  labels as the plain network's: {found['predict']['labels as the plain network' + chr(39) + 's']}")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    show(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
