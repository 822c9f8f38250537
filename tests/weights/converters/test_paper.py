"""FCN-32s, 16s, 8s and 8s at once from torchfcn and from Caffe, against networks with real deconvolutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from caffe_proto import write_net
from PIL import Image
from references import caffe_kernel, paper_features, paper_scores
from torch import Tensor

import fcnzoo
from fcnzoo.backbones import paper as vgg
from fcnzoo.errors import ConversionError
from fcnzoo.images.preprocess import to_tensor
from fcnzoo.labels import get_label_set

pytestmark = pytest.mark.usefixtures("narrow_vgg")

SCORES = {32: {"fr": "32"}, 16: {"fr": "32", "pool4": "16"}, 8: {"fr": "32", "pool4": "16", "pool3": "8"}}
UPSCORES = {
    32: {"upscore": 32},
    16: {"upscore2": 2, "upscore16": 16},
    8: {"upscore2": 2, "upscore_pool4": 2, "upscore8": 8},
}
CONTEXT_START = ("background", "aeroplane", "bicycle", "bird")


def state_dict(stride: int, classes: int = 21, *, at_once: bool = False) -> dict[str, Tensor]:
    """A state dict as torchfcn saves it: layers of the prototxt, dense bilinear deconvolutions."""
    state, channels = {}, 3
    for block, (width, count) in enumerate(vgg.BLOCKS, start=1):
        for number in range(1, count + 1):
            state[f"conv{block}_{number}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            state[f"conv{block}_{number}.bias"] = torch.randn(width) * 0.1
            channels = width
    for name, inputs, side in (("fc6", channels, 7), ("fc7", vgg.FC_CHANNELS, 1)):
        state[f"{name}.weight"] = torch.randn(vgg.FC_CHANNELS, inputs, side, side) * (2 / (inputs * side**2)) ** 0.5
        state[f"{name}.bias"] = torch.randn(vgg.FC_CHANNELS) * 0.1
    inputs = {"fr": vgg.FC_CHANNELS, "pool4": vgg.BLOCKS[3][0], "pool3": vgg.BLOCKS[2][0]}
    undo = {"pool4": 100.0, "pool3": 10000.0} if at_once else {}
    for name in SCORES[stride]:
        scale = undo.get(name, 1.0) / inputs[name] ** 0.5
        state[f"score_{name}.weight"] = torch.randn(classes, inputs[name], 1, 1) * scale
        state[f"score_{name}.bias"] = torch.randn(classes)
    for name, factor in UPSCORES[stride].items():
        weight = torch.zeros(classes, classes, 2 * factor, 2 * factor)
        weight[range(classes), range(classes)] = caffe_kernel(2 * factor).float()
        state[f"{name}.weight"] = weight
    return state


def reference(state: dict[str, Tensor], stride: int, image: Tensor, *, at_once: bool = False) -> Tensor:
    """Logits of the reference network, float32."""
    score = {
        f"{ours}.{kind}": state[f"score_{theirs}.{kind}"]
        for theirs, ours in SCORES[stride].items()
        for kind in ("weight", "bias")
    }
    size = (image.shape[-2], image.shape[-1])
    return paper_scores(paper_features(state, image), score, stride, size, at_once=at_once)


def saved(tmp_path: Path, content: Any) -> Path:
    """A `.pth` file."""
    torch.save(content, tmp_path / "net.pth")
    return tmp_path / "net.pth"


@pytest.mark.parametrize("caffe", [False, True])
@pytest.mark.parametrize(("stride", "at_once"), [(32, False), (16, False), (8, False), (8, True)])
def test_logits_and_labels_are_those_of_the_original(tmp_path: Path, stride: int, at_once: bool, caffe: bool) -> None:
    """On a picture, preprocessed as the file asks: logits within 1e-4, every label the same; K and VOC's labels."""
    state = state_dict(stride, at_once=at_once)
    if caffe:
        scales = {"scale_pool4.weight": torch.full((512,), 0.01), "scale_pool3.weight": torch.full((256,), 0.0001)}
        path = tmp_path / "net.caffemodel"
        path.write_bytes(write_net(state | scales if at_once else state, old=stride == 16))
    else:
        path = saved(tmp_path, state if stride == 8 else {"epoch": 3, "model_state_dict": state})
    source = ("caffe" if caffe else "torchfcn") + ("-atonce" if at_once else "")
    model = fcnzoo.convert(source, path, model=f"fcn{stride}s_vgg16", num_classes=21)
    picture = np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    # infer.py of the authors' repository: RGB to BGR, minus the mean, channels first.
    bgr = picture[:, :, ::-1].astype(np.float32) - np.array((104.00698793, 116.66876762, 122.67891434), np.float32)
    theirs = torch.from_numpy(bgr.transpose(2, 0, 1).copy())[None]
    image = to_tensor(Image.fromarray(picture), model.preprocess)
    torch.testing.assert_close(image, theirs)
    # The scale of a real network's scores, which the tolerance is meant for.
    image, theirs = image / 64, theirs / 64
    want = reference(state, stride, theirs, at_once=at_once)
    with torch.no_grad():
        torch.testing.assert_close(model(image), want, rtol=0, atol=1e-4)
    assert torch.equal(model.predict(image).long(), want.argmax(1))
    assert model.label_set == get_label_set("voc") and not model.training


def test_folded_input_takes_rgb_of_0_to_1(tmp_path: Path) -> None:
    """Order and range fold into the first convolution: on a picture the scores are those of the plain network."""
    path = saved(tmp_path, state_dict(32))
    plain, folded = fcnzoo.convert("torchfcn", path), fcnzoo.convert("torchfcn", path, fold_input=True)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    assert (folded.preprocess.channel_order, folded.preprocess.value_range) == ("rgb", 1)
    image = to_tensor(picture, folded.preprocess)
    mean = torch.tensor([122.67891434, 116.66876762, 104.00698793]) / 255
    rgb = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255).permute(2, 0, 1)[None]
    torch.testing.assert_close(image, rgb - mean[:, None, None])
    with torch.no_grad():
        want = plain.double()(to_tensor(picture, plain.preprocess).double())
        torch.testing.assert_close(
            folded.double()(image.double()), want, rtol=1e-5, atol=1e-5 * want.abs().max().item()
        )
    assert folded.provenance["input_folded"] == {"channel_order": "bgr", "value_range": 255}
    assert "input_folded" not in plain.provenance


def test_there_must_be_something_to_fold(tmp_path: Path) -> None:
    """A network that takes RGB pictures of 0–1 already is refused, and the error says so."""
    state = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None).state_dict()
    with pytest.raises(ValueError, match="RGB of 0–1: leave fold_input out"):
        fcnzoo.convert("torchvision", saved(tmp_path, state), fold_input=True)


def test_at_once_scales_fold_into_weights_not_biases(tmp_path: Path) -> None:
    """score_pool4 shrinks by 0.01 and score_pool3 by 0.0001; biases, score_fr and the rest stay."""
    state = state_dict(8)
    plain = fcnzoo.convert("torchfcn", saved(tmp_path, state)).state_dict()
    folded = fcnzoo.convert("torchfcn-atonce", saved(tmp_path, state)).state_dict()
    scales = {"head.score.16.weight": 0.01, "head.score.8.weight": 0.0001}
    for key, tensor in plain.items():
        torch.testing.assert_close(folded[key], tensor * scales.get(key, 1.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("source", "classes"), [("caffe", 60), ("caffe", 40), ("torchfcn", 60)])
def test_labels_come_only_where_they_are_certain(tmp_path: Path, source: Any, classes: int) -> None:
    """60 classes from Caffe are PASCAL-Context's in the authors' order; other counts have no names."""
    state = state_dict(32, classes)
    path = saved(tmp_path, state)
    if source == "caffe":
        path.write_bytes(write_net(state))
    model = fcnzoo.convert(source, path)
    assert model.num_classes == classes
    if source == "caffe" and classes == 60:
        assert model.label_set is not None and model.label_set.names[:4] == CONTEXT_START
        assert sorted(model.label_set.names) == sorted(get_label_set("pascal_context_60").names)
    else:
        assert model.label_set is None


def change(state: dict[str, Tensor], key: str, index: tuple[int, ...], by: float) -> dict[str, Tensor]:
    """A copy with one number changed."""
    tensor = state[key].clone()
    tensor[index] += by
    return state | {key: tensor}


@pytest.mark.parametrize(
    ("source", "broken", "text"),
    [
        ("torchfcn", lambda s: change(s, "upscore8.weight", (1, 1, 3, 3), 1e-3), "upscore8.weight is not the bilinear"),
        ("torchfcn", lambda s: change(s, "upscore2.weight", (0, 2, 1, 1), 1e-3), "mixes class 0 into class 2"),
        ("torchfcn", lambda s: {k: v for k, v in s.items() if k != "upscore_pool4.weight"}, "lacks upscore_pool4"),
        ("torchfcn", lambda s: s | {"upscore2.weight": s["upscore8.weight"]}, "has shape"),
        ("torchfcn", lambda s: {k: v for k, v in s.items() if k != "fc7.bias"}, "1 missing: fc7.bias"),
        ("torchfcn", lambda s: s | {"conv9_1.weight": torch.zeros(1)}, "1 unknown: conv9_1.weight"),
        ("torchfcn", lambda s: s | {"scale_pool4.weight": torch.zeros(512)}, "1 unknown: scale_pool4.weight"),
        ("torchfcn", lambda s: s | {"fc7.bias": torch.zeros(3)}, r"fc7.bias \(3,\) instead of \(16,\)"),
        ("torchfcn", lambda s: s | {"score_pool4.bias": torch.zeros(4)}, r"score_pool4.bias \(4,\) instead"),
        ("torchfcn", lambda s: change(s, "fc6.bias", (0,), float("nan")), "NaN or infinite values in fc6.bias"),
        ("torchfcn", lambda s: s | {"fc7.bias": torch.zeros(16, dtype=torch.int64)}, "fc7.bias is torch.int64"),
        ("torchfcn", lambda s: s | {"score_fr.weight": torch.zeros(3)}, "must be the weight of a convolution"),
        ("torchfcn-atonce", lambda s: s | {"scale_pool4.weight": torch.full((512,), 0.02)}, "scale_pool4 is not 0.01"),
        ("torchfcn-atonce", lambda s: {k: v for k, v in s.items() if "pool3" not in k}, "FCN-8s"),
        ("mmseg", lambda s: s, "looks like a file of torchfcn or caffe"),
        ("torchvision", lambda s: s, "looks like a file of torchfcn or caffe"),
        ("caffe", lambda s: s, "it is a PyTorch file"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, source: Any, broken: Any, text: str) -> None:
    """A trained deconvolution, keys too few or too many, wrong shapes, NaN, another source: refused by name."""
    with pytest.raises(ConversionError, match=text):
        fcnzoo.convert(source, saved(tmp_path, broken(state_dict(8, 3))))


def test_wrong_wishes_are_refused(tmp_path: Path) -> None:
    """Another K, model or digest than the file has, and names that nobody knows."""
    path = saved(tmp_path, state_dict(16, 3))
    with pytest.raises(ConversionError, match="has 3 classes, not 21"):
        fcnzoo.convert("torchfcn", path, num_classes=21)
    with pytest.raises(ConversionError, match="holds fcn16s on paper/vgg16, not fcn8s on paper/vgg16"):
        fcnzoo.convert("torchfcn", path, model="fcn8s_vgg16")
    with pytest.raises(ConversionError, match=r"sha256 is [0-9a-f]{64}, not 00000000"):
        fcnzoo.convert("torchfcn", path, sha256="00000000")
    with pytest.raises(ValueError, match="first 8 or more"):
        fcnzoo.convert("torchfcn", path, sha256="1234567")
    with pytest.raises(fcnzoo.errors.UnknownModelError):
        fcnzoo.convert("torchfcn", path, model="fcn8s_vgg99")
    with pytest.raises(ValueError, match="source must be one of torchvision, torchfcn"):
        fcnzoo.convert("keras", path)  # pyright: ignore[reportArgumentType]
