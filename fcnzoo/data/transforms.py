"""Joint transforms that change colors, and the whole chain from a data set's pairs to a network's input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcnzoo.data.geometry import JointTransform, RandomPad, RandomScaleCrop, ResizeImage, wrap

if TYPE_CHECKING:
    from fcnzoo.config import Preprocess

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's gray


class PhotometricJitter(JointTransform):
    """Vary saturation, brightness and contrast, in this order, each by a factor of 1 ± `strength`.

    All three are linear in the colors, so they are one 3×3 matrix and one shift, applied in one pass;
    the result is clamped once, at the end. The masks stay.

    Args:
        strength: In [0, 1); the factors are uniform in [1 − strength, 1 + strength].

    Takes a uint8 image (3, H, W), or floats in 0…1; gives float32 in 0…1.
    """

    def __init__(self, strength: float = 0.3) -> None:
        super().__init__()
        if not 0 <= strength < 1:
            raise ValueError(f"jitter must be in [0, 1), got {strength}")
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - torchvision's signature
        """Draw the three factors."""
        factors = (1 + self.strength * (2 * torch.rand(3, dtype=torch.float64) - 1)).tolist()
        return dict(zip(("saturation", "brightness", "contrast"), factors, strict=True))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the factors to the image."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        if inpt.shape[0] != 3:
            raise ValueError(f"photometric jitter is for RGB images (3, H, W), got {tuple(inpt.shape)}")
        pixels = _unit_range(inpt).reshape(3, -1)
        saturation, brightness, contrast = params["saturation"], params["brightness"], params["contrast"]
        luma = torch.tensor(_LUMA)
        gray = float(luma @ pixels.mean(1)) * brightness  # of the whole image; saturation does not change it
        matrix = (saturation * torch.eye(3) + (1 - saturation) * luma) * (brightness * contrast)
        pixels = torch.addmm(torch.tensor((1 - contrast) * gray).expand(3, 1), matrix, pixels).clamp_(0, 1)
        return wrap(pixels.view(inpt.shape), inpt)


class RandomIllumination(JointTransform):
    """Vary exposure, color temperature and tone curve, as between noon, shade and dusk; masks stay.

    `(factor · gain_c · v) ** gamma`, cut off at 1 before the power, for values v in 0…1. The gain is 1 + t for red,
    1 − t for blue and 1 for green.

    Args:
        exposure: Smallest and largest factor; log-uniform.
        gamma: Smallest and largest power; log-uniform. More than 1 darkens.
        temperature: Largest |t|; uniform.

    Takes a uint8 image (3, H, W), or floats in 0…1; gives float32 in 0…1.
    """

    def __init__(
        self,
        exposure: tuple[float, float] = (1.0, 1.0),
        gamma: tuple[float, float] = (1.0, 1.0),
        temperature: float = 0.0,
    ) -> None:
        super().__init__()
        for name, (low, high) in (("exposure", exposure), ("gamma", gamma)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low ≤ high, got {(low, high)}")
        if not 0 <= temperature < 1:
            raise ValueError(f"temperature must be in [0, 1), got {temperature}")
        self.exposure, self.gamma, self.temperature = exposure, gamma, temperature

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:  # noqa: ARG002 - torchvision's signature
        """Draw the factor, the power and the temperature."""
        draws = torch.rand(3, dtype=torch.float64).tolist()
        factor, gamma = (
            low * (high / low) ** draw for (low, high), draw in zip((self.exposure, self.gamma), draws[:2], strict=True)
        )
        return {"factor": factor, "gamma": gamma, "temperature": self.temperature * (2 * draws[2] - 1)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply them to the image."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        if inpt.shape[0] != 3:
            raise ValueError(f"random illumination is for RGB images (3, H, W), got {tuple(inpt.shape)}")
        shift = params["temperature"]
        gains = torch.tensor([1 + shift, 1, 1 - shift]) * params["factor"]
        pixels = (_unit_range(inpt) * gains.view(3, 1, 1)).clamp_(0, 1).pow_(params["gamma"])
        return wrap(pixels, inpt)


class Normalize(JointTransform):
    """Bring an image into the channel order, value range, mean and deviation of a network; masks stay.

    For uint8 images it computes what `fcnzoo.images.to_tensor` does, to the bit; it does not resize.
    A network of one channel gets the ITU-R 601 gray of the image.

    Args:
        preprocess: The network's preprocessing.

    Takes a uint8 image (3, H, W), or floats in 0…1; gives float32.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        if len(preprocess.mean) not in (1, 3):
            raise ValueError(f"data sets hold RGB images, the network takes {len(preprocess.mean)} channels")
        self.preprocess = preprocess
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - torchvision's signature
        """Normalize the image."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        pixels = inpt.as_subclass(Tensor)
        if self.preprocess.value_range == 1:
            pixels = _unit_range(pixels)
        else:
            pixels = pixels * 255 if pixels.is_floating_point() else pixels.float()
        if len(self.mean) == 1:
            pixels = (pixels * torch.tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
        elif self.preprocess.channel_order == "bgr":
            pixels = pixels.flip(0)
        return wrap(pixels.sub(self.mean).div_(self.std), inpt)


class ToTensors(v2.Transform):
    """End of the chain: a plain float tensor (C, H, W), contiguous, and a plain int64 target (H, W)."""

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - torchvision's signature
        """Unwrap an image or a mask."""
        plain = inpt.as_subclass(Tensor).contiguous()
        return plain.long() if isinstance(inpt, tv_tensors.Mask) else plain


def make_transform(
    preprocess: Preprocess,
    *,
    train: bool,
    crop_size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.5, 2.0),
    flip: float = 0.5,
    jitter: float = 0.3,
    exposure: tuple[float, float] = (1.0, 1.0),
    gamma: tuple[float, float] = (1.0, 1.0),
    temperature: float = 0.0,
    blur: float = 0.0,
    noise: float = 0.0,
    ignore_index: int = 255,
) -> v2.Compose:
    """Return the transform from a data set's pairs to a network's input and target.

    In training: random scale and crop, flip, photometric jitter, illumination, blur and noise, normalization, padding
    with the mean color and `ignore_index` at a random place. Otherwise: normalization alone (the image, not the
    mask, resized if the network's preprocessing says so).

    Args:
        preprocess: The network's: `model.preprocess`.
        train: Whether to vary the pictures; the arguments below are for that.
        crop_size: (height, width) of the result; `None`: whole pictures, which then differ in size
            unless `scale` is (1, 1) and they all have one.
        scale: Range of the random scale; log-uniform.
        flip: Probability of a left-right flip.
        jitter: Brightness, contrast and saturation vary by ± this share; 0: not at all.
        exposure: Range of the random exposure, as `gamma` and `temperature` one of `RandomIllumination`'s.
        gamma: Range of the random power of the values.
        temperature: Largest shift between red and blue.
        blur: Every other picture is blurred, by a Gaussian of up to this deviation in pixels; 0: none.
        noise: Every other picture gets normal noise of this deviation, for values in 0…1; 0: none.
        ignore_index: Target value of the padding: the label set's.

    Returns:
        A callable (`tv_tensors.Image` uint8 (3, H, W), `tv_tensors.Mask` (H, W)) → (float32 (C, h, w),
        int64 (h, w)). Random numbers come from torch's global generator only.

    Raises:
        ValueError: A value is out of range.
    """
    if not train:
        return v2.Compose([ResizeImage(preprocess), Normalize(preprocess), ToTensors()])
    if not 0 <= flip <= 1:
        raise ValueError(f"flip must be in [0, 1], got {flip}")
    steps: list[v2.Transform] = [
        RandomScaleCrop(crop_size, scale, shorter_side=preprocess.resize, longer_side=preprocess.longer_side)
    ]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if jitter:
        steps.append(PhotometricJitter(jitter))
    if (*exposure, *gamma, temperature) != (1, 1, 1, 1, 0):
        steps.append(RandomIllumination(exposure, gamma, temperature))
    if blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(2 * math.ceil(3 * blur) + 1, (min(0.1, blur), blur))]))
    if noise:
        steps += [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)]
        steps += [v2.RandomApply([v2.GaussianNoise(sigma=noise)])]
    steps.append(Normalize(preprocess))
    if crop_size is not None:
        steps.append(RandomPad(crop_size, ignore_index))
    return v2.Compose([*steps, ToTensors()])


def _unit_range(pixels: Tensor) -> Tensor:
    """Return bytes as floats in 0…1 (in new memory); floats as they are."""
    pixels = pixels.as_subclass(Tensor)
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)
