"""Images in, label maps out: the model's tensors stay inside."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from PIL import Image

from fcnzoo.images.load import ImageSource, load_image, to_array
from fcnzoo.images.preprocess import image_channels, to_tensor
from fcnzoo.images.segmentation import Segmentation
from fcnzoo.inference.optimize import OptimizedFCN, optimize
from fcnzoo.inference.resized import sample_resized
from fcnzoo.inference.tiles import check_tiling, tiled_labels
from fcnzoo.labels import LabelSet, generic_label_set
from fcnzoo.model.fcn import FCN
from fcnzoo.ops import upsample_argmax
from fcnzoo.weights.factory import move, resolve_model


class _Read(NamedTuple):
    """An image that was read: what the network is given of it, and the picture that stands for it."""

    given: Image.Image | np.ndarray
    picture: Image.Image


LARGE = 2**25
"""Pixels of an image above which it is segmented in tiles unless told otherwise: a whole one takes some 2.5 GB then."""

LARGE_TILE = 2048


def _tiling(model: FCN, tile: int | None, overlap: int | None) -> tuple[tuple[int, int] | None, int]:
    """Return side and overlap of tiles, if the network can be tiled, and how many pixels an image may have without."""
    if tile is not None:
        return check_tiling(model, tile, overlap), 0
    try:
        return check_tiling(model, LARGE_TILE, None), LARGE
    except ValueError:  # it resizes its images, so that their size does not matter
        return None, LARGE


class Predictor:
    """A network that takes images and gives [`Segmentation`][fcnzoo.Segmentation]s.

    The network runs in eval mode and without gradients. One that is given in training mode is put into eval mode, once,
    when the predictor is made: nothing about it changes while pictures are segmented, so threads may share a predictor,
    and predictors a network. Call `model.train()` before training goes on, and not while a predictor is at work.

    Example:
        ```python
        predictor = fcnzoo.Predictor()                       # the shipped model
        predictor("street.jpg").save("street.png", kind="overlay")
        ```
    """

    model: FCN
    """The network; its `preprocess` says how images become its tensors."""
    label_set: LabelSet
    """Names and colors of its classes: its own, or `class 0`, `class 1`, … if nobody said what they are."""

    def __init__(
        self,
        model: FCN | str | Path | None = None,
        *,
        device: torch.device | str | None = None,
        fast: bool = False,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> None:
        """Take, create or load a network.

        Args:
            model: A model, used as it is, not copied; the name of a zoo model, created with its
                pretrained weights; a folder that `fcnzoo.save` wrote, as a `Path` or as a text that
                has a separator in it or is an existing folder with a `config.json`; `None`: the model that
                is shipped with the library.
            device: Where it runs; `None`: where it is. A model that was given is itself moved there and stays there,
                as with `model.to(device)`.
            fast: Use a copy made by [`optimize`][fcnzoo.optimize]: BatchNorm folded, the fastest memory
                order and precision. With bfloat16 some labels change at borders between classes.
            tile: Images with a side above so many pixels are segmented in tiles of that side, blended where they
                overlap: memory is bounded by the tile and the label map. `None`: each image as a whole up to
                `LARGE` pixels, and larger ones in tiles of `LARGE_TILE`, where the network can be tiled.
            overlap: Pixels that neighboring tiles share; `None`: a quarter of a tile.

        Raises:
            UnknownModelError: There is no model of that name.
            WeightsError: Its weights cannot be had.
            ValueError: The device does not exist here; `tile` or `overlap` is impossible, or the network resizes
                its images, so that tiles have no meaning.
            TypeError: `model` is of another type.
        """
        self.model = resolve_model(model)
        if device is not None:
            move(self.model, device)
        if overlap is not None and tile is None:
            raise ValueError(f"overlap={overlap} goes with tile=…")
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        self._tiling, self._whole = _tiling(self.model, tile, overlap)
        if fast and not isinstance(self.model, OptimizedFCN):
            self.model = optimize(self.model)
        self.label_set = self.model.label_set or generic_label_set(self.model.num_classes)

    def __repr__(self) -> str:
        return f"Predictor({type(self.model).__name__}, {self.model.num_classes} classes of {self.label_set.name!r})"

    @overload
    def __call__(self, image: ImageSource) -> Segmentation: ...
    @overload
    def __call__(self, image: Sequence[ImageSource]) -> list[Segmentation]: ...
    def __call__(self, image: ImageSource | Sequence[ImageSource]) -> Segmentation | list[Segmentation]:
        """Segment one image, or each of a list.

        If the network's preprocessing resizes, it sees the resized image and the label map is sampled
        from its scores at the image's own size. (Networks with a geometry of their own, such as the
        paper's, or that pad the resized image: labels at the resized size, brought back by nearest neighbor.)

        Args:
            image: Whatever [`load_image`][fcnzoo.images.load.load_image] takes, or a list of it. A network of
                other than 1 or 3 channels takes uint8 arrays (H, W, C) or tensors (C, H, W) with that
                many; the first three, or the only one, stand for the picture in `Segmentation.image`.

        Raises:
            OSError, ValueError, TypeError: As `load_image`; or the number of channels does not fit.
        """
        if isinstance(image, list | tuple):
            return list(self.map(image))
        return self._segment(self._read(image))  # pyright: ignore[reportArgumentType]  # other Sequences are refused

    def map(self, images: Iterable[ImageSource]) -> Iterator[Segmentation]:
        """Segment one image after the other, the next one being read and decoded meanwhile.

        Args:
            images: As for a call; a generator is read two images ahead.

        Yields:
            One segmentation per image, in order.

        Raises:
            OSError, ValueError, TypeError: As for a call, when the image's turn comes.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="fcnzoo-images") as reader:
            waiting: deque[Future[_Read]] = deque()
            for image in images:
                waiting.append(reader.submit(self._read, image))
                if len(waiting) > 1:
                    yield self._segment(waiting.popleft().result())
            while waiting:
                yield self._segment(waiting.popleft().result())

    def _read(self, source: ImageSource) -> _Read:
        """Read an image."""
        channels = len(self.model.preprocess.mean)
        if channels in (1, 3):
            picture = load_image(source)
            return _Read(picture, picture)
        if not isinstance(source, np.ndarray | torch.Tensor):
            raise ValueError(
                f"the network takes {channels} channels; give a uint8 array (H, W, {channels}) "
                f"or tensor ({channels}, H, W), got {type(source).__name__}"
            )
        array = to_array(source)
        return _Read(array, load_image(array[:, :, :3] if channels > 2 else array[:, :, :1]))

    def _segment(self, read: _Read) -> Segmentation:
        """Go from an image that was read to its labels: a tensor, scores, labels."""
        size = (read.picture.height, read.picture.width)
        with torch.inference_mode():
            if self._tiling is not None and max(size) > self._tiling[0] and size[0] * size[1] > self._whole:
                pixels = image_channels(read.given, len(self.model.preprocess.mean))
                labels = tiled_labels(
                    self.model, size, lambda rows, columns: self._tensor(pixels[rows, columns]), *self._tiling
                )
            else:
                tensor = self._tensor(read.given)
                scores = self.model.scores(tensor, aux=False)
                seen = (tensor.shape[2], tensor.shape[3])
                labels = sample_resized(upsample_argmax, scores.main, scores.grid, seen, size)[0]
        return Segmentation(labels.cpu().numpy(), self.label_set, read.picture)

    def _tensor(self, given: Image.Image | np.ndarray) -> torch.Tensor:
        """Return what the network takes, (1, C, h, w)."""
        device = next(self.model.parameters()).device
        return to_tensor(given, self.model.preprocess, device=device, dtype=self.model.dtype)


def agreement(plain: FCN, fast: FCN, images: Iterable[ImageSource]) -> float:
    """Return the share of pixels to which two networks give the same label: what a faster form of one costs.

    Args:
        plain: The network.
        fast: What [`optimize`][fcnzoo.optimize] made of it, or any other of the same classes.
        images: Pictures to compare the labels on.

    Returns:
        0…1.

    Raises:
        ValueError: There are no images.
    """
    ours, theirs = Predictor(plain), Predictor(fast)
    equal = total = 0
    for image in images:
        labels = ours(image).labels
        equal += int((labels == theirs(image).labels).sum())
        total += labels.size
    if total == 0:
        raise ValueError("images is empty; give at least one picture to compare the labels on")
    return equal / total
