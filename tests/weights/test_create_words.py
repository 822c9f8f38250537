"""The arguments of `create`: options of the head, and what other libraries call them."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import fcnzoo
from fcnzoo.config import SkipHeadConfig
from fcnzoo.weights.factory import create
from fcnzoo.weights.foreign_words import FOREIGN_WORDS


def test_options_of_the_head() -> None:
    """`head=` changes fields of the head's config, for both kinds."""
    model = fcnzoo.create("fcn8s_resnet18", head={"hidden_channels": 8, "dropout": 0.25}, device="meta")
    assert model.config.head.to_dict() == {
        **fcnzoo.get_spec("fcn8s_resnet18").config.head.to_dict(),
        "hidden_channels": 8,
        "dropout": 0.25,
    }
    for name in ("fcn8s_resnet18", "fcn_resnet18"):
        assert fcnzoo.create(name, head={"dropout": 0.5}, device="meta").head.dropout.p == 0.5


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"droput": 0.1}, "head has no field 'droput'.*dropout"),
        ({"stride": 7}, "stride"),
        ({"dropout": 2.0, "hidden_channels": 8}, "dropout must be in"),
        ({"kind": "dilated"}, "kind must be one of"),
        ("dropout", "head must be options by name.*'dropout' \\(str\\)"),
        (SkipHeadConfig(), "head must be options by name.*SkipHeadConfig"),
    ],
)
def test_wrong_options_of_the_head(options: Any, error: str) -> None:
    """An unknown field, an impossible value, or what is no mapping says what there is."""
    with pytest.raises((ValueError, TypeError), match=error):
        fcnzoo.create("fcn8s_resnet18", head=options, device="meta")


@pytest.mark.parametrize("word", FOREIGN_WORDS)
def test_words_of_other_libraries(word: str) -> None:
    """Each is a TypeError that says what fcnzoo calls it; what it names as an argument is one."""
    with pytest.raises(TypeError, match=f"no argument '{word}'; in fcnzoo that is ") as caught:
        fcnzoo.create("fcn8s_resnet18", **{word: 1})
    for part in str(caught.value).replace("(", " ").split():
        if part.partition("=")[1] and part.isascii() and part.partition("=")[0].isidentifier():
            assert part.partition("=")[0] in inspect.signature(create).parameters


def test_an_unknown_word() -> None:
    """Any other word: the nearest argument and all of them."""
    with pytest.raises(TypeError, match=r"no argument 'num_clases'.*num_classes.*Its arguments are name, pretrained"):
        fcnzoo.create("fcn8s_resnet18", num_clases=3)


def test_is_model() -> None:
    """True for entries, tags and any head on any backbone; False else, without a torch import being needed."""
    for name in ("fcn8s_vgg16", "fcn8s_tf_efficientnet_lite0.camvid", "fcn_convnext_tiny", "fcn8s_resnet18.a1_in1k"):
        assert fcnzoo.is_model(name), name
    for name in ("resnet18", "fcn8s", "fcn8s_nonsense", "unet_resnet18", ""):
        assert not fcnzoo.is_model(name), name
    with pytest.raises(TypeError, match="must be a string"):
        fcnzoo.is_model(3)  # pyright: ignore[reportArgumentType]


def test_every_name_that_builds() -> None:
    """`list_models(buildable=True)` holds the zoo and each head on each backbone that `list_backbones(head=)` has."""
    names = fcnzoo.list_models(buildable=True)
    assert set(fcnzoo.list_models()) < set(names)
    assert len(names) > 4000
    for head in ("fcn8s", "fcn"):
        backbones = fcnzoo.list_backbones(head=head)
        assert {f"{head}_{name.partition('/')[2]}" for name in backbones} <= set(names)
    assert fcnzoo.list_models("fcn16s_resnet10?", buildable=True, head="fcn16s") == [
        "fcn16s_resnet101",
        "fcn16s_resnet10t",
    ]
    assert all(fcnzoo.is_model(name) for name in names[::97])
    with pytest.raises(ValueError, match="leave pretrained, dataset and license out"):
        fcnzoo.list_models(buildable=True, pretrained=True)
