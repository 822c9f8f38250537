"""Weights of timm's own classifiers in cut networks: strict, and to the same features."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from fcnzoo.backbones import build_backbone
from fcnzoo.backbones.timm.families import find_family
from fcnzoo.config import BackboneConfig
from fcnzoo.errors import WeightsError

SMALL = ("test_vit", "test_coatnet", "test_efficientnet", "test_mambaout", "pit_ti_224", "convmixer_768_32")
MORE = (
    "beitv2_base_patch16_224",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "crossvit_tiny_240",
    "csatv2",
    "deit_tiny_distilled_patch16_224",
    "densenet121",
    "dla34",
    "eva02_tiny_patch14_224",
    "hrnet_w18_small",
    "inception_v3",
    "legacy_xception",
    "levit_128s",
    "mobilenetv3_small_050",
    "mvitv2_tiny",
    "nest_tiny_jx",
    "swin_tiny_patch4_window7_224",
    "test_nfnet",
    "vgg11",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
)


def classifier_file(folder: Path, name: str) -> Path:
    """Write timm's own classifier with random values."""
    torch.manual_seed(0)
    classifier: nn.Module = timm.create_model(name)
    with torch.no_grad():
        for key, tensor in classifier.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point() and not tensor.any():
                tensor.normal_(std=0.1)
    path = folder / f"{name}.safetensors"
    # Tied weights (CoaT's encodings) have several names.
    save_file({key: tensor.clone() for key, tensor in classifier.state_dict().items()}, path)
    return path


def check_weights(folder: Path, name: str) -> None:
    """Compare a backbone that has loaded a classifier's file with timm's own feature network that has."""
    path = classifier_file(folder, name)
    backbone: Any = build_backbone(BackboneConfig(f"timm/{name}"), path).eval()
    info = backbone.network.feature_info
    options = dict(find_family(timm.models.model_entrypoint(name).__module__.rpartition(".")[2], name).options)
    theirs = timm.create_model(
        name,
        features_only=True,
        out_indices=tuple(info.out_indices),
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path), "custom_load": False},
        **options,
    ).eval()
    assert backbone.network.state_dict().keys() == theirs.state_dict().keys()
    side = backbone.size_multiple * 2
    image = torch.randn(1, 3, *(backbone.fixed_size or (side, side)))
    with torch.no_grad():
        want = theirs(nn.functional.pad(image, backbone.family.margin * 2))
        for ours, other in zip(backbone(image), want, strict=True):
            other = other.permute(0, 3, 1, 2) if "NHWC" in str(getattr(theirs, "output_fmt", "")) else other
            if backbone.family.margin != (0, 0):
                continue  # cropped: their alignment has a test of its own
            torch.testing.assert_close(ours, other, rtol=0, atol=1e-6 * other.abs().max().item())


@pytest.mark.parametrize("name", SMALL)
def test_classifiers_load_and_features_are_timms(tmp_path: Path, name: str) -> None:
    """A classifier's file loads strictly, keys are timm's, and features equal timm's own with this file."""
    check_weights(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE)
def test_classifiers_of_more_families(tmp_path: Path, name: str) -> None:
    """The same for members of more families."""
    check_weights(tmp_path, name)


def test_log_names_what_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log lists keys the cut network has no place for: the final norm as well as the classifier."""
    path = classifier_file(tmp_path, "test_vit")
    with caplog.at_level(logging.INFO, "fcnzoo"):
        build_backbone(BackboneConfig("timm/test_vit"), path)
    text = next(record.getMessage() for record in caplog.records if record.name == "fcnzoo")
    assert "keys left out" in text
    for key in ("head.weight", "norm.weight"):
        assert key in text
    assert "blocks.0" not in text


def test_final_norm_must_be_in_the_file(tmp_path: Path) -> None:
    """A file without a key that only the classifier has is refused all the same."""
    weights: dict[str, Any] = dict(timm.create_model("test_vit").state_dict())
    del weights["fc_norm.weight" if "fc_norm.weight" in weights else "norm.weight"]
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: (fc_)?norm.weight"):
        build_backbone(BackboneConfig("timm/test_vit"), tmp_path / "w.safetensors")


def test_weights_of_another_image_size(tmp_path: Path) -> None:
    """Position tables of a file are resampled by timm to the asked image size."""
    path = classifier_file(tmp_path, "test_vit_relpos")
    backbone = build_backbone(BackboneConfig("timm/test_vit_relpos", image_size=(128, 160)), path).eval()
    assert backbone(torch.randn(1, 3, 128, 160))[-1].shape[2:] == (8, 10)
