"""An exported graph against the network it was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fcnzoo.errors import ExportError
from fcnzoo.images.preprocess import to_tensor
from fcnzoo.inference.predictor import Predictor
from fcnzoo.inference.resized import sample_resized
from fcnzoo.model.fcn import FCN, evaluating
from fcnzoo.ops import upsample

Run = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Takes images (B, H, W, C), uint8; returns each output by its name."""

SIZES = ((1, 97, 131), (3, 67, 45), (2, 128, 160), (1, 20, 31))
"""(B, H, W) of the images: odd sizes, a tall one, whole multiples of what networks pad to, one smaller than a cell of
the coarsest map; one image and several."""

TOLERANCE = {"float32": 1e-4, "float16": 3e-2}
"""Largest difference of scores, relative to the largest score. float32: both sides round at every operation, in another
order; float16: 11 bits, through some fifty layers."""


def compare_graph(run: Run, model: FCN, dtype: str, sizes: Sequence[tuple[int, int, int]] = SIZES) -> float | None:
    """Compare a graph with `Predictor` on made-up pictures.

    Args:
        run: Runs the graph.
        model: The network.
        dtype: In which the graph computes.
        sizes: (B, H, W) of the pictures.

    Returns:
        The largest difference of scores, relative to the largest score; `None` where the graph gives labels only.

    Raises:
        ExportError: A label differs where the two highest scores differ by more than the tolerance; scores differ by
            more; or an output has another shape or dtype.
    """
    worst: float | None = None
    for size in sizes:
        images = pictures(size, model.config.backbone.in_channels)
        found = run(images)
        labels, logits, scores = expected(model, images)
        limit = TOLERANCE[dtype] * max(float(logits.abs().max()), 1e-30)
        where = f"on {size[0]} images of {size[1]}×{size[2]}"
        for name, wanted in (("logits", logits), ("scores", scores)):
            if name in found:
                _same_shape(found[name], wanted.numpy(), name, where)
                off = float(np.abs(found[name] - wanted.numpy()).max())
                if not off <= limit:
                    raise ExportError(f"{name} differ by {off:.3g} {where}, of at most {limit:.3g}")
                worst = max(worst or 0.0, off / limit * TOLERANCE[dtype])
        if "labels" in found:
            _same_shape(found["labels"], labels, "labels", where)
            _same_labels(found["labels"], labels, logits, limit, where)
    return worst


def _same_shape(found: np.ndarray, wanted: np.ndarray, name: str, where: str) -> None:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        raise ExportError(f"{name} are {found.dtype} {found.shape} {where}, not {wanted.dtype} {wanted.shape}")


def _same_labels(found: np.ndarray, wanted: np.ndarray, logits: Tensor, limit: float, where: str) -> None:
    """Raise where a label differs and its score is not as good as the highest one, within rounding."""
    differs = torch.from_numpy(found != wanted)
    index = torch.from_numpy(found.astype(np.int64))
    if bool(((index < 0) | (index >= logits.shape[1])).any()):
        raise ExportError(f"labels {index.min()}…{index.max()} {where}, of {logits.shape[1]} classes")
    gap = logits.amax(1) - logits.gather(1, index[:, None])[:, 0]
    wrong = int((differs & (gap > 2 * limit)).sum())
    if wrong:
        raise ExportError(
            f"{wrong} of {differs.numel()} labels differ {where}, with scores up to {gap.max():.3g} apart"
        )


def pictures(size: tuple[int, int, int], channels: int) -> np.ndarray:
    """Make pictures (B, H, W, C), uint8, of smooth regions with noise: there are flat parts, borders and all values."""
    batch, height, width = size
    generator = torch.Generator().manual_seed(batch * height * width)
    coarse = torch.rand(batch, channels, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = 0.1 * torch.randn(batch, channels, height, width, generator=generator)
    return ((smooth + noise).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def expected(model: FCN, images: np.ndarray) -> tuple[np.ndarray, Tensor, Tensor]:
    """Return the labels (B, H, W) that `Predictor` gives, logits (B, K, H, W), and scores (B, K, h, w)."""
    size = (images.shape[1], images.shape[2])
    labels = np.stack([result.labels for result in Predictor(model)(list(images))])
    with evaluating(model), torch.no_grad():
        like = next(model.head.parameters())
        tensor = torch.cat([to_tensor(image, model.preprocess) for image in images]).to(like)
        found = model.scores(tensor, aux=False)
        scores = found.main.float().cpu()
    logits = sample_resized(upsample, scores, found.grid, (tensor.shape[2], tensor.shape[3]), size)
    return labels, logits, scores
