"""What every test starts from: one thread and a known seed."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def narrow_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the paper's VGG-16 cheap: fewer channels and convolutions, the same geometry.

    Blocks 3 and 4 keep their last widths, which the skip layers are built for; a 3×3 convolution padded
    by 1 moves nothing, so their number does not matter.
    """
    from fcnzoo.backbones import paper as vgg

    monkeypatch.setattr(vgg, "BLOCKS", ((4, 2), (4, 2), (256, 1), (512, 1), (8, 1)))
    monkeypatch.setattr(vgg, "FC_CHANNELS", 16)
