"""A network made for inference: fewer operations, the faster memory order and precision, the same labels."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from fcnzoo.inference.folding import fold_batchnorms
from fcnzoo.inference.winograd_choice import use_winograd
from fcnzoo.model.evaluating import evaluating
from fcnzoo.model.fcn import FCN, Scores
from fcnzoo.model.inputs import check_image

DType = Literal["auto", "float32", "bfloat16", "float16"]
"""What `optimize` takes as a precision."""

TOLERANCE = 1e-3
"""Largest difference of float32 scores, relative to the largest score, that folding may make. Rounding makes
1e-6 to 1e-5; a tensor that was read elsewhere too makes differences of the order of the scores."""

CLEARLY_SLOWER = 1.25
"""A form is given up after one run that takes so many times as long as the fastest so far. Of three runs in a row the
slowest takes 1.07 times as long as the fastest at the median, 1.24 times or more in one case of ten (fcn8s_resnet18,
480×480, two threads on two busy cores)."""

PROBE = (128, 128)
"""(H, W) of the image on which folding is found and checked."""


@dataclass(frozen=True)
class Optimization:
    """What `optimize` did.

    Attributes:
        dtype: Precision of weights and features; scores are float32 always.
        channels_last: Whether tensors have the channels innermost.
        folded: How many BatchNorms became part of a convolution.
        winograd: How many convolutions are computed by Winograd's algorithm.
        compiled: Whether `torch.compile` runs the network.
    """

    dtype: str
    channels_last: bool
    folded: int
    winograd: int
    compiled: bool


class OptimizedFCN(FCN):
    """An [`FCN`][fcnzoo.FCN] for inference only, made by [`fcnzoo.optimize`][fcnzoo.inference.optimize.optimize].

    It takes float32 images like any other, and gives float32 scores. It cannot be trained or saved: keep the
    plain network for that.

    Attributes:
        optimization: What was done.
    """

    optimization: Optimization
    _memory_format = torch.contiguous_format
    _precision = torch.float32

    def train(self, mode: bool = True) -> OptimizedFCN:
        """Stay in evaluation mode.

        Raises:
            RuntimeError: `mode` is true.
        """
        if mode:
            raise RuntimeError("an optimized network is for inference only; train the network it was made from")
        return super().train(mode)  # pyright: ignore[reportReturnType]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - PyTorch passes them
        """Refuse.

        Raises:
            RuntimeError: Always: the weights are no longer those that the config describes.
        """
        raise RuntimeError("an optimized network cannot be saved; save the network it was made from")

    @property
    def dtype(self) -> torch.dtype:
        """Of the images it takes."""
        return torch.float32

    def reset_classifier(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - as `FCN.reset_classifier` has them
        """Refuse.

        Raises:
            RuntimeError: Always: fresh score layers are there to be trained.
        """
        raise RuntimeError("an optimized network keeps its classes; reset those of the network it was made from")

    def scores(self, image: Tensor, *, aux: bool | None = None) -> Scores:
        """Compute scores (B, K, h, w), float32; see `FCN.scores`."""
        if aux:
            raise ValueError("aux=True, but an optimized network has no aux head; use the network it was made from")
        check_image(image, self.config.backbone.in_channels, self.dtype)
        return Scores(self.head(self.backbone(self._fit(image))).float(), None, self.grid, None)

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute what the head sees, float32; see `FCN.features`."""
        return [feature.float() for feature in super().features(image)]

    def _fit(self, image: Tensor) -> Tensor:
        return super()._fit(image).to(self._precision, memory_format=self._memory_format)


def optimize(
    model: FCN,
    *,
    dtype: DType = "auto",
    compile: bool = False,
    size: tuple[int, int] | None = None,
) -> OptimizedFCN:
    """Make a copy of a network for inference.

    BatchNorm is folded into convolutions (checked: scores stay the same), the aux head is left out, and of the
    memory orders and precisions that the device computes fast, the fastest on an image of `size` is taken. On a
    CPU, 3×3 convolutions are computed by Winograd's algorithm where that is measured to be faster; their weights
    are then four times as large (see [`WinogradConv2d`][fcnzoo.inference.winograd.WinogradConv2d]).

    Measuring takes the time of ten to fifteen images of `size`: about ten seconds for a ResNet-50 on two cores.

    Args:
        model: The network; it is not changed.
        dtype: `"auto"` measures float32, and bfloat16 where the device has units for it. Half precision moves
            scores by about 1 %: labels change at borders between classes.
        compile: Run backbone and head through `torch.compile` (needs a C++ compiler on a CPU; each new image
            size is compiled once). Convolutions are then left to it.
        size: (H, W) to measure at; by default 480×480.

    Returns:
        The network, in eval mode, on the model's device.

    Raises:
        TypeError: `model` is no `FCN`, or is optimized already.
        ValueError: `dtype` is unknown, or `size` is empty.
    """
    if not isinstance(model, FCN) or isinstance(model, OptimizedFCN):
        raise TypeError(f"model must be an FCN as create or load return it, got {type(model).__name__}")
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise ValueError(f"dtype must be 'auto', 'float32', 'bfloat16' or 'float16', got {dtype!r}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size must be (H, W) of at least 1, got {size!r}")
    exact, folded = _folded(model)
    device = next(exact.parameters()).device
    forms = _candidates(dtype, device, winograd=device.type == "cpu" and not compile)
    network, form, winograd = _fastest(exact, forms, size or (480, 480), device)
    if compile:
        network.backbone = torch.compile(network.backbone)  # pyright: ignore[reportAttributeAccessIssue]
        network.head = torch.compile(network.head)  # pyright: ignore[reportAttributeAccessIssue]
    network.optimization = Optimization(
        dtype=str(form.dtype).removeprefix("torch."),
        channels_last=form.order == torch.channels_last,
        folded=folded,
        winograd=winograd,
        compiled=compile,
    )
    return network


def _folded(model: FCN) -> tuple[OptimizedFCN, int]:
    """Return a float32 copy without BatchNorm, as far as that changes nothing, and how many are gone."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, model.config.backbone.in_channels, *PROBE, generator=generator).to(device)
    plain, network = _copy(model), _copy(model)
    folded = fold_batchnorms(network, lambda: network.scores(image))
    # Features too: fresh score layers are zero, and would hide any difference.
    pairs = zip(_features_and_scores(plain, image), _features_and_scores(network, image), strict=True)
    if all((ours - theirs).abs().max() <= TOLERANCE * theirs.abs().max() for theirs, ours in pairs):
        return network, folded
    return plain, 0


@torch.no_grad()
def _features_and_scores(network: OptimizedFCN, image: Tensor) -> list[Tensor]:
    return [*network.backbone(network._fit(image)), network.scores(image).main]


def _copy(model: FCN) -> OptimizedFCN:
    config = model.config.replace(aux_head=None)
    with evaluating(model):
        backbone, head = copy.deepcopy(model.backbone), copy.deepcopy(model.head)
    network = OptimizedFCN(config, backbone, head)
    network.provenance = copy.deepcopy(model.provenance)
    return cast("OptimizedFCN", network.eval().requires_grad_(False).float())


class _Form(NamedTuple):
    """What a network is made into: its precision, memory order, and whether Winograd's algorithm is tried."""

    dtype: torch.dtype
    order: torch.memory_format
    winograd: bool


def _candidates(dtype: DType, device: torch.device, *, winograd: bool) -> list[_Form]:
    """Return the forms worth trying, what is usually fastest first."""
    if dtype != "auto":
        wanted = [getattr(torch, dtype)]
    else:
        wanted = [torch.bfloat16, torch.float32] if has_bfloat16_units(device) else [torch.float32]
    # Winograd's transforms work on vectors of channels.
    orders = ((torch.channels_last, winograd), (torch.contiguous_format, False))
    return [_Form(one, order, algorithm) for one in wanted for order, algorithm in orders]


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware: AVX512-BF16 or AMX; CUDA from compute capability 8.0."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    # Names with an underscore, but the only way to ask; absent on other processors and in older versions.
    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)


def _fastest(
    exact: OptimizedFCN, forms: list[_Form], size: tuple[int, int], device: torch.device
) -> tuple[OptimizedFCN, _Form, int]:
    """Return a copy in the form that runs fastest, that form, and how many convolutions Winograd computes."""
    image = torch.zeros(1, exact.config.backbone.in_channels, *size, device=device)
    best, least = None, math.inf
    for form in forms:
        trial = copy.deepcopy(exact)
        try:
            winograd = _bring_to(trial, form, exact, image)
            seconds = _time(trial, image, least)
        except (RuntimeError, NotImplementedError):  # an operation that this precision lacks on this device
            continue
        if seconds < least:
            best, least = (trial, form, winograd), seconds
    if best is None:
        raise ValueError(f"the network runs in none of {sorted({str(form.dtype) for form in forms})} on {device}")
    return best


def _time(network: OptimizedFCN, image: Tensor, least: float) -> float:
    """Return the least seconds of three runs after one to warm up; of one if that is clearly more than `least`.

    Not the median: other work on the machine only adds time.
    """
    seconds = []
    with torch.inference_mode():
        for turn in range(4):
            start = time.perf_counter()
            network.scores(image).main.sum().item()  # .item() waits for a GPU
            seconds.append(time.perf_counter() - start)
            if turn and seconds[-1] > CLEARLY_SLOWER * least:
                break
    return min(seconds[1:])


def _bring_to(network: OptimizedFCN, form: _Form, exact: OptimizedFCN, image: Tensor) -> int:
    """Bring a copy of a network to a form; return how many convolutions Winograd computes."""
    nn.Module.to(network, dtype=form.dtype, memory_format=form.order)  # pyright: ignore[reportCallIssue]
    network._precision, network._memory_format = form.dtype, form.order
    if not form.winograd:
        return 0
    fast = form.dtype == torch.bfloat16 and has_bfloat16_units(image.device)
    products = torch.bfloat16 if fast else torch.float32
    return use_winograd(network, exact, lambda: network.scores(image), products)
