"""Devices that do not exist, folders that are repositories, networks that other tools have changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

import fcnzoo
from fcnzoo.errors import BackboneError, WeightsError


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "cpu:x", "nonsense"])
def test_a_device_that_does_not_exist(device: str) -> None:
    """It is named as the cause, wherever a device is taken."""
    for call in (
        lambda: fcnzoo.create("fcn8s_test_resnet", device=device),
        lambda: fcnzoo.create("everyday", pretrained=True, device=device),
        lambda: fcnzoo.Predictor("everyday", device=device),
    ):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
            call()


@pytest.mark.parametrize("source", ["org/name", "https://huggingface.co/org/name", "http://mirror.example/org/name/"])
def test_repositories_are_no_folders(source: str) -> None:
    """`load` says how a repository is addressed."""
    with pytest.raises(WeightsError, match="'hf-hub:org/name'"):
        fcnzoo.load(source)


def test_activations_that_a_converter_dropped(tmp_path: Path) -> None:
    """PyTorch's SyncBatchNorm converter on layers with activations is refused; timm's, and plain layers, are not."""
    model = fcnzoo.create("fcn8s_mobilenetv3_small_050", num_classes=2).eval()
    fcnzoo.Predictor(convert_sync_batchnorm(model))
    lost = nn.SyncBatchNorm.convert_sync_batchnorm(fcnzoo.create("fcn8s_mobilenetv3_small_050", num_classes=2))
    with pytest.raises(BackboneError, match=r"activation of backbone.*timm\.layers\.convert_sync_batchnorm"):
        fcnzoo.Predictor(lost)
    with pytest.raises(BackboneError, match="dropped the activation"):
        fcnzoo.export(lost, tmp_path / "x.onnx")
    fcnzoo.Predictor(nn.SyncBatchNorm.convert_sync_batchnorm(fcnzoo.create("fcn8s_test_resnet", num_classes=2)))


@pytest.mark.parametrize("name", ["fcn8s_skresnet18", "fcn32s_resnest14d"])
def test_a_batch_of_one_image(name: str) -> None:
    """Networks that pool before a BatchNorm name the layer and what helps; two images, or a frozen backbone, train."""
    model = fcnzoo.create(name, num_classes=2).train()
    image = torch.rand(2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"backbone's network\.layer1.* sees one value per channel"):
        model(image[:1])
    model(image)
    model.backbone.eval()
    model(image[:1]).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_exported(dtype: torch.dtype, tmp_path: Path) -> None:
    """A network of another dtype gives the file of its weights in float32, and stays as it is."""
    model = fcnzoo.create("fcn8s_test_resnet", num_classes=3).eval().to(dtype)
    fcnzoo.export(model, tmp_path / "x.pt2", check_sizes=((1, 40, 56),))
    assert model.dtype == dtype
    program = torch.export.load(tmp_path / "x.pt2").module()
    picture = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    labels = program(torch.from_numpy(picture)[None])
    found = np.asarray(labels[0] if isinstance(labels, tuple | list) else labels)
    assert np.array_equal(found.reshape(40, 56), fcnzoo.Predictor(model.float())(picture).labels)


def test_compiled_networks_are_exported(tmp_path: Path) -> None:
    """What `torch.compile` made of a network is exported as `save` takes it."""
    model = torch.compile(fcnzoo.create("fcn8s_test_resnet", num_classes=3).eval())
    fcnzoo.export(model, tmp_path / "x.pt2", check_sizes=((1, 40, 56),))  # pyright: ignore[reportArgumentType]
