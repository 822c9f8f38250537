"""What an error about a name says: certainly what was meant, where that can be known."""

from __future__ import annotations

import pytest
import timm

import fcnzoo
from fcnzoo.errors import UnknownModelError
from fcnzoo.zoo.catalog import timm_renamed


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fcn8s_tf_efficientnet_b0_ns", "today: fcn8s_tf_efficientnet_b0.ns_jft_in1k"),
        ("fcn_swsl_resnet50", "today: fcn_resnet50.fb_swsl_ig1b_ft_in1k"),
        ("fcn32s_convnext_tiny_in22k", "today: fcn32s_convnext_tiny.fb_in22k"),
        ("fcn8s_rsnet18", "Did you mean fcn8s_resnet18,"),
        ("deeplabv3_mobilnetv3_large_100", "Did you mean deeplabv3_mobilenetv3_large_100"),
        ("resnet18", "is a backbone: put a head before it, as in fcn8s_resnet18"),
        ("swsl_resnet50", "is a backbone: put a head before it, as in fcn8s_resnet50.fb_swsl_ig1b_ft_in1k"),
        ("FCN8s_ResNet18", "Did you mean fcn8s_resnet18?"),
        ("fcn8s-resnet18", "Did you mean fcn8s_resnet18?"),
        ("fcn8s_tu-resnet18", "Did you mean fcn8s_resnet18?"),
        ("org/name", "'hf-hub:org/name'"),
    ],
)
def test_names_that_mean_something_else(name: str, text: str) -> None:
    """Networks that timm renamed, slips, backbones alone, other letters, repositories."""
    with pytest.raises(UnknownModelError) as caught:
        fcnzoo.create(name)
    assert text in str(caught.value)


@pytest.mark.parametrize("backbone", ["timm/swsl_resnet50", "swsl_resnet50"])
def test_renamed_backbones(backbone: str) -> None:
    """`backbone=` says today's name too."""
    with pytest.raises(UnknownModelError, match=r"resnet50\.fb_swsl_ig1b_ft_in1k"):
        fcnzoo.create("fcn8s", backbone=backbone)


def test_the_renamed_networks_are_timms() -> None:
    """What is read from the source files is what timm itself knows."""
    from timm.models import _registry

    assert timm.list_models()
    theirs = {old: new for old, new in _registry._deprecated_models.items() if new}
    assert timm_renamed() == theirs and len(theirs) > 150
