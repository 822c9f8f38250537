"""Heads on every installed backbone, at sizes nobody chose for them: the matrix behind `list_backbones(head=…)`.

    python -m benchmarks.coverage [--only PATTERN] [--jobs 2] [--fresh]      # all names, meta device: half an hour
    python -m benchmarks.coverage --real                                     # then: real forwards of a sample

The first builds each network twice (as it is, and at output stride 8), puts four heads on it (the others ask for no
more: `AS_BUILDABLE`) and runs them on the meta device at 250×333 and 224×224. The second runs the smallest member of
every timm module and torchvision family in earnest, and checks numbers: finite, the gradient reaches the first layer, a
batch of 2 is two batches of 1, the bottom-right corner counts, 1 and 4 channels.

Rows are kept as they come (`benchmarks/coverage.jsonl`, not in the repository): a run that was stopped goes on. At
the end `docs/coverage.json` (for the docs' table) and `fcnzoo/zoo/heads.json` (for the registry) are written from them.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import json
import math
import multiprocessing
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn

import fcnzoo
from fcnzoo.backbones import Backbone, build_backbone
from fcnzoo.config import BackboneConfig, FCNConfig
from fcnzoo.model.fcn import FCN
from fcnzoo.model.heads import DilatedHead, SkipHead, build_head
from fcnzoo.zoo.catalog import AS_BUILDABLE
from fcnzoo.zoo.heads import HEADS, OUTPUT_STRIDES, head_config

ROWS = Path(__file__).parent / "coverage.jsonl"
TABLE = Path(__file__).parents[1] / "docs" / "coverage.json"
HEADS_TABLE = Path(fcnzoo.__file__).parent / "zoo" / "heads.json"
SIZES = ((250, 333), (224, 224))
CLASSES = 3
TRIED = tuple(head for head in HEADS if head not in AS_BUILDABLE)
LARGEST_REAL = 700e6
"""Parameters of the largest network that `--real` runs: 2.8 GB of weights, and as much of gradients."""


class Remembering(nn.Module):
    """A backbone that computes the features of each image size once, for all the heads that ask."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.found: dict[torch.Size, list[Tensor]] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("backbone"), name)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the backbone's features."""
        if image.shape not in self.found:
            self.found[image.shape] = self.backbone(image)
        return self.found[image.shape]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` after so many seconds."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"not done in {seconds} s")

    signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def family(name: str) -> str:
    """Return timm's module, or torchvision's, that defines a network."""
    source, _, architecture = name.partition("/")
    if source == "timm":
        from timm.models import model_entrypoint

        return f"timm/{model_entrypoint(architecture).__module__.rpartition('.')[2]}"
    if source == "torchvision":
        from torchvision.models import get_model_builder

        return f"torchvision/{get_model_builder(architecture).__module__.rpartition('.')[2]}"
    return name


def license_of(name: str) -> str | None:
    """Return the license of the default weights, where the provider's code states one."""
    source, _, architecture = name.partition("/")
    if source == "timm":
        from timm.models import get_pretrained_cfg

        found = get_pretrained_cfg(architecture)
        return getattr(found, "license", None)
    if source == "torchvision":
        from torchvision.models import get_model_weights

        default: Any = get_model_weights(architecture).DEFAULT
        return default.meta.get("license")
    return None


def try_heads(name: str, limit: int) -> dict[str, Any]:
    """Build and run the four heads on a backbone, on the meta device; return its row."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "family": family(name), "license": license_of(name), "heads": {}}
    for output_stride in (None, 8):
        heads = [head for head in TRIED if OUTPUT_STRIDES.get(head) == output_stride]
        if name.startswith("paper/") and output_stride is not None:
            continue
        try:
            with time_limit(limit), torch.device("meta"):
                backbone = build_backbone(BackboneConfig(name, output_stride=output_stride))
        except Exception as error:  # whatever it is belongs in the table
            row["heads"] |= dict.fromkeys(heads, reason(error))
            continue
        describe(row, backbone, output_stride)
        remembering = Remembering(backbone).eval()
        for head in heads:
            try:
                with time_limit(limit):
                    run_head(name, head, remembering)
                row["heads"][head] = "ok"
            except Exception as error:
                row["heads"][head] = reason(error)
    return row | {"seconds": round(time.perf_counter() - start, 2)}


def describe(row: dict[str, Any], backbone: Backbone, output_stride: int | None) -> None:
    """Write into a row what the docs say of a backbone."""
    if output_stride is None:
        head = build_head(HEADS["fcn8s"], backbone.features, CLASSES, row["name"])
        levels = dict(zip(head.levels, head.taps, strict=True)) if isinstance(head, SkipHead) else {}
        row["taps"] = {str(level): backbone.features[tap].to_dict() for level, tap in levels.items()}
        for tap in row["taps"].values():
            del tap["grid"]
        row["parameters"] = sum(parameter.numel() for parameter in backbone.parameters())
        row["multiple"], row["fixed_size"], row["note"] = backbone.size_multiple, backbone.fixed_size, backbone.note
    else:
        row["dilation"] = backbone.dilation
        coarsest = max(info.reduction for info in backbone.features)
        if coarsest > output_stride:
            row["dilation"] = f"stays at {coarsest}"


def run_head(name: str, head: str, backbone: Any) -> None:
    """Run one head at both sizes on the meta device, and check the size of what comes out."""
    config = head_config(head, name).replace(num_classes=CLASSES)
    model = assemble(config, backbone).to("meta").eval()
    for size in SIZES:
        with torch.no_grad():
            logits = model(torch.empty(1, 3, *size, device="meta"))
            if config.aux_head is not None:
                aux = model.scores(torch.empty(1, 3, *size, device="meta"), aux=True).aux
                if aux is None or aux.shape[:2] != (1, CLASSES):
                    raise RuntimeError("the aux head gives no scores")
        if tuple(logits.shape) != (1, CLASSES, *size):
            raise RuntimeError(f"logits are {tuple(logits.shape)} at {size}")


def assemble(config: FCNConfig, backbone: Any) -> FCN:
    """Put a head on a backbone that is built already."""
    name, features = config.backbone.name, backbone.features
    with torch.device("meta"):
        head = build_head(config.head, features, CLASSES, name)
        aux = None
        if config.aux_head is not None:
            aux = DilatedHead(config.aux_head, features, CLASSES, name, depth=-2)
    return FCN(config, backbone, head, aux)


def reason(error: BaseException) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split()) or "no text"
    return f"{type(error).__name__}: {text[:300]}"


def check_numbers(name: str, limit: int) -> dict[str, Any]:
    """Run a network in earnest: FCN-8s at 250×333, and the dilated head's backbone; return what held."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    start = time.perf_counter()
    row: dict[str, Any] = {"name": name, "real": {}}
    try:
        with time_limit(limit):
            for channels in (3, 1, 4):
                row["real"][f"channels {channels}"] = real_forward(name, channels)
    except Exception as error:
        row["real"]["error"] = reason(error)
    return row | {"real_seconds": round(time.perf_counter() - start, 2)}


def real_forward(name: str, channels: int) -> dict[str, bool]:
    """Return whether numbers are finite, batches independent, borders counted, and gradients whole."""
    size = SIZES[0]
    backbone = build_backbone(BackboneConfig(name, in_channels=channels)).eval()
    image = torch.randn(2, channels, *size)
    with torch.no_grad():
        features = backbone_features(backbone, image)
        found = {"finite": all(bool(feature.isfinite().all()) for feature in features)}
        changed = image.clone()
        changed[..., -8:, -8:] += 3
        found["border"] = any(
            not torch.equal(a, b) for a, b in zip(features, backbone_features(backbone, changed), strict=True)
        )
        if channels == 3:
            single = backbone_features(backbone, image[1:])
            found["batch"] = all(
                torch.allclose(a[1:], b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
                for a, b in zip(features, single, strict=True)
            )
    if channels == 3:
        first = next(p for p in backbone.parameters() if p.ndim >= 2)
        sum(feature.float().square().mean() for feature in backbone_features(backbone, image[:1])).backward()  # type: ignore[union-attr]
        found["gradient"] = first.grad is not None and bool(first.grad.abs().sum() > 0)
    return found


def backbone_features(backbone: Backbone, image: Tensor) -> list[Tensor]:
    """Return the features that a model would see: the image padded or resized as the backbone asks."""
    config = FCNConfig(backbone.config, HEADS["fcn8s"], num_classes=CLASSES)
    model = FCN(config, backbone, build_head(config.head, backbone.features, CLASSES, backbone.config.name))
    return backbone(model._fit(image))


def read_rows() -> dict[str, dict[str, Any]]:
    """Return the rows of earlier runs, by name; a later row adds to an earlier one."""
    rows: dict[str, dict[str, Any]] = {}
    if ROWS.is_file():
        for line in ROWS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["name"]] = rows.get(row["name"], {}) | row
    return rows


def sample(rows: dict[str, dict[str, Any]], only: str) -> list[str]:
    """Return the smallest network of every family that runs."""
    families: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, row in rows.items():
        if row.get("parameters") and fnmatch.fnmatchcase(name, only) and row["parameters"] <= LARGEST_REAL:
            families[row["family"]].append((row["parameters"], name))
    return sorted(min(members)[1] for members in families.values())


def work(names: list[str], task: Callable[[str, int], dict[str, Any]], jobs: int, limit: int) -> None:
    """Do a task for every name in parallel, and keep each row as it comes."""
    # A fresh process every now and then: timm and torch keep caches of what they have built. (Not a
    # ProcessPoolExecutor: in Python 3.11 it hangs when a worker has done its share.)
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, maxtasksperchild=60) as pool, ROWS.open("a", encoding="utf-8") as file:
        results = pool.imap_unordered(functools.partial(task, limit=limit), names)
        for row in track(results, total=len(names), disable=not sys.stderr.isatty()):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


def write_tables(rows: dict[str, dict[str, Any]]) -> None:
    """Write the docs' and the registry's tables."""
    import timm
    import torchvision

    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    names = sorted(rows)
    table = {"versions": versions, "sizes": SIZES, "rows": [rows[name] for name in names]}
    TABLE.write_text(json.dumps(table, indent=None, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[" ".join(head for head in TRIED if rows[name]["heads"].get(head) == "ok")].append(name)
    heads = {"versions": versions, "heads": dict(sorted(groups.items()))}
    HEADS_TABLE.write_text(json.dumps(heads, indent=1) + "\n", encoding="utf-8")


def print_counts(rows: dict[str, dict[str, Any]]) -> None:
    """Print how many networks each head runs on, how strides are reached, and what failed."""
    for source in ("timm", "torchvision"):
        mine = [row for name, row in rows.items() if name.startswith(f"{source}/")]
        if not mine:
            continue
        print(f"{source}: {len(mine)} networks")
        for head in TRIED:
            print(f"  {head:7} {sum(row['heads'].get(head) == 'ok' for row in mine)}")
        for what, count in Counter(row.get("dilation", "failed") for row in mine).most_common():
            print(f"  output stride 8, {what}: {count}")
        print(f"  resized to a fixed size: {sum(bool(row.get('fixed_size')) for row in mine)}")
        real = [row for row in mine if "real" in row]
        held = [row for row in real if all(isinstance(v, dict) and all(v.values()) for v in row["real"].values())]
        print(f"  real forwards: {len(held)} of {len(real)} hold; seconds {math.fsum(r['seconds'] for r in mine):.0f}")
        for row in mine:
            failed = {head: why for head, why in row["heads"].items() if why != "ok"}
            if failed:
                print(f"  {row['name']}: {failed}")
            if row in real and row not in held:
                print(f"  {row['name']}: {row['real']}")


def main() -> None:
    """Run what is left to run, print the counts, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="shell pattern of names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=120, help="seconds for one build or head")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rows")
    parser.add_argument("--real", action="store_true", help="run a sample in earnest")
    options = parser.parse_args()
    if options.fresh:
        ROWS.unlink(missing_ok=True)
    names = [name for name in fcnzoo.list_backbones() if fnmatch.fnmatchcase(name, options.only)]
    rows = read_rows()
    work([name for name in names if name not in rows], try_heads, options.jobs, options.limit)
    rows = read_rows()
    if options.real:
        wanted = [name for name in sample(rows, options.only) if "real" not in rows[name]]
        work(wanted, check_numbers, options.jobs, 5 * options.limit)
        rows = read_rows()
    print_counts({name: row for name, row in rows.items() if name in set(names)})
    if set(fcnzoo.list_backbones()) == set(rows):
        write_tables(rows)
    else:
        print(f"{len(rows)} of {len(fcnzoo.list_backbones())} networks tried: the tables are left as they are")


if __name__ == "__main__":
    main()
