"""Segment a folder of photos: an overlay for each, and one table of areas.

    python examples/segment_folder.py photos --out out
    python examples/segment_folder.py photos --out out --model street
    python examples/segment_folder.py photos --out out --model runs/mine/best

`out` then holds a picture per photo, with the classes laid over it, and `areas.csv`: a row per photo, a column per
class, and in it the share of the photo that the class covers. The default model, the 21 classes of VOC, is
shipped with fcnzoo and needs no network; so is `street`, for road scenes. (`fcnzoo segment photos --out out` does much
the same in a shell.)
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import fcnzoo


def main(photos: Path, out: Path, model: str | None) -> None:
    """Segment every photo of a folder."""
    suffixes = fcnzoo.images.IMAGE_SUFFIXES
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise SystemExit(f"{photos} holds no photos ({' '.join(suffixes)})")

    predictor = fcnzoo.Predictor(model)  # None is the shipped model
    names = predictor.label_set.names
    out.mkdir(parents=True, exist_ok=True)
    with (out / "areas.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, ("photo", *names), restval=0.0)
        table.writeheader()
        # `map` decodes the next photo while the network looks at this one.
        for path, result in zip(files, predictor.map(files), strict=True):
            result.save(out / f"{path.name}.png", "overlay")
            areas = result.areas()  # {"road": 0.31, …}: the classes present, largest first
            table.writerow({"photo": path.name, **areas})
            print(f"{path.name}: " + ", ".join(f"{name} {share:.0%}" for name, share in list(areas.items())[:3]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of photos")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the results")
    parser.add_argument("--model", help="name of a model with weights, or the folder of a trained one")
    main(**vars(parser.parse_args()))
