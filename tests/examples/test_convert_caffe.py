"""examples/convert_caffe.py: a `.caffemodel` that Caffe's own messages wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from caffe_proto import write_net
from examples.conftest import FOLDER, RunExample
from PIL import Image
from references import caffe_kernel

import fcnzoo

pytestmark = pytest.mark.usefixtures("narrow_vgg")

LAYERS = {"head.score.32": "score_fr", "head.score.16": "score_pool4", "head.score.8": "score_pool3"}


def caffemodel(model: fcnzoo.FCN) -> bytes:
    """An FCN-8s as the authors' solver would have saved it: their layers' names, and dense deconvolutions."""
    state = {}
    for name, tensor in model.state_dict().items():
        layer, _, kind = name.rpartition(".")
        state[f"{LAYERS.get(layer, layer.removeprefix('backbone.'))}.{kind}"] = tensor
    classes = model.num_classes
    for name, stride in {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8}.items():
        state[f"{name}.weight"] = torch.zeros(classes, classes, 2 * stride, 2 * stride)
        state[f"{name}.weight"][range(classes), range(classes)] = caffe_kernel(2 * stride).float()
    return write_net(state)


@pytest.fixture
def original(tmp_path: Path) -> fcnzoo.FCN:
    """A network with random scores, whose weights lie in `net.caffemodel`."""
    model = fcnzoo.create("fcn8s_vgg16").eval()
    for layer in model.head.score.values():
        torch.nn.init.normal_(layer.weight, std=0.1)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(model))
    return model


@pytest.mark.parametrize("options", [(), ("--fold-input",)])
def test_labels_are_the_originals(
    run_example: RunExample, original: fcnzoo.FCN, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """The saved model has the weights and the receipt; the labels of the photo are those of the original network."""
    photo = FOLDER / "street.jpg"
    printed = run_example("convert_caffe.py", "net.caffemodel", photo, "--out", "out", *options)
    model = fcnzoo.load(tmp_path / "out" / "model")
    assert model.provenance["converted_from"] == "caffe"
    assert f"FCN-8s with 21 classes; it sees {'rgb' if options else 'bgr'}" in printed
    if not options:
        ours, theirs = model.state_dict(), original.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    want = fcnzoo.Predictor(original)(photo).labels
    assert len(np.unique(want)) > 3
    with Image.open(tmp_path / "out" / "labels.png") as labels:
        assert (np.asarray(labels) == want).mean() > 0.9999  # folding rounds: ties may fall to the other side
    assert (tmp_path / "out" / "overlay.png").is_file()


def test_other_files_are_refused(run_example: RunExample, tmp_path: Path) -> None:
    """A file that is no Caffe model ends the script with the reason, and nothing is written."""
    (tmp_path / "net.caffemodel").write_bytes(b"not a network")
    with pytest.raises(SystemExit, match=r"not converted: .*net\.caffemodel"):
        run_example("convert_caffe.py", "net.caffemodel", FOLDER / "street.jpg", "--out", "out")
    assert not (tmp_path / "out").exists()
