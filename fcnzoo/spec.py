"""What the zoo knows about a model and its weights, as records."""

from __future__ import annotations

from dataclasses import dataclass

from fcnzoo.config import FCNConfig
from fcnzoo.records import Record


@dataclass(frozen=True)
class Metric(Record):
    """One figure, as published or as `fcnzoo evaluate` printed it.

    Attributes:
        name: `"mean_iou"`, `"pixel_accuracy"`, …
        value: In [0, 1].
        split: What it was measured on: `"CamVid val"`.
    """

    name: str
    value: float
    split: str


@dataclass(frozen=True)
class Weights(Record):
    """One set of trained weights of a model.

    Attributes:
        tag: Its name after the dot: `fcn8s_tf_efficientnet_lite0.camvid`.
        dataset: What it was trained on.
        license: SPDX identifier, or the publisher's words.
        packaged: Folder inside the package, for weights shipped in the wheel.
        sha256: Digest of the packaged `model.safetensors`.
        metrics: What it reaches.
        note: What a user must know before using it.
    """

    tag: str
    dataset: str
    license: str
    packaged: str | None = None
    sha256: str | None = None
    metrics: tuple[Metric, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class ModelSpec(Record):
    """One entry of the zoo.

    Attributes:
        name: `<head>_<backbone>`.
        config: How to build it.
        weights: What trained weights there are; the first is the default.
        description: One line.
        reference: Paper or code that it follows.
    """

    name: str
    config: FCNConfig
    weights: tuple[Weights, ...] = ()
    description: str = ""
    reference: str = ""

    def check(self) -> None:
        """See `Record.check`."""
        if not self.name or any(letter in self.name for letter in "/. \\"):
            self.refuse("name", "must be non-empty, without dots, slashes and spaces")
        tags = [weights.tag for weights in self.weights]
        if len(set(tags)) != len(tags):
            self.refuse("weights", "must have distinct tags")

    def find_weights(self, tag: str | None = None) -> Weights | None:
        """Return the weights of a tag, or the default ones; `None` if there are none."""
        for weights in self.weights:
            if tag is None or weights.tag == tag:
                return weights
        return None
