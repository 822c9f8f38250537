"""Large images, piece by piece: memory is bounded by the tile and the label map.

Tiles overlap. Their scores, at the head's resolution, are blended with weights that fall linearly to the edge of
each tile; labels are made from the blended scores row by row, so that neither the scores nor the float image exist
as a whole. Tiles begin at multiples of the network's coarsest reduction: their score cells are those of the whole
image. What differs is what the network sees beyond the edge of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fcnzoo.config import Grid
from fcnzoo.ops import label_dtype, upsample_argmax

if TYPE_CHECKING:
    from fcnzoo.model.fcn import FCN


def tile_layout(length: int, tile: int, overlap: int, multiple: int) -> tuple[int, list[int]]:
    """Lay tiles along an axis.

    Args:
        length: Pixels of the image.
        tile: Pixels of a tile, at most; brought to a multiple (up).
        overlap: Pixels that neighbors share, at least.
        multiple: Of which starts and lengths must be multiples.

    Returns:
        Length of every tile, and where each begins; the last ends where the image, padded to a multiple, ends.
    """
    padded, tile = (-(-size // multiple) * multiple for size in (length, tile))
    if padded <= tile:
        return padded, [0]
    step = max((tile - overlap) // multiple, 1) * multiple
    return tile, [*range(0, padded - tile, step), padded - tile]


def check_tiling(model: FCN, tile: int, overlap: int | None) -> tuple[int, int]:
    """Return tile and overlap, or say why a network cannot be tiled.

    Raises:
        ValueError: The numbers are impossible; the network resizes images, or has a geometry of its own.
    """
    overlap = tile // 4 if overlap is None else overlap
    if tile < 1 or not 0 <= overlap < tile:
        raise ValueError(f"tile must be 1 or more and overlap in 0…tile−1, got tile={tile}, overlap={overlap}")
    name = model.config.backbone.name
    if model.preprocess.resizes or model.backbone.fixed_size is not None:
        size = model.preprocess.resize or model.preprocess.longer_side or model.backbone.fixed_size
        raise ValueError(
            f"{name} sees every image resized to {size}, so its memory is bounded already: leave tile out "
            "(or build it without preprocess.resize and longer_side, if it has one)"
        )
    if model.grid.stride is not None or model.grid.align_corners:
        raise ValueError(
            f"{name} has scores that do not fit the image (geometry='paper', align_corners): leave tile out"
        )
    return tile, overlap


def tiled_labels(
    model: FCN, size: tuple[int, int], tensor: Callable[[slice, slice], Tensor], tile: int, overlap: int
) -> Tensor:
    """Label an image tile by tile.

    Args:
        model: The network, in evaluation mode.
        size: (H, W) of the image.
        tensor: Gives the part of the image in some rows and columns, preprocessed: (1, C, h, w).
        tile: Side of a tile in pixels; brought to a multiple of the coarsest reduction.
        overlap: Pixels that neighbors share, at least.

    Returns:
        Labels (H, W), on the CPU.

    Raises:
        ValueError: The scores of a tile are no whole number of pixels apart.
    """
    labels = torch.empty(size, dtype=label_dtype(model.num_classes))
    done = 0
    above: Tensor | None = None
    for rows, stride, last in _blended_rows(model, size, tensor, tile, overlap):
        # Two rows from before: pixels below the center of the last row but one lie between these and the new ones.
        window = F.pad(rows, (0, 0, 1, 0), mode="replicate") if above is None else torch.cat([above, rows], dim=2)
        above = window[:, :, -2:]
        # A replicated column shifts the columns by as much as the rows before the window's first pixel row do.
        window = F.pad(window, (1, 0, 0, 0), mode="replicate")
        end = size[0] if last else min(done + (window.shape[2] - 2) * stride, size[0])
        if end > done:
            grid = Grid(stride=float(stride), offset=float(stride))
            labels[done:end] = upsample_argmax(window, grid, (end - done, size[1]))[0]
        done = end
    return labels


def _blended_rows(
    model: FCN, size: tuple[int, int], tensor: Callable[[slice, slice], Tensor], tile: int, overlap: int
) -> Iterator[tuple[Tensor, int, bool]]:
    """Yield score rows (1, K, n, w) that no further tile changes, their stride, and whether they are the last."""
    multiple = max(model.backbone.size_multiple, *(info.reduction for info in model.backbone.features))
    (height, tops), (width, lefts) = (tile_layout(length, tile, overlap, multiple) for length in size)
    band: Tensor | None = None
    stride = 0
    for i, top in enumerate(tops):
        for left in lefts:
            scores = _scores(model, tensor, size, (top, left), (height, width))
            stride = height // scores.shape[2]
            if stride * scores.shape[2] != height or stride * scores.shape[3] != width:
                raise ValueError(
                    f"scores of {tuple(scores.shape[2:])} on a tile of {height}×{width}: not a whole number of pixels "
                    "apart; this network cannot be tiled"
                )
            if band is None:
                band = scores.new_zeros(*scores.shape[:2], height // stride, (lefts[-1] + width) // stride)
            columns = slice(left // stride, (left + width) // stride)
            down = blend_weights(tops, top, height, overlap, stride).to(scores)
            across = blend_weights(lefts, left, width, overlap, stride).to(scores)
            band[..., columns] += scores * down[:, None] * across
        if band is None:
            continue
        final = i == len(tops) - 1
        count = band.shape[2] if final else (tops[i + 1] - top) // stride
        yield band[:, :, :count].clone(), stride, final
        band = torch.cat([band[:, :, count:], torch.zeros_like(band[:, :, :count])], dim=2)


def _scores(
    model: FCN,
    tensor: Callable[[slice, slice], Tensor],
    size: tuple[int, int],
    start: tuple[int, int],
    tile: tuple[int, int],
) -> Tensor:
    """Return the scores of one tile; beyond the image it is zero, as the padding of a whole image is."""
    rows, columns = (slice(a, min(a + n, end)) for a, n, end in zip(start, tile, size, strict=True))
    piece = tensor(rows, columns)
    piece = F.pad(piece, (0, tile[1] - piece.shape[3], 0, tile[0] - piece.shape[2]))
    scores = model.scores(piece, aux=False).main
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def blend_weights(starts: list[int], start: int, length: int, overlap: int, stride: int) -> Tensor:
    """Return the weight of a tile's score cells along an axis: with those of its neighbors they sum to 1."""

    def ramp(begin: int) -> Tensor:
        centers = torch.arange(begin, begin + length, stride, dtype=torch.float64) + stride / 2 - begin
        return torch.minimum(centers, length - centers).clamp(max=max(overlap, stride))

    cells = length // stride
    total = torch.zeros(cells, dtype=torch.float64)
    for other in starts:
        shift = (other - start) // stride
        if abs(shift) < cells:
            low, high = max(shift, 0), min(shift + cells, cells)
            total[low:high] += ramp(other)[low - shift : high - shift]
    return ramp(start) / total
