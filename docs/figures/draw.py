"""What each figure shows: computed here, laid out by matplotlib, kept as WebP or SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import fcnzoo
from docs.figures.networks import enlarge
from fcnzoo.images.load import load_image
from fcnzoo.images.preprocess import to_tensor
from fcnzoo.model.skip import SkipHead, bilinear_kernel

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = EXAMPLES / "street.jpg"
INK = "#7f7f7f"
"""Of text and lines: to be read on light and on dark pages."""

Panel = tuple[str, np.ndarray | Image.Image, str | None]
"""Title, picture or map, and the colors of a map."""

STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "fcnzoo",
}


def save_panels(panels: Sequence[Panel], file: Path, columns: int, size: tuple[float, float] = (4.0, 3.0)) -> None:
    """Write pictures side by side, each under its title, on a transparent ground.

    Args:
        panels: What to show, row by row.
        file: A WebP file.
        columns: How many stand beside each other.
        size: Of each, in inches (width, height); there are 120 pixels to an inch.
    """
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(columns * size[0], rows * (size[1] + 0.3)), squeeze=False, layout="constrained"
        )
        for axis in axes.flat:
            axis.axis("off")
        for axis, (title, picture, colors) in zip(axes.flat, panels, strict=False):
            lowest = min(0.0, float(np.nanmin(picture))) if colors else None  # a flat map is to look flat
            axis.imshow(picture, cmap=colors, vmin=lowest, interpolation="nearest")
            axis.set_title(title, fontsize=13)  # the pictures shrink to half on a phone
        figure.savefig(file.with_suffix(".png"), dpi=120, transparent=True)
        plt.close(figure)
    Image.open(file.with_suffix(".png")).save(file, quality=85, method=6)
    file.with_suffix(".png").unlink()


def vgg_receptive_fields(backbone: Any) -> dict[str, int]:
    """Return the sides in pixels of what one place of pool3, pool4 and fc7 of the paper's VGG-16 sees.

    Every layer of kernel k adds (k − 1) times the product of the strides before it.
    """
    side, stride, found = 1, 1, {}
    for block in range(1, 6):
        convolutions = [layer for name, layer in backbone.named_children() if name.startswith(f"conv{block}_")]
        for layer in convolutions:
            side += (layer.kernel_size[0] - 1) * stride
        side += (backbone.pool.kernel_size - 1) * stride
        stride *= backbone.pool.stride
        found[f"pool{block}"] = side
    found["fc7"] = side + (backbone.fc6.kernel_size[0] - 1) * stride
    return {name: found[name] for name in ("pool3", "pool4", "fc7")}


def measure_receptive_field(model: fcnzoo.FCN, level: int, size: tuple[int, int], images: int = 8) -> np.ndarray:
    """Return how much each pixel moves the middle score of a level: absolute gradient, mean over images of noise.

    That is the effective receptive field of Luo et al. 2016.

    Args:
        model: With a skip head.
        level: 32, 16 or 8.
        size: (H, W) of the images.
        images: How many.

    Returns:
        (H, W), averaged over 9×9 pixels, the largest value 1.
    """
    head = model.head
    assert isinstance(head, SkipHead)
    tap = head.taps[head.levels.index(level)]
    total = torch.zeros(size)
    draw = torch.Generator().manual_seed(0)
    for _ in range(images):
        image = torch.randn(1, 3, *size, generator=draw, requires_grad=True)
        scores = head.score[str(level)](model.backbone(image)[tap])
        scores[0, :, scores.shape[2] // 2, scores.shape[3] // 2].sum().backward()
        assert image.grad is not None
        total += image.grad[0].abs().sum(0)
    total = nn.functional.avg_pool2d(total[None, None], 9, stride=1, padding=4)[0, 0]
    return (total / total.max()).numpy()


def receptive_fields(model: fcnzoo.FCN, photo: Image.Image) -> list[Panel]:
    """Show what the paper's network can see at one place, and what the shipped one does."""
    fields = vgg_receptive_fields(fcnzoo.create("fcn8s_vgg16", device="meta").backbone)
    panels: list[Panel] = [(f"VGG-16: {', '.join(map(str, fields.values()))} pixels", _boxes(photo, fields), None)]
    size = (photo.height // 32 * 32, photo.width // 32 * 32)
    for level in (8, 16, 32):
        heat = measure_receptive_field(model, level, size)
        panels.append((f"{model.config.backbone.architecture}: stride {level}", np.sqrt(heat), "magma"))
    return panels


def _boxes(photo: Image.Image, sides: Mapping[str, int]) -> Image.Image:
    """Draw squares around the middle of a photo, on a margin that the largest one needs."""
    from PIL import ImageDraw

    margin = max(0, max(sides.values()) - photo.height) // 2 + 8
    canvas = Image.new("RGBA", (photo.width, photo.height + 2 * margin), (0, 0, 0, 0))
    canvas.paste(photo, (0, margin))
    draw = ImageDraw.Draw(canvas)
    for side, color in zip(sides.values(), ("#00e5ff", "#ffd600", "#ff4081"), strict=True):
        left, top = (canvas.width - side) // 2, (canvas.height - side) // 2
        draw.rectangle((left, top, left + side - 1, top + side - 1), outline=color, width=3)
    return canvas


def heat_maps(classifier: nn.Module, names: Sequence[str], wanted: Sequence[str], photo: Image.Image) -> list[Panel]:
    """Show where a classifier of 224×224 pictures, made fully convolutional, sees classes in a larger one."""
    network = fcnzoo.fully_convolutional(classifier)
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]
    with torch.no_grad():
        shares = network(enlarge(pixels))[0].softmax(0).numpy()
    # A place is the middle of a crop of 7×7 features: without a margin of 3, maps would not lie where the photo does.
    shares = np.pad(shares, ((0, 0), (3, 3), (3, 3)), constant_values=np.nan)
    panels: list[Panel] = [("the photo", photo, None)]
    return panels + [(name, shares[names.index(name)], "magma") for name in wanted]


def strides(models: Mapping[str, tuple[fcnzoo.FCN, str]], photo: Image.Image) -> list[Panel]:
    """Show the labels of networks of several strides over the photo."""
    panels: list[Panel] = [("the photo", photo, None)]
    for title, (model, figure) in models.items():
        panels.append((f"{title}: {figure}", fcnzoo.Predictor(model)(photo).overlay(0.6, legend=False), None))
    return panels


def checkerboard(frozen: fcnzoo.FCN, learned: fcnzoo.FCN, name: str, photo: Image.Image) -> list[Panel]:
    """Show a class's kernel, what it makes of a flat map of scores, and its logits: frozen and learned."""
    head = learned.head
    assert isinstance(head, SkipHead) and head.deconv is not None and learned.label_set is not None
    k = learned.label_set.index(name)
    stride = head.deconv.stride[0]
    panels: list[Panel] = []
    kernels = (bilinear_kernel(stride).float(), head.deconv.weight.detach()[k, k])
    for title, kernel in zip(("frozen", "learned"), kernels, strict=True):
        panels.append((f"{title}: kernel", kernel.numpy(), "magma"))
    for title, kernel in zip(("frozen", "learned"), kernels, strict=True):
        panels.append((f"{title}: a flat map of scores", flat_response(kernel, stride).numpy(), "magma"))
    for title, model in (("frozen", frozen), ("learned", learned)):
        image = to_tensor(photo, model.preprocess)
        with torch.no_grad():
            logits = model.eval()(image)[0, k]
        panels.append((f"{title}: logits of {name}", logits.numpy(), "magma"))
    return panels


def flat_response(kernel: Tensor, stride: int, cells: int = 6) -> Tensor:
    """Return what a transposed convolution makes of a map of ones, without the border that lacks neighbors."""
    response = nn.functional.conv_transpose2d(torch.ones(1, 1, cells, cells), kernel[None, None], stride=stride)[0, 0]
    return response[stride:-stride, stride:-stride]


def grids(names: Sequence[tuple[str, str, str | None]], length: int, file: Path) -> None:
    """Draw on which pixels of an image axis the scores of networks lie.

    Args:
        names: Title, model, geometry.
        length: Of the axis, in pixels.
        file: An SVG file.
    """
    with mpl.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(5.2, 0.36 * len(names) + 0.8), layout="constrained")
        axis.axvspan(-0.5, length - 0.5, color=INK, alpha=0.2, lw=0)
        for row, (_, name, geometry) in enumerate(names):
            places = score_places(name, geometry, length)
            axis.plot(places, np.full_like(places, row), "|", color="#e91e63", markersize=9)
        axis.set_yticks(range(len(names)), [title for title, _, _ in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel("pixel")
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        figure.savefig(file, transparent=True, metadata={"Date": None})
        plt.close(figure)


def score_places(name: str, geometry: Any, length: int) -> np.ndarray:
    """Return the pixel on which each score of an axis lies: source(p) = k, solved for p."""
    model = fcnzoo.create(name, geometry=geometry, device="meta").eval()
    scores = model.scores(torch.empty(1, 3, length, length, device="meta"))
    count, grid = scores.main.shape[-1], scores.grid
    stride = grid.stride or grid.padded(length) / count
    return (np.arange(count) + 0.5) * stride - 0.5 - grid.offset


def home(folder: Path) -> None:
    """Write the pictures of the page Home: what its code makes."""
    for model, photo, file in (("everyday", "cat.jpg", "cat.webp"), ("street", "street.jpg", "street.webp")):
        fcnzoo.Predictor(model)(EXAMPLES / photo).overlay().save(folder / file, quality=85, method=6)


def load_photo() -> Image.Image:
    """Return the photo of the figures."""
    return load_image(PHOTO)
