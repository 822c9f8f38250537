"""The registry's entries of published weights: that each says where it is from, and says it right."""

from __future__ import annotations

import re

import pytest
import torch

import fcnzoo
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.model.skip import bilinear_kernel
from fcnzoo.weights.converters.convert import _CONVERTERS
from fcnzoo.weights.converters.mmseg import STEM, _head_rules
from fcnzoo.weights.converters.paper import DECONVOLUTIONS
from fcnzoo.weights.converters.paper import RULES as PAPER
from fcnzoo.weights.converters.plan import Checkpoint, Rename, rename
from fcnzoo.weights.converters.torchvision import BACKBONE_RULES, HEAD_RULES
from fcnzoo.zoo.registry import split_name

NAMES = [name for name in fcnzoo.list_models(pretrained=True) if split_name(name)[0].weights]


def entry(name: str) -> tuple[ModelSpec, Weights]:
    """The entry and the weights of a name."""
    spec, tag = split_name(name)
    weights = spec.find_weights(tag)
    assert weights is not None
    return spec, weights


@pytest.mark.parametrize("name", NAMES)
def test_entries_are_whole(name: str) -> None:
    """Each names its data set, license and at least one source, has a label set, and goes through JSON."""
    spec, weights = entry(name)
    config = weights.config or spec.config
    assert weights.dataset and weights.license
    assert weights.packaged or weights.hub or weights.published
    assert config.label_set is not None
    assert config.preprocess is not None or weights.packaged
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert all(0 < metric.value < 1 and metric.split for metric in weights.metrics)
    if weights.published is not None and weights.published.drive is not None:
        assert "gdown" in weights.note
    if weights.published is not None and not (weights.published.sha256 or weights.published.md5):
        assert "no digest" in weights.note


@pytest.mark.parametrize("name", [name for name in NAMES if re.search(r"-[0-9a-f]{8}\.pth", entry(name)[1].to_json())])
def test_digests_in_file_names(name: str) -> None:
    """The file names of torchvision and mmsegmentation end in the digest that the entry gives."""
    published = entry(name)[1].published
    assert published is not None
    assert published.file_name.endswith(f"-{published.sha256}.pth")


@pytest.mark.parametrize(
    ("name", "address", "mean_iou", "classes"),
    [
        ("fcn_resnet50.coco_voc", "https://download.pytorch.org/models/fcn_resnet50_coco-1167a1af.pth", 0.605, 21),
        ("fcn_resnet101.coco_voc", "https://download.pytorch.org/models/fcn_resnet101_coco-7ecb50ca.pth", 0.637, 21),
        ("fcn8s_vgg16.torchfcn", "https://drive.google.com/uc?id=1ieXWyoG68xqoHJPWdyrDyaIaaWlfmUxI", 0.6551, 21),
        ("fcn8s_vgg16.bvlc", "http://dl.caffe.berkeleyvision.org/fcn8s-heavy-pascal.caffemodel", 0.655, 21),
        (
            "fcn16s_vgg16.bvlc_pascal_context",
            "http://dl.caffe.berkeleyvision.org/pascalcontext-fcn16s-heavy.caffemodel",
            None,
            60,
        ),
        (
            "fcn_resnet101c.cityscapes_fp16_80k",
            "https://download.openmmlab.com/mmsegmentation/v0.5/fcn/fcn_r101-d8_fp16_512x1024_80k_cityscapes/"
            "fcn_r101-d8_fp16_512x1024_80k_cityscapes_20200717_230921-fb13e883.pth",
            0.768,
            19,
        ),
        (
            "fcn_resnet101.mmseg_cityscapes_80k",
            "https://download.openmmlab.com/mmsegmentation/v0.5/fcn/fcn_r101b-d8_512x1024_80k_cityscapes/"
            "fcn_r101b-d8_512x1024_80k_cityscapes_20201226_160213-4543858f.pth",
            0.7737,
            19,
        ),
        (
            "fcn_resnet50c.ade20k_160k",
            "https://download.openmmlab.com/mmsegmentation/v0.5/fcn/fcn_r50-d8_512x512_160k_ade20k/"
            "fcn_r50-d8_512x512_160k_ade20k_20200615_100713-4edbc3b4.pth",
            0.361,
            150,
        ),
    ],
)
def test_landmarks(name: str, address: str, mean_iou: float | None, classes: int) -> None:
    """Address, figure and classes of entries of every publisher, copied from their own pages."""
    spec, weights = entry(name)
    assert weights.published is not None and weights.published.address == address
    assert [metric.value for metric in weights.metrics[:1]] == ([] if mean_iou is None else [pytest.approx(mean_iou)])
    assert (weights.config or spec.config).num_classes == classes


def test_a_tag_gives_its_own_network() -> None:
    """`create("name.tag")` builds the classes and preprocessing of these weights, also without loading them."""
    model = fcnzoo.create("fcn_resnet50c.ade20k_160k", device="meta")
    assert (model.num_classes, model.preprocess.resize) == (150, 512)
    model = fcnzoo.create("fcn8s_vgg16.bvlc_pascal_context", device="meta")
    assert model.label_set is not None
    assert model.label_set.names[:3] == ("background", "aeroplane", "bicycle")
    assert model.label_set.names[-1] == "wood"


def test_context_labels_are_in_the_order_of_caffe() -> None:
    """The authors' PASCAL-Context networks number VOC's classes first; each keeps its color of the sorted set."""
    from test_labels import CAFFE_CONTEXT

    labels = entry("fcn32s_vgg16.bvlc_pascal_context")[1].config.label_set  # pyright: ignore
    spelled = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
    assert labels.names == ("background", *(spelled.get(name, name) for name in CAFFE_CONTEXT.split()))
    known = fcnzoo.labels.get_label_set("pascal_context_60")
    assert all(labels.palette[labels.index(name)] == known.palette[known.index(name)] for name in known.names)


def test_what_is_published_is_there() -> None:
    """Every publisher of the issue is there with its networks."""
    counts: dict[str, int] = {}
    for name in NAMES:
        published = entry(name)[1].published
        if published is not None:
            counts[published.converter] = counts.get(published.converter, 0) + 1
    assert counts == {
        "torchvision": 6,
        "torchfcn": 3,
        "torchfcn-atonce": 1,
        "caffe": 6,
        "caffe-atonce": 1,
        "mmseg": 19,
        "deeplab": 1,
    }


def as_published(name: str) -> Checkpoint:
    """A checkpoint with the keys and shapes of an entry's file, without memory where values do not matter."""
    spec, weights = entry(name)
    config = weights.config or spec.config
    with torch.device("meta"):
        model = fcnzoo.build(config)
    kind = weights.published.converter if weights.published else ""
    head, _, backbone = spec.name.partition("_")
    rules = (BACKBONE_RULES[backbone], *HEAD_RULES[head]) if kind == "torchvision" else PAPER
    if kind == "mmseg":
        stem = STEM if spec.name.endswith("c") else ()
        rules = (*stem, Rename("backbone.", "backbone.network."), *_head_rules(config.head, config.aux_head))  # pyright: ignore
    back = [rule.invert() for rule in rules]
    state = {str(rename(key, back)): tensor for key, tensor in model.state_dict().items()}
    if rules is PAPER:
        state |= {key: torch.zeros(tensor.shape) for key, tensor in state.items() if key.startswith("score")}
        classes = range(config.num_classes)
        for layer, factor in DECONVOLUTIONS[config.head.stride].items():  # pyright: ignore
            state[f"{layer}.weight"] = torch.zeros(len(classes), len(classes), 2 * factor, 2 * factor)
            state[f"{layer}.weight"][classes, classes] = bilinear_kernel(factor).float()
    return Checkpoint(name, state)


@pytest.mark.parametrize(
    "name",
    [
        "fcn32s_vgg16.torchfcn",
        "fcn16s_vgg16.bvlc",
        "fcn8s_vgg16.bvlc_pascal_context",
        "fcn8s_vgg16.torchfcn_atonce",
        "fcn_resnet50.coco_voc",
        "fcn_resnet50.mmseg_cityscapes_80k",
        "fcn_resnet50c.ade20k_160k",
        "fcn_resnet101c.voc12aug_20k",
    ],
)
def test_converters_make_what_the_registry_says(name: str) -> None:
    """From the keys and shapes of an entry's file its converter plans the very network of the entry."""
    spec, weights = entry(name)
    assert weights.published is not None
    plan = _CONVERTERS[weights.published.converter].plan(as_published(name))
    wanted = weights.config or spec.config
    for part in ("backbone", "head", "aux_head", "num_classes"):
        assert getattr(plan.config, part) == getattr(wanted, part)
    if wanted.preprocess is not None and plan.config.preprocess is not None:
        assert plan.config.preprocess.replace(resize=wanted.preprocess.resize) == wanted.preprocess
