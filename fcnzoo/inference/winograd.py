"""Winograd's convolution for inference: a 3×3 convolution with a quarter of the multiplications.

F(4×4, 3×3) of Lavin & Gray 2016 ("Fast Algorithms for Convolutional Neural Networks", equation 8): tiles d of 6×6
inputs give tiles Y of 4×4 outputs,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A,

36 products where the convolution takes 144. Summed over channels they are 36 matrix products, which is where the
time goes. A convolution of dilation l is l×l ordinary ones, each on every l-th row and column.

The matrices are those of Toom and Cook for the points 0, ±a, ±b and ∞: with d = (d₀, …, d₅) the values of a
polynomial's coefficients, row p of Bᵀ holds the coefficients of Π(x − q) over the other finite points q (over all of
them for ∞), row p of G is (1, p, p²) / Π(p − q), and column p of Aᵀ is (1, p, p², p³)ᵀ; ∞ takes the highest power
only. Lavin and Gray take a = 1, b = 2. Here a = 2/3, b = 3/2: rounding errors are half as large (Barabasz et al.
2018, "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", on points p and
1/p), and all that costs is that no coefficient is an integer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeGuard

import torch
from torch import Tensor, nn

TILE = 4
"""Outputs per tile and axis."""

PATCH = TILE + 2
"""Inputs per tile and axis."""

NEAR, FAR = 2 / 3, 3 / 2
"""The points are 0, ±NEAR, ±FAR and infinity."""

MEMORY = 32 << 20
"""Bytes of transformed tiles and their products that are held at a time: enough for the 36 matrix products to run at
full speed, and little beside a network's features."""

SLAB = 160 << 10
"""Values of one row of tiles, of one of its six lines, that are transformed at a time (640 KiB): a few fit in a cache
of the second level, 1–2 MiB a core."""


def takes_winograd(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a module is a plain 3×3 convolution of stride 1, padded with zeros, in one group."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
    )


class WinogradConv2d(nn.Module):
    """A convolution that is computed by Winograd's algorithm; for inference on a CPU.

    It takes (B, C, H, W) and gives (B, K, H', W') in the same precision, channels innermost. Transforms are
    computed in float32, products in the precision asked for. Relative to the largest output, errors are about
    1e-6 with float32 products. With bfloat16 products they are about 1 % of the outputs' root mean square, where
    bfloat16's own rounding makes 0.25 %.

    Its weights are four times as large as the convolution's. While it runs it holds up to `MEMORY` bytes and a
    few rows of tiles besides its output, whatever the size of the image.

    Args:
        conv: One that `takes_winograd`; it is not changed.
        products: Precision of the matrix products: float32 or bfloat16.

    Attributes:
        weight: G g Gᵀ (36, K, C), computed in float64.
        bias: (K), float32, or `None`.

    Raises:
        ValueError: `conv` is another kind of convolution.
    """

    def __init__(self, conv: nn.Conv2d, products: torch.dtype = torch.float32) -> None:
        super().__init__()
        if not takes_winograd(conv):
            raise ValueError(f"conv must be 3×3 with stride 1, one group and zero padding, got {conv}")
        self.dilation = (conv.dilation[0], conv.dilation[1])
        self.padding = _padding(conv)
        self.weight = nn.Parameter(_transformed(conv.weight.detach()).to(products), requires_grad=False)
        bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().float(), requires_grad=False)
        self.bias: nn.Parameter | None = bias

    def extra_repr(self) -> str:
        """What it convolves."""
        K, C = self.weight.shape[1:]
        return f"{C}, {K}, padding={self.padding}, dilation={self.dilation}, products={self.weight.dtype}"

    def forward(self, image: Tensor) -> Tensor:
        """Convolve.

        Raises:
            ValueError: The padded image is smaller than the kernel, or has another number of channels.
            RuntimeError: Gradients are wanted.
        """
        if image.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("Winograd convolutions are for inference only; compute gradients with the plain network")
        K, C = self.weight.shape[1:]
        if image.ndim != 4 or image.shape[1] != C:
            raise ValueError(f"image must be (B, {C}, H, W), got shape {tuple(image.shape)}")
        source = image.permute(0, 2, 3, 1).contiguous()
        out_height = source.shape[1] + 2 * self.padding[0] - 2 * self.dilation[0]
        out_width = source.shape[2] + 2 * self.padding[1] - 2 * self.dilation[1]
        if min(out_height, out_width) < 1:
            raise ValueError(
                f"padded by {self.padding}, an image of {tuple(image.shape[2:])} is smaller than the kernel"
            )
        result = source.new_empty(len(source), out_height, out_width, K)
        work = _Work(self, result)
        for start in range(0, len(work.blocks), work.at_once):
            blocks = work.blocks[start : start + work.at_once]
            tiles, products = work.matrices(len(blocks))
            for number, block in enumerate(blocks):
                work.read(source, block, tiles[:, :, number])
            torch.bmm(tiles.view(PATCH**2, -1, C), self.weight.mT, out=products.view(PATCH**2, -1, K))
            for number, block in enumerate(blocks):
                work.write(products[:, :, number], block, result)
        return result.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Block:
    """Tiles that are transformed together: some of one row of tiles of one image."""

    image: int
    row: int
    column: int


class _Work:
    """One call's tiles, the buffers to transform them in, and the transforms.

    With dilation l×l' a row of tiles has l·l' tiles at each place, one for each of the interleaved images.
    """

    def __init__(self, conv: WinogradConv2d, result: Tensor) -> None:
        self.conv = conv
        (down_by, across_by), (K, C) = conv.dilation, conv.weight.shape[1:]
        batch, height, width = result.shape[:3]
        down, across = math.ceil(height / (TILE * down_by)), math.ceil(width / (TILE * across_by))
        most = max(1, SLAB // (TILE * down_by * across_by * C))
        # Blocks are equally wide; the last may overlap the one before it.
        self.width = math.ceil(across / math.ceil(across / most))
        starts = [min(start, across - self.width) for start in range(0, across, self.width)]
        self.blocks = [_Block(image, row, column) for image in range(batch) for row in range(down) for column in starts]
        self.places = (down_by, self.width, across_by)
        per_block = PATCH**2 * math.prod(self.places) * (C + K)
        calls = math.ceil(len(self.blocks) / max(1, MEMORY // (per_block * conv.weight.itemsize)))
        self.at_once = math.ceil(len(self.blocks) / calls)  # a small rest would waste a pass over the weights
        self.memory = torch.empty(self.at_once * per_block, dtype=conv.weight.dtype, device=result.device)
        self._allocate(K, C)

    def _allocate(self, K: int, C: int) -> None:
        """Make the float32 buffers that every block uses again."""
        down_by, width, across_by = self.places
        columns = (width * TILE + 2) * across_by
        room = partial(torch.empty, dtype=torch.float32, device=self.memory.device)
        self.lines = room(PATCH * down_by, columns, C)
        self.half = room(PATCH, down_by, width * TILE + 2, across_by, C)
        self.even_odd = room(2, down_by * columns * C)
        self.even_odd_across = room(2, PATCH, *self.places, C)
        exact = self.conv.weight.dtype == torch.float32
        self.unrounded = None if exact else room(PATCH, PATCH, *self.places, C)
        self.products = None if exact else room(PATCH, PATCH, *self.places, K)
        self.half_out = room(TILE, PATCH, *self.places, K)
        self.sums = room(4, PATCH, *self.places, K)
        self.sums_across = room(4, TILE, *self.places, K)
        self.out = room(TILE, down_by, width, TILE, across_by, K)

    def matrices(self, blocks: int) -> tuple[Tensor, Tensor]:
        """Return room for transformed tiles (6, 6, blocks, l, tiles, l', C) and for their products (…, K)."""
        K, C = self.conv.weight.shape[1:]
        rows = PATCH**2 * blocks * math.prod(self.places)
        shape = (PATCH, PATCH, blocks, *self.places)
        return self.memory[: rows * C].view(*shape, C), self.memory[rows * C : rows * (C + K)].view(*shape, K)

    def read(self, source: Tensor, block: _Block, tiles: Tensor) -> None:
        """Compute Bᵀ d B of a block's tiles, from images (B, H, W, C)."""
        (down_by, width, across_by), padding = self.places, self.conv.padding
        top = block.row * TILE * down_by - padding[0]
        left = block.column * TILE * across_by - padding[1]
        _copy_window(source[block.image], top, left, self.lines)
        lines = self.lines.view(PATCH, -1).unbind()
        _transform_input(lines, self.half.view(PATCH, -1).unbind(), self.even_odd)
        last = (width - 1) * TILE + 1
        columns = [self.half[:, :, first : first + last : TILE] for first in range(PATCH)]
        out = tiles if self.unrounded is None else self.unrounded
        _transform_input(columns, out.unbind(1), self.even_odd_across)
        if self.unrounded is not None:
            tiles.copy_(self.unrounded)

    def write(self, products: Tensor, block: _Block, result: Tensor) -> None:
        """Compute Aᵀ M A of a block's products, add the bias, and put it in its place of (B, H', W', K)."""
        down_by, width, across_by = self.places
        if self.products is not None:
            products = self.products.copy_(products)
        _transform_output(products.unbind(), self.half_out.unbind(), self.sums)
        _transform_output(self.half_out.unbind(1), self.out.unbind(3), self.sums_across)
        if self.conv.bias is not None:
            self.out.add_(self.conv.bias)
        row, column = block.row * TILE * down_by, block.column * TILE * across_by
        place = result[block.image, row : row + TILE * down_by, column : column + width * TILE * across_by]
        whole = self.out.view(TILE * down_by, width * TILE * across_by, -1)
        place.copy_(whole[: place.shape[0], : place.shape[1]])


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Return how much a convolution pads at each side, vertically and horizontally."""
    if conv.padding == "same":
        return (conv.dilation[0], conv.dilation[1])
    if isinstance(conv.padding, str):
        return (0, 0)
    return (conv.padding[0], conv.padding[1])


def _transformed(weight: Tensor) -> Tensor:
    """Return G g Gᵀ of a weight (K, C, 3, 3) as (36, K, C), float64.

    Rows ±p are taken p times as large as G's, which saves multiplications in `_transform_output`.
    """
    points = (0.0, NEAR, -NEAR, FAR, -FAR)
    gains = (1.0, NEAR, NEAR, FAR, FAR)
    rows = [
        [gain * point**power / math.prod(point - other for other in points if other != point) for power in range(3)]
        for point, gain in zip(points, gains, strict=True)
    ]
    G = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64, device=weight.device)
    both = torch.einsum("pi,qj->pqij", G, G).view(PATCH**2, 9)
    return (both @ weight.double().flatten(2).permute(2, 0, 1).flatten(1)).view(PATCH**2, *weight.shape[:2])


def _copy_window(source: Tensor, top: int, left: int, window: Tensor) -> None:
    """Copy a part of an image (H, W, C) that may reach over its border; there it is zero."""
    height, width = window.shape[:2]
    rows = slice(max(top, 0), max(0, min(top + height, source.shape[0])))
    columns = slice(max(left, 0), max(0, min(left + width, source.shape[1])))
    part = source[rows, columns]
    if part.shape[:2] != window.shape[:2]:
        window.zero_()
    if part.numel():
        window[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = part


def _transform_input(d: Sequence[Tensor], out: Sequence[Tensor], even_odd: Tensor) -> None:
    """Compute Bᵀ d. Rows ±p share their even and their odd part: x⁴ − q² x² ± p (x³ − q² x)."""
    even, odd = even_odd
    torch.add(d[4], d[2], alpha=-FAR * FAR, out=even)
    torch.add(d[3], d[1], alpha=-FAR * FAR, out=odd)
    torch.add(even, odd, alpha=NEAR, out=out[1])
    torch.add(even, odd, alpha=-NEAR, out=out[2])
    torch.add(d[2], d[0], alpha=-FAR * FAR, out=out[0])  # (x² − a²)(x² − b²)
    torch.add(even, out[0], alpha=-NEAR * NEAR, out=out[0])
    torch.add(d[5], d[3], alpha=-FAR * FAR, out=out[5])  # x (x² − a²)(x² − b²)
    torch.add(out[5], odd, alpha=-NEAR * NEAR, out=out[5])
    torch.add(d[4], d[2], alpha=-NEAR * NEAR, out=even)
    torch.add(d[3], d[1], alpha=-NEAR * NEAR, out=odd)
    torch.add(even, odd, alpha=FAR, out=out[3])
    torch.add(even, odd, alpha=-FAR, out=out[4])


def _transform_output(products: Sequence[Tensor], out: Sequence[Tensor], sums: Tensor) -> None:
    """Compute Aᵀ M, where M's rows ±p are p times too large: see `_transformed`."""
    near_even, near_odd, far_even, far_odd = sums
    torch.add(products[1], products[2], out=near_even)
    torch.sub(products[1], products[2], out=near_odd)
    torch.add(products[3], products[4], out=far_even)
    torch.sub(products[3], products[4], out=far_odd)
    torch.add(products[0], near_even, alpha=1 / NEAR, out=out[0]).add_(far_even, alpha=1 / FAR)
    torch.add(near_odd, far_odd, out=out[1])
    torch.mul(near_even, NEAR, out=out[2]).add_(far_even, alpha=FAR)
    torch.add(products[5], near_odd, alpha=NEAR * NEAR, out=out[3]).add_(far_odd, alpha=FAR * FAR)
