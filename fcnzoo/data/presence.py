"""Whether the classes that were named occur in a data set's masks, and what the masks hold if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fcnzoo.data.masks import read_values
from fcnzoo.files.keys import listed

if TYPE_CHECKING:
    from fcnzoo.data.dataset import SegmentationDataset

_LOOKED_AT = 50
"""How many masks are read again for an error text."""


def absent_classes(dataset: SegmentationDataset) -> tuple[str, ...]:
    """Return the names of the classes that no mask holds.

    Raises:
        LabelError, ValueError: As `SegmentationDataset.count_pixels`.
    """
    counts = dataset.count_pixels().tolist()
    return tuple(name for name, count in zip(dataset.label_set.names, counts, strict=True) if not count)


def describe_masks(dataset: SegmentationDataset) -> str:
    """Say how the pixels of the masks are spread over the classes, which values the files hold, and what maps them.

    For the text of an error: some masks are read again.
    """
    counts = dataset.count_pixels().tolist()
    total = max(1, sum(counts) + dataset.count_ignored())
    shares = [f"{name} {count / total:.1%}" for name, count in zip(dataset.label_set.names, counts, strict=True)]
    text = f"Pixels: {listed(shares)}, ignored {dataset.count_ignored() / total:.1%}."
    seen: set[int] = set()
    for _, mask in dataset.files[:: max(1, len(dataset) // _LOOKED_AT)]:
        values = read_values(mask)
        if values.ndim == 3:
            return (
                f"{text} The masks hold colors, of which those of the palette of {dataset.label_set.name!r} are read."
            )
        seen.update(np.unique(values).tolist())
    void = [value for value in sorted(seen) if dataset.table.labels(np.array([[value]]))[0, 0] == dataset.table.void]
    text += f" The mask files hold the values {listed(map(str, sorted(seen)))} (ignored: {listed(map(str, void))})."
    missing = [label for label, count in enumerate(counts) if not count]
    pairs = ", ".join(f"{value} = {label}" for value, label in zip(void, missing, strict=False))
    example = f"for example [data] mapping = {{{pairs or f'128 = {missing[0]}'}}}" if missing else "[data] mapping"
    return f"{text} Say which value means which class ({example})"
