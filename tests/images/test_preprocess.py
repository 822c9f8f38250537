"""From a picture to a tensor, compared with torchvision's transforms and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF
from torchvision.transforms import v2
from torchvision.transforms.functional import InterpolationMode

from fcnzoo.config import Preprocess
from fcnzoo.images.preprocess import fit_size, to_tensor

IMAGENET = Preprocess()
CAFFE = Preprocess(mean=(104.00698793, 116.66876762, 122.67891434), std=(1, 1, 1), channel_order="bgr", value_range=255)


def photo(height: int = 23, width: int = 31, channels: int = 3) -> np.ndarray:
    """Return a random picture (H, W, C)."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_equals_torchvision_to_the_bit() -> None:
    """ImageNet preprocessing equals torchvision's ToTensor and Normalize exactly."""
    image = Image.fromarray(photo())
    reference = TF.normalize(TF.to_tensor(image), list(IMAGENET.mean), list(IMAGENET.std))
    tensor = to_tensor(image, IMAGENET)
    torch.testing.assert_close(tensor, reference[None], rtol=0, atol=0)
    assert tensor.is_contiguous()
    assert (tensor.dtype, tensor.shape) == (torch.float32, (1, 3, 23, 31))


def test_caffe_preprocessing_is_bgr_minus_mean() -> None:
    """Caffe's networks see BGR bytes minus the mean, not divided: as the published nets' data layers do."""
    expected = (photo()[:, :, ::-1].astype(np.float32) - np.array(CAFFE.mean, np.float32)).transpose(2, 0, 1)
    np.testing.assert_array_equal(to_tensor(Image.fromarray(photo()), CAFFE)[0].numpy(), expected)


def test_arrays_tensors_and_pictures_agree() -> None:
    """The same pixels as a PIL image, an array, a read-only or flipped view, or a tensor give the same tensor."""
    expected = to_tensor(Image.fromarray(photo()), IMAGENET)
    frozen = photo()
    frozen.flags.writeable = False
    flipped = np.ascontiguousarray(photo()[::-1])[::-1]
    for source in (photo(), frozen, flipped, torch.from_numpy(photo()).permute(2, 0, 1)):
        assert torch.equal(to_tensor(source, IMAGENET), expected)


def test_the_source_is_not_changed() -> None:
    """Arrays and tensors that are given keep their values."""
    array = photo()
    tensor = torch.from_numpy(photo()).permute(2, 0, 1)
    plain = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=255)
    to_tensor(array, plain).zero_()
    to_tensor(tensor, plain).zero_()
    np.testing.assert_array_equal(array, photo())
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), photo())


def test_gray_network() -> None:
    """A network of one channel sees Pillow's luma; a gray source is taken as it is."""
    gray = Preprocess(mean=(0.5,), std=(0.25,))
    luma = np.asarray(Image.fromarray(photo()).convert("L"), np.float32)
    for source in (Image.fromarray(photo()), photo()):
        np.testing.assert_allclose(to_tensor(source, gray)[0, 0].numpy(), (luma / 255 - 0.5) / 0.25, rtol=0, atol=1e-6)
    one = photo(channels=1)
    for source in (one, one[:, :, 0], Image.fromarray(one[:, :, 0]), torch.from_numpy(one[:, :, 0])[None]):
        np.testing.assert_allclose(to_tensor(source, gray)[0, 0], (one[:, :, 0] / 255 - 0.5) / 0.25, rtol=0, atol=1e-6)


def test_gray_source_for_a_color_network() -> None:
    """Gray sources are repeated over the three channels."""
    expected = to_tensor(np.repeat(photo(channels=1), 3, 2), IMAGENET)
    one = photo(channels=1)
    for source in (one, one[:, :, 0], Image.fromarray(one[:, :, 0])):
        assert torch.equal(to_tensor(source, IMAGENET), expected)


def test_16_bit_gray_is_not_clipped() -> None:
    """A 16-bit PIL image goes through the rule of `load_image`, not Pillow's clipping conversion."""
    image = Image.fromarray(np.full((4, 5), 257 * 100, np.uint16))
    assert torch.equal(to_tensor(image, IMAGENET), to_tensor(np.full((4, 5, 3), 100, np.uint8), IMAGENET))


def test_other_channel_counts_need_an_array() -> None:
    """A network of five channels takes arrays and tensors of five; all else is one clear error."""
    five = Preprocess(mean=(0.1, 0.2, 0.3, 0.4, 0.5), std=(1, 2, 3, 4, 5))
    array = photo(channels=5)
    expected = ((array / 255 - np.array(five.mean)) / np.array(five.std)).transpose(2, 0, 1)
    np.testing.assert_allclose(to_tensor(array, five)[0], expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        to_tensor(torch.from_numpy(array).permute(2, 0, 1), five)[0], expected, rtol=0, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"5 channels.*\(H, W, 5\)"):
        to_tensor(Image.fromarray(photo()), five)
    with pytest.raises(ValueError, match="5 channels, the image has 3"):
        to_tensor(photo(), five)
    with pytest.raises(ValueError, match="3 channels, the image has 5"):
        to_tensor(array, IMAGENET)


def test_dtype_and_device() -> None:
    """float64 is computed in float64; half precision is rounded once; the device is where it was asked."""
    exact = (photo() / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(to_tensor(photo(), IMAGENET, dtype=torch.float64)[0].permute(1, 2, 0), exact, atol=1e-14)
    half = to_tensor(photo(), IMAGENET, dtype=torch.bfloat16)
    assert torch.equal(half, to_tensor(photo(), IMAGENET).to(torch.bfloat16))
    assert to_tensor(photo(), IMAGENET, device="meta").device.type == "meta"


@pytest.mark.parametrize("size", [(23, 31), (31, 23), (30, 30), (1, 7), (333, 500), (500, 375)])
@pytest.mark.parametrize("resize", [16, 32, 520])
def test_fit_size_is_torchvisions_rule(size: tuple[int, int], resize: int) -> None:
    """The resized shape equals that of torchvision's Resize(int)."""
    expected = v2.Resize(resize)(torch.zeros(1, *size)).shape[1:]
    assert fit_size(size, Preprocess(resize=resize)) == tuple(expected)


@pytest.mark.parametrize(
    ("size", "seen"),
    [
        ((640, 480), (513, 385)),
        ((300, 451), (341, 513)),
        ((2, 4), (257, 513)),
        ((1, 3000), (1, 513)),
        ((7, 7), (513, 513)),
    ],
)
def test_fit_size_of_the_longer_side(size: tuple[int, int], seen: tuple[int, int]) -> None:
    """The longer side becomes the length, whether shrunk or enlarged; the other is rounded, and never nothing."""
    assert fit_size(size, Preprocess(longer_side=513)) == seen
    assert fit_size(size[::-1], Preprocess(longer_side=513)) == seen[::-1]


def test_only_one_side_is_given_a_length() -> None:
    """`longer_side` goes without `resize`, and is at least 1."""
    for options in ({"longer_side": 0}, {"longer_side": 513, "resize": 520}):
        with pytest.raises(ValueError, match=r"Preprocess\.longer_side"):
            Preprocess(**options)  # pyright: ignore[reportArgumentType]


def test_fit_size_without_resize_and_of_nothing() -> None:
    """Without resize the size stays; an empty or absurdly narrow image is refused."""
    assert fit_size((3, 5), IMAGENET) == (3, 5)
    with pytest.raises(ValueError, match="≥ 1"):
        fit_size((0, 5), IMAGENET)
    with pytest.raises(ValueError, match=r"400000 × 1 pixels is too narrow.*520"):
        fit_size((1, 400_000), Preprocess(resize=520))


@pytest.mark.parametrize("filter_name", ["bilinear", "bicubic", "nearest"])
def test_resize_is_torchvisions_on_pil(filter_name: str) -> None:
    """A resized picture equals torchvision's Resize of the PIL image with the same filter."""
    image = Image.fromarray(photo(40, 61))
    mode = {
        "bilinear": InterpolationMode.BILINEAR,
        "bicubic": InterpolationMode.BICUBIC,
        "nearest": InterpolationMode.NEAREST,
    }
    expected = to_tensor(v2.Resize(24, mode[filter_name])(image), IMAGENET)
    preprocess = Preprocess(resize=24, interpolation=filter_name)  # pyright: ignore[reportArgumentType]
    assert torch.equal(to_tensor(image, preprocess), expected)
    assert torch.equal(to_tensor(photo(40, 61), preprocess), expected)


def test_resize_of_other_channel_counts() -> None:
    """Five channels are resized one by one: three of them equal the RGB result."""
    five = Preprocess(mean=(0.0,) * 5, std=(1.0,) * 5, resize=24)
    three = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, resize=24)
    array = photo(40, 61, 5)
    assert torch.equal(to_tensor(array, five)[:, 1:4], to_tensor(np.ascontiguousarray(array[:, :, 1:4]), three))


@pytest.mark.parametrize("source", [np.zeros((3, 4, 3)), torch.zeros(3, 4, 4), "a.png", None])
def test_wrong_types_are_refused(source: object) -> None:
    """Floats and other types are a TypeError."""
    with pytest.raises(TypeError):
        to_tensor(source, IMAGENET)  # pyright: ignore[reportArgumentType]
