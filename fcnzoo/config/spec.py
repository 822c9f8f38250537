"""What the zoo knows about a model and its weights, as records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fcnzoo.config.network import FCNConfig
from fcnzoo.files.records import Record


@dataclass(frozen=True)
class Metric(Record):
    """One figure, as published or as `fcnzoo evaluate` printed it.

    Attributes:
        name: `"mean_iou"`, `"pixel_accuracy"`, …
        value: In [0, 1].
        split: What it was measured on: `"CamVid val"`.
        command: What measures it again; empty where only the publisher can.
    """

    name: str
    value: float
    split: str
    command: str = ""


Converter = Literal["torchvision", "torchfcn", "torchfcn-atonce", "caffe", "caffe-atonce", "mmseg", "deeplab"]
"""What `fcnzoo.convert` calls the publishers it reads."""

Layout = Literal["folder", "camvid", "voc", "cityscapes", "ade20k"]
"""How the folders of a data set are laid out: a name for `fcnzoo.data.open_dataset`."""


@dataclass(frozen=True)
class Publication(Record):
    """The file in which the authors of weights published them.

    Attributes:
        converter: Which converter reads it.
        url: Where it lies.
        drive: Id of the file, if it lies on Google Drive; fetching it needs the package `gdown`.
        sha256: Of the file: all 64 hex digits, or the first 8 or more, where the publisher tells no more.
        md5: The same, where the publisher gives an MD5. Without either, nothing but the address vouches for it.
    """

    converter: Converter
    url: str | None = None
    drive: str | None = None
    sha256: str | None = None
    md5: str | None = None

    def check(self) -> None:
        """See `Record.check`."""
        if (self.url is None) == (self.drive is None):
            self.refuse("url", "or drive must be given, and not both")
        if self.url is not None and not self.url.startswith(("https://", "http://")):
            self.refuse("url", "must start with https:// or http://")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{8,64}", self.sha256):
            self.refuse("sha256", "must be 8 to 64 lower-case hex digits")
        if self.md5 is not None and not re.fullmatch(r"[0-9a-f]{32}", self.md5):
            self.refuse("md5", "must be 32 lower-case hex digits")

    @property
    def address(self) -> str:
        """Where a person can fetch the file."""
        return self.url or f"https://drive.google.com/uc?id={self.drive}"

    @property
    def file_name(self) -> str:
        """What to call the file."""
        return self.url.rpartition("/")[2] if self.url else f"{self.drive}.pth"


@dataclass(frozen=True)
class Weights(Record):
    """One set of trained weights of a model.

    They may be had from several places: the wheel, a Hub repository, the authors' own file. Only places where
    they really are stand here.

    Attributes:
        tag: Its name after the dot: `fcn8s_tf_efficientnet_lite0.camvid`.
        dataset: What it was trained on.
        license: SPDX identifier, or the publisher's words.
        packaged: Folder that `fcnzoo.save` wrote, for weights shipped in a wheel: a path inside the package
            `fcnzoo`, or the absolute one of a plug-in's own, `str(Path(__file__).parent / "weights")`.
        sha256: Digest of `model.safetensors`, in the wheel and on the Hub.
        metrics: What it reaches.
        note: What a user must know before using it.
        hub: Repository on the Hub: `"org/name"`.
        revision: Commit there, 40 hex digits.
        published: The authors' own file, converted when it is asked for.
        config: The network these weights are for, where that is not the entry's (other classes, say).
    """

    tag: str
    dataset: str
    license: str
    packaged: str | None = None
    sha256: str | None = None
    metrics: tuple[Metric, ...] = ()
    note: str = ""
    hub: str | None = None
    revision: str | None = None
    published: Publication | None = None
    config: FCNConfig | None = None

    @property
    def noncommercial(self) -> bool:
        """Whether the license says that they are not for commercial use."""
        return re.search(r"\bNC\b|non-?commercial", self.license, re.IGNORECASE) is not None

    def check(self) -> None:
        """See `Record.check`."""
        if not self.tag or not re.fullmatch(r"[\w.-]+", self.tag):
            self.refuse("tag", "must be letters, digits, '_', '-' and '.'")
        if self.sha256 is None and (self.hub is not None or self.packaged is not None):
            self.refuse("sha256", "must be given for weights in a package or on the Hub")
        if self.hub is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            self.refuse("revision", "must be the commit (40 hex digits) of weights on the Hub")


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
