"""examples/any_backbone.py: taps, scores, labels."""

from __future__ import annotations

import pytest
from examples.conftest import RunExample

from fcnzoo.errors import UnknownModelError


def test_heads_on_backbones(run_example: RunExample) -> None:
    """A ResNet gives each level its own stride, a ViT serves all at 16; dilated heads score at 8, emulated or not."""
    printed = run_example(
        "any_backbone.py",
        *("--heads", "fcn8s", "fcn", "lraspp"),
        *("--backbones", "timm/test_resnet", "timm/test_vit", "torchvision/shufflenet_v2_x0_5"),
        *("--height", 97, "--width", 131),
    )
    blocks = {}
    for line in printed.splitlines():
        if not line.startswith(" "):
            blocks[line.partition(":")[0]] = lines = []
        lines.append(line.strip())
    assert len(blocks) == 9
    assert [line.split()[-1] for line in blocks["lraspp on timm/test_resnet"][1:3]] == ["1/16", "1/8"]
    skip = blocks["fcn8s on timm/test_resnet"]
    assert [line.split()[-1] for line in skip[1:4]] == ["1/32", "1/16", "1/8"]
    assert skip[1].startswith("level 32: layer4, ")
    # The image is padded to a multiple of 32: 128 × 160.
    assert skip[4] == "scores (1, 5, 16, 20) -> labels (1, 97, 131)"
    assert all(line.endswith("1/16") for line in blocks["fcn8s on timm/test_vit"][1:4])
    assert "emulated" in blocks["fcn on timm/test_vit"][1]
    assert "dilated" in blocks["fcn on torchvision/shufflenet_v2_x0_5"][1]
    assert "1/8" in blocks["fcn on torchvision/shufflenet_v2_x0_5"][1]


def test_unknown_backbones_are_refused(run_example: RunExample) -> None:
    """A backbone that neither library has is told with near names."""
    with pytest.raises(UnknownModelError, match="timm/resnet18"):
        run_example("any_backbone.py", "--heads", "fcn8s", "--backbones", "timm/resnet1B")
