"""Joint transforms that move pixels: what happens to an image happens to its mask.

Each is a `torchvision.transforms.v2.Transform` for a pair of `tv_tensors.Image` and
`tv_tensors.Mask`, so they mix with torchvision's own in a `v2.Compose`. Random numbers come from
torch's global generator only: a seed there repeats a transform to the bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2.functional import resize_image

from fcnzoo.images.preprocess import fit_size

if TYPE_CHECKING:
    from fcnzoo.config import Preprocess


class JointTransform(v2.Transform):
    """Base of the transforms below: takes an image and its mask, and refuses anything else.

    Plain tensors would be passed on unchanged by `v2.Transform`, which nobody would notice.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)
    _geometric = False  # whether pixels move, so that image and mask must be of one size

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Raise `TypeError` unless there is one image; for moving pixels, `ValueError` unless masks have its size."""
        images = [value for value in flat_inputs if isinstance(value, tv_tensors.Image)]
        if len(images) != 1 or not all(isinstance(value, tv_tensors.Image | tv_tensors.Mask) for value in flat_inputs):
            got = ", ".join(type(value).__name__ for value in flat_inputs)
            raise TypeError(f"{type(self).__name__} takes a tv_tensors.Image and its tv_tensors.Mask, got ({got})")
        for value in flat_inputs:
            if self._geometric and value.shape[-2:] != images[0].shape[-2:]:
                raise ValueError(f"image {tuple(images[0].shape)} and mask {tuple(value.shape)} differ in size")


class RandomScaleCrop(JointTransform):
    """Scale by a random factor, then crop at a random place; computes only what the crop shows.

    The factor is log-uniform: enlarging by 2 is as likely as shrinking by 2. The part of the image that
    the crop shows is cut out first, at whole pixels, and resized to the crop; so the factor is exact to
    half a pixel of that part, on each axis. Where the scaled image is smaller than the crop, the result
    is as small; `RandomPad` fills it up. Images are resized bilinearly with antialiasing, masks by
    nearest neighbor (exact: the pixel below the new pixel's center).

    Args:
        size: (height, width) of the crop; `None`: no crop, only scaling.
        scale: Smallest and largest factor.
        shorter_side: Images are first taken to have this many pixels on their shorter side
            (`Preprocess.resize`); `None`: as they are.
        longer_side: The same for the longer side (`Preprocess.longer_side`).
    """

    _geometric = True

    def __init__(
        self,
        size: tuple[int, int] | None,
        scale: tuple[float, float] = (0.5, 2.0),
        *,
        shorter_side: int | None = None,
        longer_side: int | None = None,
    ) -> None:
        super().__init__()
        if size is not None and min(size) < 1:
            raise ValueError(f"crop size must be (height, width), at least 1 × 1, got {tuple(size)}")
        if not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low ≤ high, got {tuple(scale)}")
        self.size, self.scale, self.shorter_side, self.longer_side = size, scale, shorter_side, longer_side

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the factor and the place."""
        have = flat_inputs[0].shape[-2:]
        power, *place = torch.rand(3).tolist()
        low, high = map(math.log, self.scale)
        factor = math.exp(low + (high - low) * power)
        if self.shorter_side is not None:
            factor *= self.shorter_side / min(have)
        if self.longer_side is not None:
            factor *= self.longer_side / max(have)
        cut, start, size = [], [], []
        for axis, length in enumerate(have):
            scaled = max(1, round(length * factor))
            want = scaled if self.size is None else min(scaled, self.size[axis])
            part = length if want == scaled else min(length, max(1, round(want / factor)))
            cut.append(part)
            start.append(int(place[axis] * (length - part + 1)))
            size.append(want)
        return {"start": start, "cut": cut, "size": size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut and resize an image or a mask."""
        (top, left), (height, width) = params["start"], params["cut"]
        part = inpt.as_subclass(Tensor)[..., top : top + height, left : left + width]
        return wrap(_resize(part, params["size"], mask=isinstance(inpt, tv_tensors.Mask)), inpt)


class RandomPad(JointTransform):
    """Fill images that are smaller than a crop up to its size, the image anywhere in it.

    After `Normalize`, 0 is the mean color, which is what the image is filled up with.

    Args:
        size: (height, width); an axis that is as long already stays.
        ignore_index: What masks are filled up with.
    """

    _geometric = True

    def __init__(self, size: tuple[int, int], ignore_index: int = 255) -> None:
        super().__init__()
        self.size, self.ignore_index = size, ignore_index

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the place."""
        height, width = (max(0, want - have) for want, have in zip(self.size, flat_inputs[0].shape[-2:], strict=True))
        top, left = (
            int(place * (room + 1)) for place, room in zip(torch.rand(2).tolist(), (height, width), strict=True)
        )
        return {"padding": [left, width - left, top, height - top]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad an image or a mask."""
        if not any(params["padding"]):
            return inpt
        value = self.ignore_index if isinstance(inpt, tv_tensors.Mask) else 0
        return wrap(F.pad(inpt.as_subclass(Tensor), params["padding"], value=value), inpt)


class ResizeImage(JointTransform):
    """Resize the image, and only the image, to what the network's preprocessing says.

    Scores are compared with the mask at the mask's own size.

    Args:
        preprocess: The network's preprocessing; without `resize` nothing happens.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # noqa: ARG002 - torchvision's signature
        """Resize the image."""
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        size = fit_size((inpt.shape[-2], inpt.shape[-1]), self.preprocess)
        filter_name = InterpolationMode(self.preprocess.interpolation)
        return wrap(resize_image(inpt.as_subclass(Tensor), list(size), filter_name, antialias=True), inpt)


def wrap(plain: Tensor, like: Tensor) -> Any:
    """Return a plain tensor as what `like` is: image or mask."""
    return tv_tensors.wrap(plain, like=like)  # pyright: ignore[reportCallIssue] - its decorator hides the signature


def _resize(part: Tensor, size: list[int], *, mask: bool) -> Tensor:
    if list(part.shape[-2:]) == size:
        return part
    if mask:
        return resize_image(part[None], size, InterpolationMode.NEAREST_EXACT)[0]
    return resize_image(part, size, InterpolationMode.BILINEAR, antialias=True)
