"""Exported files: read by others than fcnzoo, equal to the network, and complete in what they say."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import fcnzoo
from fcnzoo.errors import ExportError, UnknownModelError, WeightsError
from fcnzoo.inference.exporters import export as exporters
from fcnzoo.inference.exporters import onnx_file
from fcnzoo.inference.exporters.check import _same_labels, compare_graph, expected, pictures
from fcnzoo.model.fcn import FCN

RESNET = "timm/test_resnet.r160_in1k"
SIZES = [(1, 97, 131), (3, 250, 333), (1, 32, 64), (1, 20, 31)]


def make(head: str, backbone: str | None = None, **options: Any) -> FCN:
    """A network whose score layers give different labels."""
    model = fcnzoo.create(head, backbone=backbone, **options)
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=module.in_channels**-0.5)
    return model.eval()


def compare(labels: np.ndarray, model: FCN, images: np.ndarray) -> None:
    """Labels are the network's wherever its two highest scores differ by more than 1e-4 of the largest."""
    wanted, logits, _ = expected(model, images)
    top = logits.topk(2, dim=1).values
    sure = (top[:, 0] - top[:, 1] > 1e-4 * logits.abs().max()).numpy()
    assert sure.mean() > 0.9
    assert labels.dtype == wanted.dtype
    assert np.array_equal(labels[sure], wanted[sure])


def onnx_labels(file: Path, images: np.ndarray) -> np.ndarray:
    """Run an ONNX file."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(["labels"], {"image": images})[0]


@pytest.fixture(scope="module")
def resnet() -> FCN:
    """A small network with names of its own."""
    torch.manual_seed(0)
    return make("fcn8s", RESNET, label_set=["sky", "road", "Baum", "楼"])


@pytest.fixture(scope="module")
def file(resnet: FCN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as ONNX."""
    resnet.provenance = {"recipe": "none", "seed": 0}
    return fcnzoo.export(resnet, tmp_path_factory.mktemp("onnx") / "small.onnx", license="MIT")


@pytest.mark.parametrize("size", SIZES)
def test_onnx_gives_the_networks_labels(size: tuple[int, int, int], resnet: FCN, file: Path) -> None:
    """One file serves every batch and every size, smaller than a cell of the coarsest map too."""
    images = pictures(size, 3)
    compare(onnx_labels(file, images), resnet, images)


def test_onnx_names_its_axes(file: Path) -> None:
    """Input and output say their names, dtypes and open axes; the file passes ONNX's own checker."""
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(file)
    (image,), (labels,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (labels.name, labels.type, labels.shape) == ("labels", "tensor(uint8)", ["batch", "height", "width"])


def test_onnx_says_what_it_is(resnet: FCN, file: Path) -> None:
    """Labels, colors, license, provenance and configuration are in the file."""
    about = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == ["sky", "road", "Baum", "楼"]
    assert json.loads(about["palette"]) == [list(color) for color in resnet.label_set.palette]  # type: ignore[union-attr]
    assert about["license"] == "MIT"
    assert json.loads(about["provenance"]) == {"recipe": "none", "seed": 0}
    assert fcnzoo.config.FCNConfig.from_dict(json.loads(about["model"])) == resnet.config
    assert about["fcnzoo"] == fcnzoo.__version__


@pytest.mark.parametrize(("head", "options"), [("fcn", {"output_stride": 8}), ("fcn16s", {})])
def test_all_outputs(head: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Logits and scores are given on request, in the order asked for, to 1e-4 of the largest."""
    model = make(head, RESNET, num_classes=5, **options)
    wanted = ("scores", "labels", "logits")
    session = onnxruntime.InferenceSession(fcnzoo.export(model, tmp_path / "all.onnx", outputs=wanted))
    images = pictures((2, 90, 61), 3)
    found = dict(zip(wanted, session.run(None, {"image": images}), strict=True))
    _, logits, scores = expected(model, images)
    for name, reference in (("logits", logits), ("scores", scores)):
        off = np.abs(found[name] - reference.numpy()).max()
        assert off <= 1e-4 * reference.abs().max()
    compare(found["labels"], model, images)


def test_the_papers_network(tmp_path: Path, narrow_vgg: None) -> None:
    """BGR, padding by 100, grids with zeros outside: as ONNX."""
    model = make("fcn8s_vgg16", num_classes=5)
    file = fcnzoo.export(model, tmp_path / "paper.onnx")
    images = pictures((2, 61, 143), 3)
    compare(onnx_labels(file, images), model, images)


def test_transformer(tmp_path: Path) -> None:
    """A ViT: positions are resampled in the graph."""
    model = make("fcn8s", "timm/test_vit.r160_in1k", num_classes=5)
    file = fcnzoo.export(model, tmp_path / "vit.onnx")
    for size in [(1, 97, 131), (1, 160, 160)]:
        images = pictures(size, 3)
        compare(onnx_labels(file, images), model, images)


def test_program_runs_without_fcnzoo(resnet: FCN, tmp_path: Path) -> None:
    """A `.pt2` file needs PyTorch alone, and says what it is."""
    file = fcnzoo.export(resnet, tmp_path / "small.pt2", license="MIT")
    assert file.stat().st_size < 1.2 * sum(one.nbytes for one in resnet.state_dict().values()) + 2**20
    for i, size in enumerate([(1, 97, 131), (3, 128, 160)]):
        np.save(tmp_path / f"{i}.npy", pictures(size, 3))
    code = (
        "import sys, json, torch, numpy\n"
        f"extra = {{'fcnzoo.json': ''}}\n"
        f"graph = torch.export.load({str(file)!r}, extra_files=extra).module()\n"
        "for i in range(2):\n"
        f"    image = torch.from_numpy(numpy.load({str(tmp_path)!r} + f'/{{i}}.npy'))\n"
        f"    numpy.save({str(tmp_path)!r} + f'/labels{{i}}.npy', graph(image)[0].numpy())\n"
        "assert not {'fcnzoo', 'timm', 'torchvision'} & set(sys.modules)\n"
        "print(json.loads(extra['fcnzoo.json'])['license'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["MIT"]
    for i in range(2):
        compare(np.load(tmp_path / f"labels{i}.npy"), resnet, np.load(tmp_path / f"{i}.npy"))


def test_half_precision(tmp_path: Path) -> None:
    """float16 halves the file; labels are the same where scores are not close."""
    model = make("fcn32s", RESNET, num_classes=3)
    whole = fcnzoo.export(model, tmp_path / "whole.onnx")
    half = fcnzoo.export(model, tmp_path / "half.onnx", dtype="float16")
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    images = pictures((1, 97, 131), 3)
    assert (onnx_labels(half, images) == onnx_labels(whole, images)).mean() > 0.97


def broken(model: FCN, monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the graph of a network give something else than the network."""
    real = exporters.PictureGraph._logits
    monkeypatch.setattr(exporters.PictureGraph, "_logits", lambda self, *given: change(real(self, *given)))


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_wrong_graph_is_never_written(to: Any, resnet: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that gives other labels is an error, and a file that was there stays."""
    file = tmp_path / f"x.{to}"
    file.write_bytes(b"precious")
    broken(resnet, monkeypatch, lambda logits: logits.flip(1))
    with pytest.raises(ExportError, match="differ"):
        fcnzoo.export(resnet, file, to)
    assert file.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_traced_is_told(resnet: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that asks for numbers, and an operation that ONNX lacks, are errors that name the network."""
    broken(resnet, monkeypatch, lambda logits: logits * bool(logits.sum() > 0))
    with pytest.raises(ExportError, match=r"timm/test_resnet.* cannot be traced .*"):
        fcnzoo.export(resnet, tmp_path / "x.onnx")
    monkeypatch.undo()
    broken(resnet, monkeypatch, lambda logits: torch.linalg.svd(logits)[0] @ logits)
    with pytest.raises(ExportError, match="cannot write this network as ONNX"):
        fcnzoo.export(resnet, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_check_sees_every_kind_of_difference(resnet: FCN) -> None:
    """Another shape, another dtype, impossible classes, other scores, NaN."""

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        labels, logits, scores = expected(resnet, images)
        return {"labels": labels, "logits": logits.numpy(), "scores": scores.numpy()}

    assert compare_graph(run, resnet, "float32", SIZES[:1]) == 0
    assert compare_graph(lambda images: {"labels": run(images)["labels"]}, resnet, "float32", SIZES[:1]) is None
    changes: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
        "labels are uint8": ("labels", lambda labels: labels[:, 1:]),
        "labels are int64": ("labels", lambda labels: labels.astype(np.int64)),
        "of 4 classes": ("labels", lambda labels: labels + 200),
        "labels differ": ("labels", lambda labels: 3 - labels),
        "logits differ": ("logits", lambda logits: logits * 1.001),
        "scores differ by nan": ("scores", lambda scores: scores * np.nan),
    }
    for message, (name, change) in changes.items():
        with pytest.raises(ExportError, match=message):
            compare_graph(lambda images, n=name, c=change: {n: c(run(images)[n])}, resnet, "float32", SIZES[:1])


def test_near_ties_may_be_told_either_way(resnet: FCN) -> None:
    """Labels may differ where two scores are the same but for rounding."""
    images = pictures(SIZES[0], 3)
    labels, logits, _ = expected(resnet, images)
    limit = 1e-4 * float(logits.abs().max())
    logits[0, 1, 5, 5] = logits[0, labels[0, 5, 5], 5, 5] - limit
    other = labels.copy()
    other[0, 5, 5] = 1
    _same_labels(other, labels, logits, limit, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "to must be 'onnx' or 'pt2'"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"outputs": ()}, "outputs must be"),
        ({"outputs": ("labels", "labels")}, "each once"),
        ({"outputs": ("masks",)}, "outputs must be"),
        ({"opset": 11}, "opset must be 18 or later"),
    ],
)
def test_impossible_arguments(options: dict[str, Any], message: str, resnet: FCN, tmp_path: Path) -> None:
    """Each is an error that says what is allowed."""
    with pytest.raises(ValueError, match=message):
        fcnzoo.export(resnet, tmp_path / "x.onnx", **options)
    with pytest.raises(ValueError, match="or the file end in one of them"):
        fcnzoo.export(resnet, tmp_path / "model.bin")


def test_what_is_no_network(resnet: FCN, tmp_path: Path) -> None:
    """Other modules, optimized networks, unknown names and models without weights are refused."""
    with pytest.raises(TypeError, match="must be an FCN"):
        fcnzoo.export(nn.Conv2d(3, 3, 1), tmp_path / "x.onnx")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="OptimizedFCN"):
        fcnzoo.export(fcnzoo.optimize(resnet, dtype="float32", size=(32, 32)), tmp_path / "x.onnx")
    with pytest.raises(UnknownModelError):
        fcnzoo.export("fcn8s_nonsense", tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="no trained segmentation weights"):
        fcnzoo.export("fcn8s_resnet18", tmp_path / "x.onnx")


def test_missing_packages_are_named(resnet: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime the error says what to install; nothing has been traced by then."""
    real = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name="onnxruntime")
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(exporters, "_trace", lambda *_: pytest.fail("traced"))
    with pytest.raises(ImportError, match=r"onnxruntime: pip install 'fcnzoo\[export\]'"):
        fcnzoo.export(resnet, tmp_path / "x.onnx")


def test_too_large_for_onnx(resnet: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that Protocol Buffers cannot hold are refused before the work begins."""
    monkeypatch.setattr(onnx_file, "LIMIT", 1000)
    with pytest.raises(ValueError, match="use to='pt2', or dtype=float16"):
        fcnzoo.export(resnet, tmp_path / "x.onnx")


def test_license_and_weights_of_a_folder(resnet: FCN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's license and provenance go into the file; the folder's weights are what is exported."""
    fcnzoo.save(resnet, tmp_path / "saved", license="CC0-1.0", provenance={"by": "hand"})
    seen: list[Any] = []
    monkeypatch.setattr(exporters, "_program", lambda model, *given: (seen.extend([model, given]), (b"x", None))[1])
    fcnzoo.export(str(tmp_path / "saved") + "/", tmp_path / "x.pt2")
    about = seen[1][2]
    assert (about.license, about.provenance) == ("CC0-1.0", {"by": "hand"})
    assert torch.equal(next(seen[0].parameters()), next(resnet.parameters()))


SLOW = [
    "fcn8s_vgg16",
    "fcn_resnet50",
    "fcn8s_tf_efficientnet_lite0",
    "fcn8s_vit_tiny_patch16_224",
    "fcn8s_swin_tiny_patch4_window7_224",
    "fcn_convnext_atto",
    "fcn16s_swinv2_tiny_window8_256",
    "fcn32s_resnet18",
    "fcn8s:torchvision/vit_b_16",
    "fcn8s:torchvision/swin_t",
]


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("name", SLOW)
def test_networks_of_the_field(name: str, to: Any, tmp_path: Path) -> None:
    """At full width, from one file each: batches of 1 and 3, odd sizes, the size of the weights, whole multiples."""
    torch.manual_seed(0)
    sizes = [(1, 97, 131), (3, 97, 131), (1, 250, 333), (3, 250, 333), (1, 480, 640), (1, 224, 224), (1, 256, 256)]
    head, _, backbone = name.partition(":")
    fcnzoo.export(make(head, backbone or None), tmp_path / f"x.{to}", check_sizes=sizes)
