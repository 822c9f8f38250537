"""One graph from a picture of bytes to labels, written so that its sizes can stay open.

What `Predictor` does with Pillow, NumPy and branches is said here in operations on tensors whose sizes are symbols:
rows are picked by indices instead of slices, padding is picking beyond the edge and multiplying by zero, and resizing
is a product with a small matrix. Nothing here asks which of two sizes is larger, so one graph serves all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.config import Grid, Padding, Preprocess
from fcnzoo.inference.exporters.filters import resize, resize_bytes
from fcnzoo.inference.exporters.open_sizes import open_sizes, pick
from fcnzoo.inference.exporters.open_windows import open_windows
from fcnzoo.inference.resized import nearest_pixel, sample_resized
from fcnzoo.model.fcn import FCN
from fcnzoo.ops import label_dtype

Output = Literal["labels", "logits", "scores"]
"""What an exported graph can give; see [`fcnzoo.export`][fcnzoo.inference.exporters.export.export]."""

OUTPUTS: tuple[Output, ...] = ("labels", "logits", "scores")


def traceable(model: FCN, dtype: torch.dtype) -> FCN:
    """Return a copy in evaluation mode, on the CPU, without aux head; where nothing is converted it shares weights."""
    weights = [*model.parameters(), *model.buffers()]
    shared = all(one.device.type == "cpu" and (one.dtype == dtype or not one.is_floating_point()) for one in weights)
    backbone, head = copy.deepcopy((model.backbone, model.head), {id(one): one for one in weights} if shared else {})
    network = FCN(model.config.replace(aux_head=None), backbone, head).eval()
    if not shared:
        network.to("cpu", dtype)
    open_sizes(network.backbone)
    for part in network.backbone.modules():
        open_windows(part)
    return network


class PictureGraph(nn.Module):
    """A network, with what comes before and after it: image (B, H, W, C), uint8, in; a tuple of `outputs` out.

    Args:
        model: As `traceable` returns it.
        outputs: What to return, in this order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: FCN, outputs: Sequence[Output]) -> None:
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.outputs = tuple(outputs)
        self.preprocess: Preprocess = model.preprocess
        self.grid: Grid = model.grid
        self.padding: Padding = model.padding
        self.labels = label_dtype(model.num_classes)
        self.dtype = model.dtype
        for name in ("mean", "std"):
            values = torch.tensor(getattr(self.preprocess, name), dtype=torch.float32)
            self.register_buffer(name, values.view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return labels (B, H, W), logits (B, K, H, W), low-resolution scores (B, K, h, w), as asked for."""
        size = (image.shape[1], image.shape[2])
        tensor = self._tensor(image)
        seen = (tensor.shape[2], tensor.shape[3])
        scores = self.head(self.backbone(self._fit(tensor).to(self.dtype))).float()
        found = {"scores": scores}
        if self.outputs != ("scores",):
            found["logits"] = self._logits(scores, seen, size)
        if "labels" in self.outputs:
            found["labels"] = found["logits"].argmax(1).to(self.labels)
        return tuple(found[name] for name in self.outputs)

    def _tensor(self, image: Tensor) -> Tensor:
        """Do what `preprocess.to_tensor` does, to the bit."""
        pixels = image.permute(0, 3, 1, 2)
        if self.preprocess.channel_order == "bgr":
            pixels = pixels.flip(1)
        if self.preprocess.resizes:
            size = self._fit_size(pixels.shape[2], pixels.shape[3])
            pixels = resize_bytes(pixels, size, self.preprocess.interpolation)
        tensor = pixels.float()
        if self.preprocess.value_range == 1:
            tensor = tensor / 255
        return (tensor - self.mean) / self.std

    def _fit_size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """Do what `preprocess.fit_size` does."""
        if self.preprocess.longer_side is not None:
            long: Any = torch.sym_max(height, width)
            twice = 2 * self.preprocess.longer_side
            rows, columns = (torch.sym_max((twice * side + long) // (2 * long), 1) for side in (height, width))
            return rows, columns
        short: Any = torch.sym_min(height, width)
        return self.preprocess.resize * height // short, self.preprocess.resize * width // short

    def _fit(self, tensor: Tensor) -> Tensor:
        """Do what `FCN` does with an image: pad it, or resize it to the one size that the backbone takes."""
        if self.backbone.fixed_size is not None:
            return resize(tensor, self.backbone.fixed_size, "bilinear")
        if self.padding.multiple == self.padding.min_size == 1:
            return tensor
        for axis in (2, 3):
            tensor = pick(tensor, axis, 0, self._padded(tensor.shape[axis]))
        return tensor

    def _padded(self, length: Any) -> Any:
        least = torch.sym_max(length, self.padding.min_size) if self.padding.min_size > 1 else length
        return (least + (self.padding.multiple - 1)) // self.padding.multiple * self.padding.multiple

    def _logits(self, scores: Tensor, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Sample scores at every pixel of the picture."""
        if not self.preprocess.resizes:
            return self._sample(scores, self.grid, seen)
        if self.grid.multiple == self.grid.min_size == 1:
            return sample_resized(self._sample, scores, self.grid, seen, size)
        return self._sample_padded(scores, seen, size)

    def _sample_padded(self, scores: Tensor, seen: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Do what `sample_resized` does, where open sizes decide whether the resized picture was padded.

        Either way it is bilinear sampling, at different places.
        """
        padded = (self._padded(seen[0]), self._padded(seen[1]))
        fits = torch.cat([_number(a) == _number(b) for a, b in zip(seen, padded, strict=True)]).all()
        places = [
            torch.where(
                fits,
                _source(self.grid, torch.arange(length), cells, length),
                _source(self.grid, nearest_pixel(between, length), cells, whole),
            )
            for cells, length, between, whole in zip(scores.shape[2:], size, seen, padded, strict=True)
        ]
        return _sample_at(scores, places)

    def _sample(self, scores: Tensor, grid: Grid, size: tuple[int, int]) -> Tensor:
        """Do what `ops.upsample` does."""
        if grid.stride is None:
            if grid.multiple == grid.min_size == 1:
                return F.interpolate(scores, size=size, mode="bilinear", align_corners=grid.align_corners)
            padded = (self._padded(size[0]), self._padded(size[1]))
            logits = F.interpolate(scores, size=padded, mode="bilinear", align_corners=grid.align_corners)
            return pick(pick(logits, 2, 0, size[0], inside=True), 3, 0, size[1], inside=True)
        if grid.stride == 1 and grid.offset.is_integer():
            for axis, length in enumerate(size, start=2):
                scores = pick(scores, axis, int(grid.offset), length)
            return scores
        axes = zip(scores.shape[2:], size, strict=True)
        return _sample_at(scores, [_source(grid, torch.arange(length), cells, length) for cells, length in axes])


def _number(value: Any) -> Tensor:
    """Return an open size as a tensor (1), float64."""
    return torch.full((1,), value, dtype=torch.float64)


def _source(grid: Grid, pixel: Tensor, cells: Any, length: Any) -> Tensor:
    """Return where pixels lie on `cells` scores of an axis of a (padded) image of `length`, float64; see `Grid`."""
    if grid.align_corners:
        place = pixel.double() * (_number(cells - 1) / (_number(length) - 1).clamp(min=1))
    else:
        stride = _number(length) / _number(cells) if grid.stride is None else grid.stride
        place = (pixel.double() + (0.5 + grid.offset)) / stride - 0.5
    return place.clamp(min=0).minimum(_number(cells - 1)) if grid.border == "edge" else place


def _sample_at(scores: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Sample scores (B, K, h, w) bilinearly at places of each axis; beyond the scores there are zeros.

    As two matrix products: one tensor of the image's size is made, where picking and weighting makes four.
    """
    down, across = (
        # What is a cell away or more has no share.
        (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0).to(scores)
        for place, cells in zip(places, scores.shape[2:], strict=True)
    )
    return down @ scores @ across.T
