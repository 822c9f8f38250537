"""DeepLab's network for phones, converted: TensorFlow Lite's file, and torchvision's names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deeplab_reference import Reference, random_reference, tensorflow_names
from safetensors.torch import save_file
from tflite_file import tflite_file

import fcnzoo
from fcnzoo.errors import ConversionError
from fcnzoo.labels import get_label_set
from fcnzoo.weights.converters.tflite import read_tflite

SIZE = {"ResizeBilinear_1/size": np.array([33, 33], dtype=np.int32)}


def written(tmp_path: Path, network: Reference, kind: str) -> Path:
    """The network as a file of one of the two kinds."""
    path = tmp_path / f"net.{kind}"
    if kind == "tflite":
        path.write_bytes(tflite_file(tensorflow_names(network) | SIZE))
    else:
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    return path


def exact(network: torch.nn.Module) -> torch.nn.Module:
    """The network in float64, its BatchNorm the identity to the last digit, which float32 is not (6e-8)."""
    network.double()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    return network


@pytest.mark.parametrize("kind", ["tflite", "safetensors"])
@pytest.mark.parametrize("classes", [21, 5])
def test_logits_are_the_references(tmp_path: Path, kind: str, classes: int) -> None:
    """Logits within 1e-9 in float64 of a rebuild in plain PyTorch, at odd sizes; zero channels change nothing."""
    reference = random_reference(classes)
    model = fcnzoo.convert("deeplab", written(tmp_path, reference, kind))
    assert model.num_classes == classes and model.preprocess.longer_side == 513
    assert model.label_set == (get_label_set("voc") if classes == 21 else None)
    exact(model), exact(reference)
    for size in ((65, 97), (50, 71)):
        image = torch.rand(1, 3, *size, dtype=torch.float64) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(model(image), reference(image), rtol=0, atol=1e-9)


def test_zero_channels_stay_zero_in_training(tmp_path: Path) -> None:
    """What timm has more than the network is zero before a step of training and after it, weight decay included."""
    model = fcnzoo.convert("deeplab", written(tmp_path, random_reference(), "tflite")).train()
    before = model.backbone.network.blocks[1][1].conv_pwl.weight.detach().clone()  # pyright: ignore
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.randn(2, 3, 65, 97), torch.zeros(2, 65, 97, dtype=torch.uint8)).backward()
    optimizer.step()
    block = model.backbone.network.blocks[1][1]  # pyright: ignore
    assert not torch.equal(block.conv_pwl.weight[:12], before[:12])
    assert not block.conv_pwl.weight[12:].any() and not block.conv_pw.weight[72:].any()


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Missing and unknown weights are listed by TensorFlow's names; BatchNorm that is not folded is named."""
    constants = tensorflow_names(random_reference())
    path = tmp_path / "net.tflite"
    with pytest.raises(ConversionError, match="cannot be read"):
        fcnzoo.convert("deeplab", path)
    path.write_bytes(tflite_file({key: value for key, value in constants.items() if key != "aspp0/weights"}))
    with pytest.raises(ConversionError, match="1 missing: aspp0/weights"):
        fcnzoo.convert("deeplab", path)
    path.write_bytes(tflite_file(constants | {"decoder/weights": np.zeros((1, 1, 1, 1), dtype=np.float32)}))
    with pytest.raises(ConversionError, match="1 unknown: decoder/weights"):
        fcnzoo.convert("deeplab", path)
    path.write_bytes(tflite_file({"dense/weights": np.zeros((2, 3), dtype=np.float32)}))
    with pytest.raises(ConversionError, match="has no logits/semantic/weights"):
        fcnzoo.convert("deeplab", path)
    network = random_reference()
    network.backbone[3].conv[3].running_mean.fill_(0.5)
    with pytest.raises(ConversionError, match=r"backbone\.3\.conv\.3\.running_mean is not folded"):
        fcnzoo.convert("deeplab", written(tmp_path, network, "safetensors"))


def test_constants_come_out_as_they_went_in(tmp_path: Path) -> None:
    """Every constant by its name, shape and type; what is computed is left out."""
    constants = {
        "a/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "b": np.array([1.5, -2], dtype=np.float16),
        "size": np.array([33, 33], dtype=np.int32),
    }
    path = tmp_path / "net.tflite"
    path.write_bytes(tflite_file(constants))
    found = read_tflite(path)
    assert found.keys() == constants.keys()
    for name, tensor in found.items():
        assert np.array_equal(tensor.numpy(), constants[name]) and tensor.numpy().dtype == constants[name].dtype


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """Cut short anywhere, or with any byte changed, a file is an error that names it, or still whole."""
    content = tflite_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)})
    path = tmp_path / "net.tflite"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ConversionError, match=r"net\.tflite"):
            read_tflite(path)
    for place in range(8, len(content)):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            found = read_tflite(path)
        except ConversionError:
            continue
        assert all(tensor.numel() == 6 for tensor in found.values())


def test_quantized_files_are_refused(tmp_path: Path) -> None:
    """Constants of a type that is no float are named."""
    path = tmp_path / "net.tflite"
    path.write_bytes(tflite_file({"a": np.zeros(3, dtype=np.int8)}))
    with pytest.raises(ConversionError, match="'a' is of type 9"):
        read_tflite(path)
