"""What an exported file says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fcnzoo.config import FCNConfig
from fcnzoo.labels import generic_label_set
from fcnzoo.version import __version__


@dataclass(frozen=True)
class About:
    """The metadata of an exported file.

    In ONNX each field is a key of `metadata_props`, in a `.pt2` file they are one JSON file, `fcnzoo.json`. All
    values but texts are JSON.

    Attributes:
        fcnzoo: Version that wrote the file.
        model: The network's configuration, as in `config.json`.
        input: What goes in.
        outputs: What comes out: each output's name and what it is.
        labels: Names of the classes, in the order of their numbers.
        palette: (red, green, blue) of each class, 0…255.
        dtype: In which the network computes.
        license: Of the weights; empty where nobody said it.
        provenance: What the weights were made from.
    """

    fcnzoo: str
    model: Mapping[str, Any]
    input: str
    outputs: Mapping[str, str]
    labels: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    dtype: str
    license: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def texts(self) -> dict[str, str]:
        """Return every field as a text."""
        return {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in vars(self).items()
        }


_OUTPUTS = {
    "labels": "labels (B, H, W), {labels}: class numbers",
    "logits": "logits (B, K, H, W), float32: scores at every pixel of the image",
    "scores": "scores (B, K, h, w), float32, of the head's own resolution; model.grid in fcnzoo says where pixels lie",
}


def make_about(
    config: FCNConfig,
    outputs: tuple[str, ...],
    dtype: str,
    license: str | None,
    provenance: Mapping[str, Any],
) -> About:
    """Say what there is to say about a network that is exported."""
    label_set = config.label_set or generic_label_set(config.num_classes)
    channels = config.backbone.in_channels
    order = {1: "gray", 3: "RGB"}.get(channels, f"{channels} channels")
    small = "uint8" if config.num_classes <= 256 else "int16"
    return About(
        fcnzoo=__version__,
        model=config.to_dict(),
        input=f"image (B, H, W, {channels}), uint8, {order}, of any size",
        outputs={name: _OUTPUTS[name].format(labels=small) for name in outputs},
        labels=label_set.names,
        palette=label_set.palette,
        dtype=dtype,
        license=license or "",
        provenance=provenance,
    )
