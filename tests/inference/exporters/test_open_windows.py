"""torchvision's windows of attention said again: the same numbers on maps of any size."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.swin_transformer import shifted_window_attention

import fcnzoo
from fcnzoo.inference.exporters.open_windows import attend, open_windows


@pytest.mark.parametrize("cosine", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(10, 17), (5, 6), (7, 7), (6, 20), (14, 21)])
def test_attention_is_torchvisions(size: tuple[int, int], shift: int, cosine: bool) -> None:
    """Shifted or not, one window or several, windows that do not divide the map; both versions of Swin."""
    width, heads = 12, 3
    given = (
        torch.randn(2, *size, width, dtype=torch.float64),
        torch.randn(3 * width, width, dtype=torch.float64),
        torch.randn(width, width, dtype=torch.float64),
        torch.randn(1, heads, 49, 49, dtype=torch.float64),
        [7, 7],
        heads,
        [shift, shift],
    )
    options = {
        "qkv_bias": torch.randn(3 * width, dtype=torch.float64),
        "proj_bias": torch.randn(width, dtype=torch.float64),
        "logit_scale": 6 * torch.rand(heads, 1, 1, dtype=torch.float64) if cosine else None,
        "training": False,
    }
    torch.testing.assert_close(attend(*given, **options), shifted_window_attention(*given, **options))  # type: ignore[arg-type]


def test_traced_networks_change() -> None:
    """All blocks of a traced network are replaced; networks without windows stay as they are."""
    network = fcnzoo.create("fcn32s", backbone="torchvision/swin_t", num_classes=2).eval().backbone.network
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = network(image)
        open_windows(network)
        after = network(image)
    assert sum(node.target is attend for node in network.eval_graph.nodes) == 12
    for name, feature in before.items():
        torch.testing.assert_close(after[name], feature, rtol=1e-5, atol=1e-5)
    plain = torch.nn.Conv2d(3, 3, 1)
    open_windows(plain)
    assert isinstance(plain, torch.nn.Conv2d)
