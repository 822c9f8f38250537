"""Put a trained network on the Hugging Face Hub, and load it from there.

    hf auth login                                                       # once
    python examples/publish.py runs/mine/best me/fields-fcn8s --license cc-by-4.0 --sample field.jpg

Weights, config and a model card go up in one commit, after a copy was loaded and compared. `fcnzoo.load` takes the
address, with a branch or a commit if you like; files are compared with the Hub's digests.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import fcnzoo


def main(folder: Path, repo: str, license: str | None, datasets: Sequence[str], sample: Path | None) -> None:
    """Publish a folder that training or `fcnzoo.save` wrote, and check that others get the same network."""
    model = fcnzoo.load(folder)
    overlay = None if sample is None else fcnzoo.Predictor(model)(sample).overlay()
    commit = fcnzoo.push_to_hub(model, repo, license=license, datasets=datasets, sample=overlay)

    # What everybody can do now; the commit pins it for good.
    address = f"hf-hub:{repo}@{commit}"
    again = fcnzoo.load(address)
    ours, theirs = model.state_dict(), again.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise SystemExit(f"{address} is not the network that was sent")
    print(f"published: fcnzoo.load({address!r})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the trained network")
    parser.add_argument("repo", help="org/name on the Hub; made if it is missing")
    parser.add_argument("--license", help="under which others may use the weights")
    parser.add_argument("--datasets", nargs="+", default=(), help="what it was trained on, as the Hub calls them")
    parser.add_argument("--sample", type=Path, help="a photo for the card")
    main(**vars(parser.parse_args()))
