"""mmsegmentation's FCN on ResNet D8, against a network written again from its sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fcnzoo
from fcnzoo.errors import ConversionError
from fcnzoo.labels import get_label_set
from fcnzoo.weights.converters.mmseg_config import read_config

CONFIG = """
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    pretrained='open-mmlab://resnet50_v1c',
    backbone=dict(
        type='ResNetV1c', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1), norm_cfg=dict(type='SyncBN', requires_grad=True), norm_eval=False,
        style='pytorch', contract_dilation=True),
    decode_head=dict(
        type='FCNHead', in_channels=2048, in_index=3, channels=512, num_convs=2, concat_input=True,
        dropout_ratio=0.1, num_classes=19, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_channels=1024, in_index=2, channels=256, num_convs=1, concat_input=False,
        dropout_ratio=0.1, num_classes=19, align_corners=False))
train_cfg = dict()
dataset_type = 'CityscapesDataset'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=(512, 1024))]
lr = 1 / 3 * some_name
"""
"""As mmcv's `Config.pretty_text` writes it (configs/_base_/models/fcn_r50-d8.py)."""

CITYSCAPES = get_label_set("cityscapes").names


class ConvModule(nn.Module):
    """mmcv's, with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, outputs, H, W)."""
        return F.relu(self.bn(self.conv(x)))


class FCNHead(nn.Module):
    """`mmseg/models/decode_heads/fcn_head.py`."""

    def __init__(self, inputs: int, channels: int, classes: int, num_convs: int, concat_input: bool) -> None:
        super().__init__()
        self.convs = nn.Sequential(*(ConvModule(inputs if i == 0 else channels, channels) for i in range(num_convs)))
        if concat_input:
            self.conv_cat = ConvModule(inputs + channels, channels)
        self.concat_input = concat_input
        self.conv_seg = nn.Conv2d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, h, w) → (B, classes, h, w)."""
        out = self.convs(x)
        if self.concat_input:
            out = self.conv_cat(torch.cat([x, out], dim=1))
        return self.conv_seg(out)


class Bottleneck(nn.Module):
    """`mmseg/models/backbones/resnet.py`, style 'pytorch': the 3×3 convolution has stride and dilation."""

    def __init__(self, inplanes: int, planes: int, stride: int, dilation: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) → (B, 4·planes, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """mmseg's ResNet D8; `deep_stem` makes it ResNetV1c."""

    def __init__(self, blocks: tuple[int, ...], *, deep_stem: bool) -> None:
        super().__init__()
        if deep_stem:
            sizes = ((3, 32, 2), (32, 32, 1), (32, 64, 1))
            parts: list[nn.Module] = []
            for inputs, outputs, stride in sizes:
                parts += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.stem = nn.Sequential(*parts)
        else:
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
        self.deep_stem = deep_stem
        inplanes = 64
        for i, (count, stride, dilation) in enumerate(zip(blocks, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            planes = 64 * 2**i
            layers = []
            for number in range(count):
                first = number == 0
                # contract_dilation: the first block of a dilated stage has half the dilation.
                own = dilation // 2 if first and dilation > 1 else dilation
                downsample = None
                if first:
                    convolution = nn.Conv2d(inplanes, planes * 4, 1, stride, bias=False)
                    downsample = nn.Sequential(convolution, nn.BatchNorm2d(planes * 4))
                layers.append(Bottleneck(inplanes, planes, stride if first else 1, own, downsample))
                inplanes = planes * 4
            self.add_module(f"layer{i + 1}", nn.Sequential(*layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        """The four stages' features."""
        x = self.stem(x) if self.deep_stem else F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        features = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            features.append(x)
        return features


class EncoderDecoder(nn.Module):
    """`mmseg/models/segmentors/encoder_decoder.py`, mode 'whole'."""

    def __init__(self, blocks: tuple[int, ...] = (3, 4, 6, 3), classes: int = 19, *, deep_stem: bool = True) -> None:
        super().__init__()
        self.backbone = ResNet(blocks, deep_stem=deep_stem)
        self.decode_head = FCNHead(2048, 512, classes, 2, True)
        self.auxiliary_head = FCNHead(1024, 256, classes, 1, False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.2)
            if isinstance(module, Bottleneck):
                nn.init.constant_(module.bn3.weight, 0.3)  # so that values stay near 1 through all blocks
        self.eval()

    def forward(self, image: Tensor, *, align_corners: bool) -> tuple[Tensor, Tensor]:
        """Logits of both heads at the image's size."""
        features = self.backbone(image)
        maps = (self.decode_head(features[3]), self.auxiliary_head(features[2]))
        size = image.shape[2:]
        main, aux = (F.interpolate(x, size, mode="bilinear", align_corners=align_corners) for x in maps)
        return main, aux


def saved(tmp_path: Path, state: dict[str, Tensor], config: str | None = CONFIG, **meta: Any) -> Path:
    """A checkpoint as mmcv writes it."""
    if config is not None:
        meta["config"] = config
    torch.save({"meta": {"mmseg_version": "0.5.0", **meta}, "state_dict": state}, tmp_path / "fcn.pth")
    return tmp_path / "fcn.pth"


@pytest.fixture(scope="module")
def original() -> EncoderDecoder:
    """FCN-R50-D8 with random weights."""
    torch.manual_seed(0)
    return EncoderDecoder()


@pytest.mark.parametrize(
    ("blocks", "deep_stem", "align_corners"),
    [((3, 4, 6, 3), True, False), ((3, 4, 6, 3), False, True), ((3, 4, 23, 3), True, True)],
)
def test_logits_are_those_of_the_reference(
    tmp_path: Path, blocks: tuple[int, ...], deep_stem: bool, align_corners: bool
) -> None:
    """ResNetV1c and plain ResNet, 50 and 101, corners aligned or not: both heads within 1e-5, at an odd size."""
    theirs = EncoderDecoder(blocks, deep_stem=deep_stem)
    config = CONFIG.replace("align_corners=False", f"align_corners={align_corners}")
    config = config if deep_stem else config.replace("ResNetV1c", "ResNet")
    path = saved(tmp_path, theirs.state_dict(), config, CLASSES=CITYSCAPES)
    name = f"fcn_resnet{50 if blocks[2] == 6 else 101}{'c' if deep_stem else ''}"
    model = fcnzoo.convert("mmseg", path, model=name, num_classes=19)
    image = torch.randn(1, 3, 57, 83)
    with torch.no_grad():
        main, aux = theirs(image, align_corners=align_corners)
        assert main.abs().mean() < 30
        torch.testing.assert_close(model(image), main, rtol=1e-5, atol=1e-5)
        scores = model.scores(image, aux=True)
        assert scores.aux is not None and scores.aux_grid is not None
        got = fcnzoo.ops.upsample(scores.aux, scores.aux_grid, (57, 83))
        torch.testing.assert_close(got, aux, rtol=1e-5, atol=1e-5)
        assert torch.equal(model.predict(image).long(), main.argmax(1))
    assert model.label_set == get_label_set("cityscapes")
    assert model.config.loss.aux_weight == 0.4 and model.preprocess.mean == (123.675, 116.28, 103.53)
    assert model.provenance["align_corners"] is align_corners


def test_a_network_with_aligned_corners_trains_and_saves(tmp_path: Path, original: EncoderDecoder) -> None:
    """Its loss has gradients, images smaller than a cell are padded, and save and load keep the geometry."""
    config = CONFIG.replace("align_corners=False", "align_corners=True")
    model = fcnzoo.convert("mmseg", saved(tmp_path, original.state_dict(), config))
    loaded = fcnzoo.load(fcnzoo.save(model, tmp_path / "folder"))
    assert loaded.config == model.config and loaded.grid.align_corners
    model.train()(torch.randn(2, 3, 5, 7), torch.zeros(2, 5, 7, dtype=torch.int64)).backward()
    assert model.head.score.weight.grad is not None  # pyright: ignore


def test_geometry_that_the_file_does_not_say_must_be_said(tmp_path: Path, original: EncoderDecoder) -> None:
    """A state dict without mmseg's config could be D16: it converts under a model's name, and its receipt tells."""
    path = tmp_path / "bare.pth"
    torch.save(original.state_dict(), path)
    with pytest.raises(ConversionError, match=r"does not say its geometry.* model='fcn_resnet50c'"):
        fcnzoo.convert("mmseg", path)
    model = fcnzoo.convert("mmseg", path, model="fcn_resnet50c")
    assert model.label_set is None
    assert model.provenance["assumed"] == "output stride 8 by dilation, align_corners=False"


def test_the_files_meta_names_the_classes(tmp_path: Path, original: EncoderDecoder) -> None:
    """Other names make a set of their own; no names, none; too few, or twice the same, is refused."""
    state = original.state_dict()
    own = [f"thing {i} " for i in range(19)]
    model = fcnzoo.convert("mmseg", saved(tmp_path, state, CLASSES=own))
    assert model.label_set is not None and model.label_set.names == tuple(name.strip() for name in own)
    for wrong, text in (
        (own[:18], "names 18 classes, the score layer has 19"),
        (["x"] * 19, "cannot be a label set"),
        ("abc", "must be class names"),
    ):
        with pytest.raises(ConversionError, match=text):
            fcnzoo.convert("mmseg", saved(tmp_path, state, CLASSES=wrong))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("dilations=(1, 1, 2, 4)", "dilations=(1, 1, 1, 2)", r"backbone.dilations is \(1, 1, 1, 2\)"),
        ("strides=(1, 2, 1, 1)", "strides=(1, 2, 2, 1)", "backbone.strides"),
        ("contract_dilation=True", "contract_dilation=False", "contract_dilation is False"),
        ("channels=512,", "channels=512, dilation=6,", "decode_head.dilation is 6"),
        ("type='FCNHead', in_channels=2048", "type='PSPHead', in_channels=2048", "decode_head.type is 'PSPHead'"),
        ("in_index=2", "in_index=1", "auxiliary_head.in_index is 1"),
        ("model = dict(", "network = dict(", "describes no model"),
        ("norm_cfg = dict(", "norm_cfg = dict((", "cannot be read"),
        ("std=[58.395, 57.12, 57.375]", "std=[58.395]", "img_norm_cfg"),
    ],
)
def test_other_networks_of_mmseg_are_refused(
    tmp_path: Path, original: EncoderDecoder, old: str, new: str, text: str
) -> None:
    """D16, dilated heads, other heads and taps have the same keys; the config in the file tells them apart."""
    assert old in CONFIG
    with pytest.raises(ConversionError, match=text):
        fcnzoo.convert("mmseg", saved(tmp_path, original.state_dict(), CONFIG.replace(old, new, 1)))


def test_keys_that_do_not_fit_are_listed(tmp_path: Path, original: EncoderDecoder) -> None:
    """A missing or unknown key, and a ResNet of basic blocks, are refused in mmseg's own names."""
    state = original.state_dict()
    fewer = {key: tensor for key, tensor in state.items() if key != "backbone.stem.7.bias"}
    with pytest.raises(ConversionError, match=r"1 missing: backbone\.stem\.7\.bias"):
        fcnzoo.convert("mmseg", saved(tmp_path, fewer))
    with pytest.raises(ConversionError, match=r"1 unknown: decode_head\.query"):
        fcnzoo.convert("mmseg", saved(tmp_path, state | {"decode_head.query": torch.zeros(1)}))
    basic = {key: tensor for key, tensor in state.items() if "conv3" not in key}
    with pytest.raises(ConversionError, match="not a ResNet-50 or 101"):
        fcnzoo.convert("mmseg", saved(tmp_path, basic))
    with pytest.raises(ConversionError, match="looks like a file of mmseg"):
        fcnzoo.convert("torchvision", saved(tmp_path, state).rename(tmp_path / "x.pth"))


def test_config_text_is_read_and_never_run() -> None:
    """Literals and dict(…) are read; calls, names and comprehensions are left out; no code runs."""
    text = "a = dict(b=[1, -2], c={'d': (None, True)})\n"
    text += "e = __import__('os').getcwd()\nf = [x for x in 'ab']\ng = dict([1])\nh = {**a}\nimport os\n"
    assert read_config(text, "file") == {"a": {"b": [1, -2], "c": {"d": (None, True)}}}
    with pytest.raises(ConversionError, match="2,000,000 characters"):
        read_config("#" * 2_000_000, "file")
    with pytest.raises(ConversionError, match="cannot be read"):
        read_config("(" * 100_000, "file")
