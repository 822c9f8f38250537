"""What a network saw in one image: labels, areas, overlay, files. Nothing here imports torch."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from fcnzoo.files.atomic import atomic
from fcnzoo.images import visualize
from fcnzoo.labels import LabelSet

Kind = Literal["labels", "overlay", "json"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a network saw in one image.

    Attributes:
        labels: (H, W) class of every pixel, at the image's own size; uint8 up to 256 classes, else int16.
        label_set: Names and colors of the classes.
        image: The image, RGB and upright.
    """

    labels: np.ndarray
    label_set: LabelSet
    image: Image.Image

    def __post_init__(self) -> None:
        """Refuse labels that do not fit the label set or the image."""
        visualize.check_labels(self.labels, self.label_set)
        if self.labels.shape != (self.image.height, self.image.width):
            raise ValueError(
                f"labels are {self.labels.shape}, the image is {(self.image.height, self.image.width)} (H, W)"
            )

    @functools.cached_property
    def _areas(self) -> list[visualize.ClassArea]:
        return visualize.class_areas(self.labels, self.label_set)

    def areas(self) -> dict[str, float]:
        """Return the share of the image that each class present covers, largest first; shares sum to 1."""
        return {area.name: area.share for area in self._areas}

    def to_dict(self) -> dict[str, Any]:
        """Return size, label set and class areas, ready for JSON: what `save` writes to a `.json` file."""
        return {
            "width": self.image.width,
            "height": self.image.height,
            "label_set": self.label_set.name,
            "classes": [asdict(area) for area in self._areas],
        }

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """Return the image with the class colors blended over it.

        Args:
            alpha: Share of the color, 0…1.
            legend: Add a strip below the image with the classes present and the share of each.

        Returns:
            An RGB image; without legend, of the image's size.

        Raises:
            ValueError: `alpha` is outside 0…1.
        """
        picture = visualize.overlay(self.image, self.labels, self.label_set, alpha)
        return (
            visualize.with_legend(picture, visualize.legend_entries(self.labels, self.label_set)) if legend else picture
        )

    def save(self, path: str | Path, kind: Kind | None = None, *, alpha: float = 0.5, legend: bool = True) -> None:
        """Write the labels, the overlay or the class areas; an existing file is replaced in one step.

        Args:
            path: File to write; its folder is made if it is missing.
            kind: `"labels"`: a PNG whose pixel values are the labels, with the label set's palette
                (16-bit gray above 256 classes). `"overlay"`: a picture, PNG, JPEG or WebP. `"json"`:
                the class areas. By default a `.png` holds labels, a `.json` areas.
            alpha: Of the overlay.
            legend: Of the overlay.

        Raises:
            ValueError: The suffix does not go with the kind, or there is no kind for it.
            OSError: The file cannot be written.
        """
        path = Path(path)
        kind = kind or _kind_of(path)
        suffixes = {"labels": (".png",), "overlay": tuple(visualize.PICTURE_FORMATS), "json": (".json",)}
        if kind not in suffixes:
            raise ValueError(f"kind must be one of {list(suffixes)}, got {kind!r}")
        if path.suffix.lower() not in suffixes[kind]:
            raise ValueError(f"{path}: {kind} go to {' or '.join(suffixes[kind])} files")
        if kind == "json":
            with atomic(path, "w") as file:
                json.dump(self.to_dict(), file, indent=2, ensure_ascii=False)
                file.write("\n")
            return
        labels = kind == "labels"
        picture = visualize.indexed(self.labels, self.label_set) if labels else self.overlay(alpha, legend=legend)
        visualize.write_picture(picture, path)


def _kind_of(path: Path) -> Kind:
    """Return what a suffix stands for when nobody says."""
    kinds: dict[str, Kind] = {".png": "labels", ".json": "json"}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"{path}: a suffix other than .png (labels) and .json (areas) needs kind='overlay'")
    return kinds[path.suffix.lower()]
