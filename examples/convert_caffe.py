"""Convert a Caffe model of the paper's authors, without Caffe, and segment a photo with it.

    curl -O http://dl.caffe.berkeleyvision.org/fcn8s-heavy-pascal.caffemodel
    python examples/convert_caffe.py fcn8s-heavy-pascal.caffemodel photo.jpg --out fcn8s-voc

FCN-32s, 16s and 8s on VGG-16 are told apart by their layers; every blob must be used, and deconvolutions must be
bilinear, or the file is refused. `--at-once` is for FCN-8s at once, whose scaled features are folded into the weights.
(`fcnzoo.create("fcn8s_vgg16.bvlc", pretrained=True)` downloads and converts this very file for you.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import fcnzoo


def main(file: Path, photo: Path, out: Path, at_once: bool, fold_input: bool) -> None:
    """Convert, save with a receipt, segment."""
    try:
        model = fcnzoo.convert("caffe-atonce" if at_once else "caffe", file, fold_input=fold_input)
    except fcnzoo.errors.ConversionError as error:  # the text lists what did not fit
        raise SystemExit(f"not converted: {error}") from None
    print(f"FCN-{model.config.head.stride}s with {model.num_classes} classes; it sees {model.preprocess.channel_order}")

    # `config.json` and the card then say what it was made from: `model.provenance`, with the digest of the file.
    fcnzoo.save(model, out / "model")
    result = fcnzoo.Predictor(model)(photo)
    result.save(out / "overlay.png", "overlay")
    result.save(out / "labels.png")
    print(f"{photo.name}: {', '.join(f'{name} {share:.0%}' for name, share in result.areas().items())}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help=".caffemodel file")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("converted"), help="folder for model and pictures")
    parser.add_argument("--at-once", action="store_true", help="the file holds an FCN-8s at once")
    parser.add_argument("--fold-input", action="store_true", help="make the network take RGB of 0–1 less the mean")
    main(**vars(parser.parse_args()))
