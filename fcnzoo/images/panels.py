"""A few images of an evaluation as one picture: photo, truth and prediction side by side."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image
from torch import Tensor

from fcnzoo.images.load import load_image
from fcnzoo.images.visualize import PICTURE_FORMATS, colorize, write_picture
from fcnzoo.labels import LabelSet

_CELL_WIDTH = 480
_GAP = 4


class PictureGrid:
    """Rows of photo, truth and prediction, kept until `write`.

    Args:
        path: File that will be written: PNG, JPEG or WebP.
        label_set: Colors.

    Raises:
        ValueError: The suffix is of another format.
        OSError: The folder cannot be written to: better known before the work than after it.
    """

    def __init__(self, path: str | Path, label_set: LabelSet) -> None:
        self.path, self.label_set = Path(path), label_set
        if self.path.suffix.lower() not in PICTURE_FORMATS:
            raise ValueError(f"{path}: a picture grid goes to {' or '.join(PICTURE_FORMATS)} files")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path.parent, os.W_OK):
            raise PermissionError(f"{self.path.parent} cannot be written to")
        self._rows: list[Image.Image] = []

    def add(self, image: Tensor, target: Tensor, labels: Tensor) -> None:
        """Draw a row.

        Args:
            image: uint8 (C, H, W); of other than three channels, the first is shown.
            target: The truth, (H, W) integers.
            labels: The prediction, (H, W) integers.

        Raises:
            LabelError: There is a value that is neither a class nor the ignore index.
        """
        photo = load_image(image if image.shape[0] == 3 else image[:1])
        cells = [photo, *(colorize(labels.cpu().numpy(), self.label_set) for labels in (target, labels))]
        size = (_CELL_WIDTH, max(1, round(photo.height * _CELL_WIDTH / photo.width)))
        row = Image.new("RGB", (3 * size[0] + 2 * _GAP, size[1]), "white")
        for i, cell in enumerate(cells):
            resample = Image.Resampling.NEAREST if i else Image.Resampling.BILINEAR
            row.paste(cell.resize(size, resample), (i * (size[0] + _GAP), 0))
        self._rows.append(row)

    def write(self) -> None:
        """Write the rows, one below the other, to the file.

        Raises:
            ValueError: There are no rows.
            OSError: The file cannot be written.
        """
        if not self._rows:
            raise ValueError("a picture grid needs at least one row")
        height = sum(row.height for row in self._rows) + _GAP * (len(self._rows) - 1)
        grid = Image.new("RGB", (self._rows[0].width, height), "white")
        top = 0
        for row in self._rows:
            grid.paste(row, (0, top))
            top += row.height + _GAP
        write_picture(grid, self.path)
