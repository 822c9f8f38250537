"""Winograd's convolution against PyTorch's in float64, and the choice of where it is used."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.inference import winograd, winograd_choice
from fcnzoo.inference.winograd import WinogradConv2d, takes_winograd
from fcnzoo.inference.winograd_choice import use_winograd


def convolution(C: int = 5, K: int = 7, **options: object) -> nn.Conv2d:
    """A 3×3 convolution with weights of this test's own."""
    torch.manual_seed(0)
    return nn.Conv2d(C, K, 3, **options).eval().requires_grad_(False)  # pyright: ignore


def exact(conv: nn.Conv2d, image: Tensor) -> Tensor:
    """What it computes in float64."""
    bias = None if conv.bias is None else conv.bias.double()
    return F.conv2d(image.double(), conv.weight.double(), bias, 1, conv.padding, conv.dilation)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(12, 16), (13, 9), (5, 30)])
@pytest.mark.parametrize(
    ("padding", "dilation"),
    [(1, 1), (0, 1), (5, 1), ((0, 3), 1), (2, 2), (4, 4), (1, 2), (3, (2, 3)), ("same", 2), ("valid", 1)],
)
def test_it_is_the_convolution(padding: object, dilation: object, size: tuple[int, int], bias: bool) -> None:
    """Any padding, dilation and odd size, several images: float64's values to float32's rounding."""
    conv = convolution(padding=padding, dilation=dilation, bias=bias)
    image = torch.randn(3, 5, *size)
    want, found = exact(conv, image), WinogradConv2d(conv)(image)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), want, rtol=0, atol=5e-6 * want.abs().max().item())


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (3, 3)])
def test_maps_smaller_than_a_tile(size: tuple[int, int]) -> None:
    """Padding reaches over the whole map: still the convolution."""
    conv, image = convolution(padding=2, dilation=2), torch.randn(2, 5, *size)
    want = exact(conv, image)
    torch.testing.assert_close(WinogradConv2d(conv)(image).double(), want, rtol=0, atol=5e-6 * want.abs().max().item())


@pytest.mark.parametrize(("memory", "slab"), [(1, 1), (60_000, 100), (60_000, 1000), (1 << 20, 600)])
def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch, memory: int, slab: int) -> None:
    """However the work is cut, every output is made, whether its tiles are in one block or in two."""
    conv, image = convolution(padding=1), torch.randn(2, 5, 21, 39)
    want = WinogradConv2d(conv)(image)
    monkeypatch.setattr(winograd, "MEMORY", memory)
    monkeypatch.setattr(winograd, "SLAB", slab)
    torch.testing.assert_close(WinogradConv2d(conv)(image), want, rtol=0, atol=1e-5)


def test_bfloat16_products_round_by_about_a_hundredth() -> None:
    """Images in and out are bfloat16; the error is at most 2 % of the outputs' root mean square, and not zero."""
    conv = convolution(64, 48, padding=1)
    image = torch.randn(1, 64, 20, 20).relu().bfloat16()
    want, found = exact(conv, image), WinogradConv2d(conv, torch.bfloat16)(image)
    assert found.dtype == torch.bfloat16
    error = ((found.double() - want).norm() / want.norm()).item()
    assert 0.002 < error < 0.02
    # With float32 products only the outputs are rounded.
    found = WinogradConv2d(conv)(image)
    torch.testing.assert_close(found, want.bfloat16(), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, (3, 5)),
        type("Other", (nn.Conv2d,), {})(4, 4, 3),
        nn.ConvTranspose2d(4, 4, 3),
    ],
)
def test_other_convolutions_are_refused(module: nn.Module) -> None:
    """What is not a plain 3×3 convolution of stride 1 does not become another operation."""
    assert not takes_winograd(module)
    with pytest.raises(ValueError, match="3×3"):
        WinogradConv2d(module)  # type: ignore[arg-type]


def test_bad_images_are_refused() -> None:
    """Wrong channels, a map smaller than the kernel, and gradients are errors that say so."""
    form = WinogradConv2d(convolution())
    with pytest.raises(ValueError, match=r"\(B, 5, H, W\)"):
        form(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="smaller than the kernel"):
        form(torch.zeros(1, 5, 2, 8))
    with pytest.raises(RuntimeError, match="inference only"):
        form(torch.zeros(1, 5, 8, 8, requires_grad=True))


class Parts(nn.Module):
    """Two wide convolutions alike, a third of another kind, and those that never qualify."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.first = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        self.second, self.third = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 96, 3, padding=2, dilation=2)
        self.unused = nn.Conv2d(64, 64, 3)

    def forward(self, image: Tensor) -> Tensor:
        """Run all but the last."""
        return self.third(self.second(self.first(self.narrow(image)).relu()).relu())


@pytest.mark.parametrize(("answer", "count"), [(True, 3), (False, 0)])
def test_the_decision_is_followed(answer: bool, count: int) -> None:
    """Each kind is asked about once, at its own shape; a yes replaces all of that kind, a no none."""
    torch.manual_seed(0)
    network = Parts().eval().requires_grad_(False)
    plain, image, asked = copy.deepcopy(network), torch.randn(1, 3, 20, 24), []

    def decide(conv: nn.Conv2d, form: WinogradConv2d, example: Tensor) -> bool:
        asked.append((conv.out_channels, tuple(form.weight.shape), tuple(example.shape)))
        return answer

    assert use_winograd(network, plain, lambda: network(image), torch.float32, decide) == count
    assert asked == [(64, (36, 64, 64), (1, 64, 20, 24)), (96, (36, 96, 64), (1, 64, 20, 24))]
    assert sum(isinstance(module, WinogradConv2d) for module in network.modules()) == count
    assert type(network.narrow) is type(network.unused) is nn.Conv2d
    torch.testing.assert_close(network(image), plain(image), rtol=0, atol=1e-5)


def test_weights_that_the_transform_cannot_hold_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution whose error is above the limit stays, whatever the clock says."""
    network = Parts().eval().requires_grad_(False)
    monkeypatch.setitem(winograd_choice.LARGEST_ERROR, torch.bfloat16, 1e-3)
    image = torch.randn(1, 3, 16, 16)
    assert use_winograd(network, copy.deepcopy(network), lambda: network(image), torch.bfloat16, lambda *_: True) == 0


def test_the_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain must be large enough for the error that comes with it."""
    conv = convolution()
    image = torch.randn(1, 5, 8, 8)
    for ratio, precision, want in (
        (1.04, torch.float32, False),
        (1.1, torch.float32, True),
        (1.1, torch.bfloat16, False),
        (1.3, torch.bfloat16, True),
        (0.5, torch.float32, False),
        (3.0, torch.bfloat16, True),
    ):
        form, now = WinogradConv2d(conv, precision), [0.0]
        monkeypatch.setattr(winograd_choice.time, "perf_counter", lambda now=now: now[0])
        hooks = [
            module.register_forward_hook(lambda *_, now=now, cost=cost: now.__setitem__(0, now[0] + cost))
            for module, cost in ((conv, ratio), (form, 1.0))
        ]
        assert winograd_choice.is_faster(conv, form, image) is want
        for hook in hooks:
            hook.remove()
