"""The registry: what a name means, what is listed, and how it refuses."""

from __future__ import annotations

import pytest

import fcnzoo
from fcnzoo.config import (
    BackboneConfig,
    ContextHeadConfig,
    DilatedHeadConfig,
    FCNConfig,
    LRASPPHeadConfig,
    SkipHeadConfig,
)
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.errors import FCNZooError, UnknownModelError
from fcnzoo.zoo import registry
from fcnzoo.zoo.heads import HEADS, head_name
from fcnzoo.zoo.registry import ALIASES, get_spec, list_backbones, list_models, register, split_name

CONFIG = FCNConfig(BackboneConfig("timm/test_resnet"), SkipHeadConfig())
CAMVID = Weights(tag="camvid", dataset="CamVid", license="CC-BY-4.0")
VOC = Weights(tag="voc", dataset="VOC", license="Apache-2.0")


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a registry of its own, with one trained model."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register(ModelSpec(name="fcn8s_mine", config=CONFIG, weights=(CAMVID, VOC)))


def test_listed_models_are_sorted_and_have_specs() -> None:
    """Every listed name is found, and names are sorted and different."""
    names = list_models()
    assert names == sorted(set(names))
    for name in names:
        assert get_spec(name).name == name
    assert {"fcn8s_vgg16", "fcn32s_resnet18", "fcn_resnet50", "fcn_resnet101", "fcn8s_mine"} <= set(names)


def test_at_least_a_dozen_backbones_have_all_skip_heads() -> None:
    """fcn32s, fcn16s and fcn8s stand on a dozen timm backbones or more."""
    stems = {name.partition("_")[2] for name in list_models("fcn8s_*")}
    both = stems & {name.partition("_")[2] for name in list_models("fcn16s_*")}
    assert len(both & {name.partition("_")[2] for name in list_models("fcn32s_*")}) >= 12


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"pattern": "fcn8s_min*"}, ["fcn8s_mine"]),
        ({"pattern": "fcn8s_mine", "pretrained": True}, ["fcn8s_mine.camvid", "fcn8s_mine.voc"]),
        ({"pattern": "*mine.voc", "pretrained": True}, ["fcn8s_mine.voc"]),
        ({"pattern": "*mine*", "dataset": "camvid"}, ["fcn8s_mine"]),
        ({"pattern": "*mine*", "dataset": "camvid", "pretrained": True}, ["fcn8s_mine.camvid"]),
        ({"pattern": "*mine*", "license": "apache-2.0", "pretrained": True}, ["fcn8s_mine.voc"]),
        ({"pattern": "*mine*", "license": "apache-2.0", "dataset": "CamVid"}, []),
        ({"pattern": "*mine*", "head": "fcn8s"}, ["fcn8s_mine"]),
        ({"pattern": "*mine*", "head": "fcn"}, []),
        ({"pattern": "FCN8S_MINE"}, []),
        ({"pattern": "nothing"}, []),
    ],
)
def test_filters(options: dict, want: list[str]) -> None:
    """Names are filtered by pattern (of name, or name and tag), weights, head, data set and license."""
    assert list_models(**options) == want


def test_heads_are_told_apart() -> None:
    """`head="fcn"` does not list fcn8s, fcn16s or fcn32s."""
    assert all(name.startswith("fcn_") for name in list_models(head="fcn"))
    assert sum(len(list_models(head=head)) for head in registry.HEADS) == len(list_models())  # pyright: ignore


def test_unknown_heads_are_refused() -> None:
    """A head that is none is a ValueError that lists them."""
    with pytest.raises(ValueError, match=r"fcn32s.*fcn16s.*fcn8s.*'fcn'"):
        list_models(head="unet")  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "backbone", "head", "stride"),
    [
        ("fcn8s_resnet50d", "timm/resnet50d", SkipHeadConfig(stride=8), None),
        ("fcn16s_resnet50.a1_in1k", "timm/resnet50.a1_in1k", SkipHeadConfig(stride=16), None),
        ("fcn32s_shufflenet_v2_x1_0", "torchvision/shufflenet_v2_x1_0", SkipHeadConfig(stride=32), None),
        ("fcn_resnet152", "timm/resnet152", DilatedHeadConfig(), 8),
        ("deeplabv3_resnet152", "timm/resnet152", ContextHeadConfig(), 8),
        ("lraspp_resnet50d", "timm/resnet50d", LRASPPHeadConfig(), 16),
    ],
)
def test_any_head_on_any_backbone(name: str, backbone: str, head: object, stride: int | None) -> None:
    """A name outside the zoo is a head on a network of timm, or else of torchvision."""
    config = get_spec(name).config
    assert config.backbone == BackboneConfig(backbone, output_stride=stride)  # pyright: ignore
    assert config.head == head
    assert (config.aux_head is None) == (stride != 8)


def test_every_backbone_of_the_dilated_head_serves_the_others() -> None:
    """What serves `fcn` is listed for the heads with global context, which ask for no more."""
    served = list_backbones(head="fcn")
    assert len(served) > 1400
    assert served == list_backbones(head="deeplabv3") == list_backbones(head="lraspp")


def test_heads_are_named_by_their_config() -> None:
    """Whatever its options, a head's config leads back to its name."""
    assert [head_name(config) for config in HEADS.values()] == list(HEADS)
    assert head_name(ContextHeadConfig(rates=(), num_convs=0)) == "deeplabv3"
    assert head_name(SkipHeadConfig(stride=16, hidden_channels=8)) == "fcn16s"


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_short_names_mean_shipped_weights(alias: str, name: str) -> None:
    """`everyday` and `street` are found wherever a name is, and cannot be taken."""
    assert split_name(alias) == split_name(name)
    assert get_spec(alias) is get_spec(name.partition(".")[0])
    assert fcnzoo.is_model(alias)
    assert fcnzoo.create(alias, device="meta").config.backbone == get_spec(name).config.backbone
    with pytest.raises(ValueError, match=f"short name of {name}"):
        register(ModelSpec(name=alias, config=CONFIG))
    with pytest.raises(UnknownModelError, match=alias):
        get_spec(f"{alias}x")


def test_tags_name_the_weights() -> None:
    """A tag of an entry's weights is split off its name."""
    spec, tag = split_name("fcn8s_mine.voc")
    assert (spec.name, tag) == ("fcn8s_mine", "voc")
    assert spec.find_weights(tag) == VOC
    assert spec.find_weights() == CAMVID
    assert spec.find_weights("x") is None


@pytest.mark.parametrize(
    ("name", "hints"),
    [
        ("fcn8s_resnet5O", ["resnet50"]),
        ("fcn_resnet5", ["fcn_resnet50"]),
        ("fcn8_vgg16", ["fcn8s_vgg16"]),
        ("unet_resnet50", ["fcn32s", "fcn8s"]),
        ("fcn8s_mine.camvd", ["camvid", "voc"]),
        ("", ["<head>_<backbone>", "list_models"]),
        ("fcn8s_", ["fcn8s_", "list_"]),
        ("_", []),
        ("fcn8s_zzzzzz", ["list_"]),
        (".", []),
    ],
)
def test_unknown_names_list_near_ones(name: str, hints: list[str]) -> None:
    """A name that means nothing is an UnknownModelError with the name and what was perhaps meant."""
    with pytest.raises(UnknownModelError) as caught:
        get_spec(name)
    text = str(caught.value)
    assert name.partition(".")[0] in text
    assert not hints or any(hint in text for hint in hints)
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, FCNZooError)


@pytest.mark.parametrize("name", ["fcn8s_vgg16.typo", "fcn_resnet50.typo", "fcn8s_vgg16.tv_in1k"])
def test_an_unknown_tag_of_an_entry_never_means_another_network(name: str) -> None:
    """`fcn8s_vgg16.x` is the paper's network or nothing, not a head on timm's vgg16 under the same name."""
    base = get_spec(name.partition(".")[0])
    try:
        config = get_spec(name).config
    except UnknownModelError:
        return
    assert config.backbone.source == base.config.backbone.source
    assert config.head == base.config.head


@pytest.mark.parametrize("name", [None, 3, b"fcn8s_vgg16", ["fcn8s_vgg16"]])
def test_names_are_text(name: object) -> None:
    """A name that is no text is a TypeError."""
    with pytest.raises(TypeError, match="string"):
        get_spec(name)  # pyright: ignore


def test_registering() -> None:
    """A registered model is found by name; a taken name is refused unless it is replaced."""
    spec = ModelSpec(name="fcn8s_other", config=CONFIG)
    assert register(spec) is spec
    assert get_spec("fcn8s_other") is spec
    with pytest.raises(ValueError, match="registered already"):
        register(spec)
    changed = spec.replace(description="new")
    register(changed, replace=True)
    assert get_spec("fcn8s_other") is changed
    assert fcnzoo.create("fcn8s_other", device="meta").num_classes == 21


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "a\\b"])
def test_impossible_names_are_refused(name: str) -> None:
    """An entry's name has no dots, slashes or spaces."""
    with pytest.raises(ValueError, match="name"):
        ModelSpec(name=name, config=CONFIG)


def test_tags_are_distinct() -> None:
    """Two sets of weights of one entry cannot share a tag."""
    with pytest.raises(ValueError, match="distinct"):
        ModelSpec(name="x", config=CONFIG, weights=(VOC, VOC))


def test_specs_go_through_json() -> None:
    """An entry with its weights goes to JSON and back."""
    spec = get_spec("fcn8s_mine")
    assert ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("pattern", ["timm/resnet5*", "resnet5?"])
def test_backbone_patterns(pattern: str) -> None:
    """A pattern is for the whole name or for what follows the slash."""
    names = list_backbones(pattern)
    assert "timm/resnet50" in names
    assert ("torchvision/resnet50" in names) == (not pattern.startswith("timm"))


def test_backbone_sources() -> None:
    """`source` lists one library's networks; an unknown one is refused."""
    assert list_backbones(source="paper") == ["paper/vgg16"]
    assert all(name.startswith("torchvision/") for name in list_backbones(source="torchvision"))
    with pytest.raises(ValueError, match="source"):
        list_backbones(source="keras")


@pytest.mark.parametrize(("name", "full"), [("resnet50", "timm/resnet50"), ("mnasnet0_5", "torchvision/mnasnet0_5")])
def test_backbones_are_looked_up_at_timm_first(name: str, full: str) -> None:
    """A bare name means timm's network, and torchvision's where timm has none."""
    assert registry.check_backbone(name) == full
    assert registry.check_backbone(full) == full


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet5O", "resnet50"), ("timm/resnet5O", "timm/resnet50"), ("timm/", "timm/")]
)
def test_unknown_backbones_list_near_ones(name: str, hint: str) -> None:
    """A backbone that nobody has is an UnknownModelError with near names."""
    with pytest.raises(UnknownModelError, match=hint):
        registry.check_backbone(name)
