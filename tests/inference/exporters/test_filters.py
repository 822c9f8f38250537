"""Resizing as matrices: Pillow's bytes to the bit, PyTorch's antialiasing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fcnzoo.inference.exporters.filters import resize, resize_bytes
from fcnzoo.inference.exporters.open_sizes import pick

SIZES = [((97, 131), (64, 86)), ((40, 53), (97, 131)), ((61, 200), (61, 77)), ((7, 5), (1, 1)), ((1, 1), (9, 4))]


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize(("have", "want"), SIZES)
def test_bytes_are_pillows(have: tuple[int, int], want: tuple[int, int], kind: str) -> None:
    """Every byte is the one that Pillow's resize gives."""
    array = np.random.default_rng(0).integers(0, 256, (*have, 3), dtype=np.uint8)
    filters = {name: getattr(Image.Resampling, name.upper()) for name in ("bilinear", "bicubic", "nearest")}
    reference = np.array(Image.fromarray(array).resize((want[1], want[0]), filters[kind]))
    found = resize_bytes(torch.from_numpy(array).permute(2, 0, 1)[None], want, kind)
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), reference)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("have", "want"), SIZES)
def test_antialiasing_is_pytorchs(have: tuple[int, int], want: tuple[int, int], kind: str) -> None:
    """`resize` is `F.interpolate(antialias=True)`, in float64."""
    tensor = torch.randn(2, 3, *have, dtype=torch.float64)
    reference = F.interpolate(tensor, want, mode=kind, antialias=True)
    assert torch.allclose(resize(tensor, want, kind), reference, atol=1e-12)


def test_pick_is_a_slice_with_zeros_beyond() -> None:
    """Places beyond the end are zeros; a start is left out."""
    tensor = torch.arange(1.0, 25).view(2, 3, 4)
    assert torch.equal(pick(tensor, 2, 1, 5), F.pad(tensor, (0, 2))[..., 1:])
    assert torch.equal(pick(tensor, 1, 0, 2, inside=True), tensor[:, :2])
