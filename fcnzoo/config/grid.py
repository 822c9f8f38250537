"""Where image pixels lie on low-resolution scores: the one geometry of the library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fcnzoo.files.records import Record

Border = Literal["edge", "zeros"]
"""What lies outside the scores: their edge repeated, or zeros."""


@dataclass(frozen=True)
class Grid(Record):
    """Where image pixels lie on a map of scores.

    The pixel at index `p` of an axis samples the scores, bilinearly, at

        source(p) = (p + 0.5 + offset) / stride − 0.5

    which covers both "bilinear deconvolution, then crop" (Caffe, torchfcn: offset = crop −
    stride / 2, zeros outside) and `F.interpolate` (offset 0, edges repeated).

    Attributes:
        stride: Image pixels per score, `None` to fit: padded image size / score size, on each axis.
        offset: Shift in image pixels.
        border: What lies outside the scores: their edge repeated, or zeros.
        align_corners: Corner scores lie on corner pixels of the (padded) image
            (`F.interpolate(align_corners=True)`); only with `stride=None` and `offset=0`.
        multiple: The network saw the image padded at its bottom and right to a multiple of this;
            only the part that is the image is sampled.
        min_size: The network saw the image padded to at least this many pixels on each axis.
    """

    stride: float | None = None
    offset: float = 0.0
    border: Border = "edge"
    align_corners: bool = False
    multiple: int = 1
    min_size: int = 1

    def check(self) -> None:
        """See `Record.check`."""
        if self.stride is not None and self.stride <= 0:
            self.refuse("stride", "must be positive (or None, to fit)")
        if self.align_corners and (self.stride is not None or self.offset or self.border != "edge"):
            self.refuse("align_corners", "goes only with stride=None, offset=0 and border='edge'")
        for name in ("multiple", "min_size"):
            if getattr(self, name) < 1:
                self.refuse(name, "must be at least 1")

    def fits(self, size: tuple[int, int]) -> bool:
        """Return whether the scores span an image of (H, W) exactly: nothing is padded, and nothing is shifted."""
        return self.stride is None and not self.offset and all(self.padded(length) == length for length in size)

    def padded(self, size: int) -> int:
        """Return the length that the network sees of an image axis of `size` pixels."""
        return _padded(size, self.multiple, self.min_size)


@dataclass(frozen=True)
class Padding(Record):
    """How images are padded at their bottom and right before a network sees them.

    Attributes:
        multiple: Each side becomes a multiple of this.
        min_size: Each side becomes at least this.
    """

    multiple: int = 1
    min_size: int = 1

    def padded(self, size: int) -> int:
        """Return the length that the network sees of an image axis of `size` pixels."""
        return _padded(size, self.multiple, self.min_size)


def _padded(size: int, multiple: int, min_size: int) -> int:
    return -(-max(size, min_size) // multiple) * multiple
