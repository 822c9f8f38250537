"""Joint transforms, proved joint on pictures whose colors say their labels."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fcnzoo.config import Preprocess
from fcnzoo.data import (
    Normalize,
    PhotometricJitter,
    RandomIllumination,
    RandomPad,
    RandomScaleCrop,
    ToTensors,
    make_transform,
)
from fcnzoo.images.preprocess import to_tensor

PALETTE = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250], [200, 200, 20], [20, 20, 20]], dtype=torch.uint8)
PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CAFFE = Preprocess(mean=(104.0, 116.5, 122.25), std=(1, 1, 1), channel_order="bgr", value_range=255)


def coded(height: int = 60, width: int = 80, seed: int = 0) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Return rectangles of random labels, each in its label's color."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    for _ in range(12):
        top, left = (int(torch.randint(0, size - 8, (), generator=generator)) for size in (height, width))
        mask[top : top + 24, left : left + 24] = int(torch.randint(0, 5, (), generator=generator))
    return tv_tensors.Image(PALETTE[mask.long()].permute(2, 0, 1)), tv_tensors.Mask(mask)


def interior(mask: Tensor, margin: int = 4) -> Tensor:
    """Return where all labels within `margin` are one: there, interpolation mixes no colors."""
    wide = mask[None, None].float()
    size = 2 * margin + 1
    high = torch.nn.functional.max_pool2d(wide, size, 1, margin)
    low = -torch.nn.functional.max_pool2d(-wide, size, 1, margin)
    return (high == low)[0, 0]


def nearest_label(image: Tensor) -> Tensor:
    """Return the label whose color is nearest to each pixel of (3, H, W) in 0…1."""
    distance = (image[:, None] - PALETTE.T[:, :, None, None] / 255).square().sum(0)
    return distance.argmin(0)


@pytest.mark.parametrize("seed", range(12))
def test_image_and_mask_stay_together(seed: int) -> None:
    """After scale, crop, flip, jitter, normalization and padding every pixel still shows its label's color."""
    torch.manual_seed(seed)
    transform = make_transform(PLAIN, train=True, crop_size=(48, 56), jitter=0.1)
    image, target = transform(*coded(seed=seed))
    assert (image.shape, image.dtype) == ((3, 48, 56), torch.float32)
    assert (target.shape, target.dtype) == ((48, 56), torch.int64)
    assert type(image) is type(target) is Tensor
    assert set(target.unique().tolist()) <= {0, 1, 2, 3, 4, 255}
    sure = interior(target) & (target != 255)
    assert sure.sum() > 100
    assert torch.equal(nearest_label(image)[sure], target[sure])
    padding = target == 255
    assert (image[:, padding] == 0).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.37, 2.0])
def test_masks_are_sampled_where_images_are(scale: float, layout: torch.memory_format) -> None:
    """A ramp of gray and the same ramp as labels stay equal on average: no half-pixel shift, no blending."""
    ramp = (torch.arange(60)[:, None] + 2 * torch.arange(80)).to(torch.uint8)
    image = tv_tensors.Image(ramp.expand(1, 3, 60, 80).contiguous(memory_format=layout)[0])
    torch.manual_seed(1)
    image, mask = RandomScaleCrop((40, 50), (scale, scale))(image, tv_tensors.Mask(ramp))
    assert image.shape[1:] == mask.shape == (min(40, round(60 * scale)), min(50, round(80 * scale)))
    difference = (image.float().mean(0) - mask.float())[2:-2, 2:-2]
    # Half a pixel of shift would be 1.5, rounding to bytes is up to 0.5. At half size an image pixel is the
    # mean of four, of which nearest sampling can only take one, the last: 0.5 + 2 · 0.5 more.
    assert abs(float(difference.mean()) + (1.5 if scale == 0.5 else 0)) < 0.6
    assert float(difference.abs().max()) <= 2.5


def test_the_crop_is_a_part_of_the_scaled_image() -> None:
    """Cutting out before resizing gives the pixels of resizing first, away from the cut."""
    image, mask = coded()
    whole = F.resize(image, [120, 160], antialias=True)
    torch.manual_seed(3)
    step = RandomScaleCrop((60, 80), (2.0, 2.0))
    params = step.make_params([image])
    (top, left), size = params["start"], params["cut"]
    assert size == [30, 40]
    part = step.transform(image, params)
    expected = whole[:, 2 * top : 2 * top + 60, 2 * left : 2 * left + 80]
    assert torch.equal(part[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2])
    assert torch.equal(
        step.transform(mask, params),
        mask[top : top + 30, left : left + 40].repeat_interleave(2, 0).repeat_interleave(2, 1),
    )


def test_scales_are_log_uniform_and_places_cover_the_image() -> None:
    """Half of the factors are below 1, all lie in the range, and crops reach every border."""
    torch.manual_seed(0)
    step, image = RandomScaleCrop((100, 100), (0.5, 2.0)), tv_tensors.Image(torch.zeros(3, 400, 500, dtype=torch.uint8))
    draws = [step.make_params([image]) for _ in range(2000)]
    factors = np.array([100 / draw["cut"][0] for draw in draws])
    assert factors.min() == pytest.approx(0.5, rel=0.02)
    assert factors.max() == pytest.approx(2.0, rel=0.02)
    assert abs(np.mean(factors < 1) - 0.5) < 0.05
    assert abs(np.mean(factors < math.sqrt(2)) - 0.75) < 0.05
    for axis, length in enumerate((400, 500)):
        assert min(draw["start"][axis] for draw in draws) == 0
        assert max(draw["start"][axis] + draw["cut"][axis] for draw in draws) == length


def test_without_crop_whole_pictures_are_scaled() -> None:
    """`crop_size=None` keeps all of the picture, at its scaled size."""
    image, target = make_transform(PLAIN, train=True, scale=(1.5, 1.5), flip=0, jitter=0)(*coded())
    assert image.shape == (3, 90, 120)
    assert target.shape == (90, 120)
    sure = interior(target)
    assert torch.equal(nearest_label(image)[sure], target[sure])


def test_padding_is_the_mean_color_anywhere() -> None:
    """Small pictures lie anywhere in the crop; around them are 0, the mean after normalization, and ignore."""
    step = RandomPad((10, 12), ignore_index=-1)
    image, mask = tv_tensors.Image(torch.ones(3, 7, 12)), tv_tensors.Mask(torch.full((7, 12), 2))
    tops = set()
    torch.manual_seed(0)
    for _ in range(60):
        padded, labels = step(image, mask)
        assert padded.shape == (3, 10, 12)
        rows = (labels == 2).all(1).nonzero()[:, 0]
        tops.add(int(rows[0]))
        assert rows.tolist() == list(range(rows[0], rows[0] + 7))
        assert torch.equal((padded == 1).all(0), labels == 2)
        assert torch.equal((padded == 0).all(0), labels == -1)
    assert tops == {0, 1, 2, 3}
    assert step(tv_tensors.Image(torch.ones(3, 10, 12)), tv_tensors.Mask(torch.ones(10, 12)))[0].shape == (3, 10, 12)


def test_flips_happen_as_often_as_asked() -> None:
    """`flip` is a probability; image and mask flip together."""
    image, mask = coded()
    for flip, low, high in [(0.0, 0, 0), (1.0, 40, 40), (0.5, 8, 32)]:
        torch.manual_seed(0)
        transform = make_transform(PLAIN, train=True, scale=(1, 1), flip=flip, jitter=0)
        flipped = 0
        for _ in range(40):
            out, target = transform(image, mask)
            same = torch.equal(target, mask.long())
            assert same or torch.equal(target, mask.flip(1).long())
            assert torch.equal(out, (image if same else image.flip(2)).float() / 255)
            flipped += not same
        assert low <= flipped <= high


def test_jitter_equals_torchvision() -> None:
    """One matrix gives what torchvision's saturation, brightness and contrast give one after the other."""
    image = tv_tensors.Image(torch.randint(90, 160, (3, 20, 30), dtype=torch.uint8))  # nothing is clamped
    step = PhotometricJitter(0.3)
    for params in [
        {"saturation": 1.3, "brightness": 0.8, "contrast": 1.2},
        {"saturation": 0.7, "brightness": 1.2, "contrast": 0.7},
        {"saturation": 1.0, "brightness": 1.0, "contrast": 1.0},
    ]:
        plain = F.to_dtype(image, torch.float32, scale=True)
        expected = F.adjust_saturation(plain, params["saturation"])
        expected = F.adjust_contrast(F.adjust_brightness(expected, params["brightness"]), params["contrast"])
        torch.testing.assert_close(step.transform(image, params), expected, rtol=0, atol=2e-4)  # its luma: 0.2989
    torch.manual_seed(0)
    draws = [step.make_params([]) for _ in range(500)]
    for name in ("saturation", "brightness", "contrast"):
        values = [draw[name] for draw in draws]
        assert 0.7 <= min(values) < 0.71
        assert 1.29 < max(values) <= 1.3
    white = step(tv_tensors.Image(torch.full((3, 4, 4), 255, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(4, 4)))[0]
    assert white.max() <= 1


@pytest.mark.parametrize("preprocess", [Preprocess(), CAFFE, PLAIN], ids=["imagenet", "caffe", "plain"])
def test_normalization_is_the_networks_own(preprocess: Preprocess) -> None:
    """Evaluation transforms equal `to_tensor` to the bit: channel order, range, mean and deviation."""
    image, mask = coded()
    out, target = make_transform(preprocess, train=False)(image, mask)
    assert torch.equal(out, to_tensor(image, preprocess)[0])
    assert torch.equal(target, mask.long())
    unit = tv_tensors.Image(image.float() / 255)
    torch.testing.assert_close(Normalize(preprocess)(unit, mask)[0], out, rtol=1e-6, atol=1e-4)


def test_one_channel_networks_get_gray() -> None:
    """A network of one channel gets Pillow's gray to within rounding."""
    gray = Preprocess(mean=(0.5,), std=(0.25,))
    image, mask = coded()
    out, _ = make_transform(gray, train=False)(image, mask)
    assert out.shape == (1, 60, 80)
    torch.testing.assert_close(
        out, to_tensor(Image.fromarray(image.permute(1, 2, 0).numpy()), gray)[0], atol=0.01, rtol=0
    )
    with pytest.raises(ValueError, match="takes 4 channels"):
        make_transform(Preprocess(mean=(0.5,) * 4, std=(1.0,) * 4), train=True)


def test_networks_that_resize() -> None:
    """`resize` and `longer_side`: evaluation resizes the image and not the mask; training scales from that size."""
    for small in (PLAIN.replace(resize=30), PLAIN.replace(longer_side=40)):
        image, target = make_transform(small, train=False)(*coded())
        assert (image.shape, target.shape) == ((3, 30, 40), (60, 80))
        image, target = make_transform(small, train=True, scale=(2.0, 2.0), flip=0, jitter=0)(*coded())
        assert (image.shape, target.shape) == ((3, 60, 80), (60, 80))


def test_a_seed_repeats_everything_and_nothing_else_matters() -> None:
    """Torch's seed alone decides: Python's and NumPy's random numbers play no part."""
    transform, pair = make_transform(Preprocess(), train=True, crop_size=(40, 40)), coded()
    results = []
    for _ in range(2):
        random.seed(random.random())
        torch.manual_seed(7)
        results.append([transform(*pair) for _ in range(5)])
        np.random.default_rng().random()
    for (image, target), (again, target_again) in zip(*results, strict=True):
        assert torch.equal(image, again)
        assert torch.equal(target, target_again)
    images = [image for image, _ in results[0]]
    assert not any(torch.equal(images[i], images[j]) for i in range(5) for j in range(i))


def test_inputs_stay_as_they_were() -> None:
    """A transform changes neither the image nor the mask that it is given."""
    image, mask = coded()
    copies = image.clone(), mask.clone()
    for seed in range(5):
        torch.manual_seed(seed)
        make_transform(CAFFE, train=True, crop_size=(60, 80), scale=(1, 1))(image, mask)
    make_transform(CAFFE, train=False)(image, mask)
    assert torch.equal(image, copies[0])
    assert torch.equal(mask, copies[1])


def test_they_mix_with_torchvisions() -> None:
    """The steps are `v2.Transform`s: they compose with torchvision's own."""
    chain = v2.Compose([RandomScaleCrop((32, 32)), v2.RandomVerticalFlip(1.0), RandomPad((32, 32)), ToTensors()])
    image, target = chain(*coded())
    assert (image.shape, target.shape) == ((3, 32, 32), (32, 32))


def test_wrong_inputs_are_refused() -> None:
    """Plain tensors, two images, and sizes that differ are errors, not passed on unchanged."""
    image, mask = coded()
    step = RandomScaleCrop((10, 10))
    with pytest.raises(TypeError, match=r"tv_tensors.Image and its tv_tensors.Mask, got \(Tensor, Tensor\)"):
        step(image.as_subclass(Tensor), mask.as_subclass(Tensor))
    with pytest.raises(TypeError, match=r"got \(Image, Tensor\)"):
        step(image, mask.as_subclass(Tensor))
    with pytest.raises(ValueError, match="differ in size"):
        step(image, tv_tensors.Mask(mask[:-1]))
    with pytest.raises(ValueError, match="RGB"):
        PhotometricJitter()(tv_tensors.Image(image[:1]), mask)


@pytest.mark.parametrize(
    "bad", [{"crop_size": (0, 5)}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"flip": 1.5}, {"jitter": 1.0}], ids=str
)
def test_impossible_settings_are_refused(bad: dict[str, object]) -> None:
    """A value out of range is an error when the transform is made, and names the setting."""
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[0]):
        make_transform(PLAIN, train=True, **bad)  # pyright: ignore[reportArgumentType]


def test_illumination_is_its_formula() -> None:
    """Factor, gain of red and blue, cut at 1, power: as written out pixel by pixel; the mask stays."""
    image = tv_tensors.Image(torch.randint(0, 256, (3, 9, 7), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.randint(0, 3, (9, 7)))
    transform = RandomIllumination(exposure=(0.5, 2.0), gamma=(0.5, 2.0), temperature=0.2)
    torch.manual_seed(3)
    got, same = transform(image, mask)
    torch.manual_seed(3)
    draws = torch.rand(3, dtype=torch.float64)
    factor, gamma = (0.5 * 4.0 ** float(draw) for draw in draws[:2])
    shift = 0.2 * (2 * float(draws[2]) - 1)
    want = torch.stack(
        [
            (image[c].double() / 255 * factor * gain).clamp(max=1) ** gamma
            for c, gain in enumerate((1 + shift, 1, 1 - shift))
        ]
    )
    torch.testing.assert_close(got.as_subclass(torch.Tensor), want.float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(same, mask)


def test_illumination_stays_in_its_ranges() -> None:
    """Both ends are reached and not passed; the neutral one changes nothing."""
    gray = tv_tensors.Image(torch.full((3, 2, 2), 64, dtype=torch.uint8))
    values = [float(RandomIllumination(exposure=(0.5, 2.0))(gray)[0, 0, 0]) * 255 / 64 for _ in range(300)]
    assert 0.5 <= min(values) < 0.55 and 1.85 < max(values) <= 2.0 + 1e-6
    assert torch.equal(RandomIllumination()(gray).as_subclass(torch.Tensor), torch.full((3, 2, 2), 64 / 255))


@pytest.mark.parametrize(
    "options",
    [{"exposure": (0, 1)}, {"exposure": (2, 1)}, {"gamma": (-1, 1)}, {"temperature": 1}, {"temperature": -0.1}],
)
def test_impossible_illumination(options: dict) -> None:
    """Ranges that are none are refused by name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        RandomIllumination(**options)


def test_the_whole_chain_with_everything() -> None:
    """Illumination, blur and noise together: float32, finite, of the crop's size, repeated to the bit by its seed."""
    image = tv_tensors.Image(torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.randint(0, 3, (60, 80), dtype=torch.uint8))
    options = {"exposure": (0.6, 1.6), "gamma": (0.5, 1.7), "temperature": 0.1, "blur": 1.0, "noise": 0.05}
    chain = make_transform(Preprocess(), train=True, crop_size=(48, 64), **options)
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append([chain(image, mask) for _ in range(6)])
    for (one, target), (other, again) in zip(*runs, strict=True):
        assert one.shape == (3, 48, 64) and one.dtype == torch.float32 and bool(one.isfinite().all())
        assert torch.equal(one, other) and torch.equal(target, again)
