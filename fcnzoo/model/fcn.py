"""The network: image in; scores, logits, labels or the loss out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcnzoo.backbones import Backbone, build_backbone
from fcnzoo.backbones.base import Pretrained
from fcnzoo.config import FCNConfig, Grid, Padding, Preprocess
from fcnzoo.labels import LabelSet, LabelSetLike
from fcnzoo.model.evaluating import evaluating
from fcnzoo.model.heads import DilatedHead, Head, build_heads
from fcnzoo.model.inputs import check_image, check_target, explain_batch_of_one
from fcnzoo.model.score_rows import carry_rows, score_layers
from fcnzoo.ops import upsample, upsample_argmax, upsample_cross_entropy


class Scores(NamedTuple):
    """What a network says about an image before anything is made as large as the image.

    Attributes:
        main: (B, K, h, w).
        aux: Scores of the aux head (B, K, h', w'), or `None`.
        grid: Where the image's pixels lie on `main`.
        aux_grid: Where they lie on `aux`.
    """

    main: Tensor
    aux: Tensor | None
    grid: Grid
    aux_grid: Grid | None


class FCN(nn.Module):
    """A fully convolutional network: a backbone, a head, and perhaps an aux head.

    Args:
        config: What it is; `preprocess=None` is filled in from the backbone.
        backbone: The network that gives the features.
        head: Scores the features.
        aux_head: Scores a finer feature, in training only.

    Attributes:
        config: Complete: `preprocess` is never `None`.
        check_gpu_labels: Check targets on a GPU too. It waits for the device, so it is off by default;
            on a CPU targets are always checked (except in compiled code, which PyTorch checks itself).
        provenance: What the weights were made from, ready for JSON; `load` and `convert` fill it in and `save`
            writes it. It says nothing about training since: change it then.
    """

    def __init__(self, config: FCNConfig, backbone: Backbone, head: Head, aux_head: DilatedHead | None = None) -> None:
        super().__init__()
        self.config = config if config.preprocess else config.replace(preprocess=backbone.preprocess)
        self.backbone = backbone
        self.head = head
        self.aux_head = aux_head
        self.check_gpu_labels = False
        self.provenance: dict[str, Any] = {}
        # BatchNorm cannot be trained on one value per channel: tiny images are padded to two cells.
        smallest = (backbone.min_size, max(backbone.min_size, max(info.reduction for info in backbone.features) + 1))
        if backbone.fixed_size is not None:
            smallest = (1, 1)
        self._grids = tuple(_padded(head.grid, backbone, size) for size in smallest)
        self._aux_grids = (
            tuple(_padded(aux_head.grid, backbone, size) for size in smallest) if aux_head else (None, None)
        )
        self._padding = tuple(Padding(multiple=backbone.size_multiple, min_size=size) for size in smallest)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.config.num_classes

    @property
    def label_set(self) -> LabelSet | None:
        """Names and colors of the classes, if known."""
        return self.config.label_set

    @property
    def preprocess(self) -> Preprocess:
        """What images must go through before the network sees them."""
        return self.config.preprocess or self.backbone.preprocess

    @property
    def grid(self) -> Grid:
        """Where image pixels lie on the scores of `scores(image).main`."""
        return self._grids[self.training]

    @property
    def padding(self) -> Padding:
        """How images are padded at their bottom and right: to a `multiple`, and to a `min_size`."""
        return self._padding[self.training]

    def scores(self, image: Tensor, *, aux: bool | None = None) -> Scores:
        """Compute scores at the head's own resolution.

        Args:
            image: (B, C, H, W), floating point, preprocessed; any H, W ≥ 1.
            aux: Whether to compute the aux head's scores; by default in training mode only.

        Raises:
            ValueError: Wrong rank, number of channels, or empty; or `aux=True` without an aux head.
            TypeError: Wrong dtype.
        """
        check_image(image, self.config.backbone.in_channels, self.dtype)
        if aux and self.aux_head is None:
            raise ValueError("aux=True, but this network has no aux head; create it with aux=True")
        with_aux = self.aux_head is not None and (self.training if aux is None else aux)
        features = self._features(image)
        main = self.head(features)
        if not with_aux or self.aux_head is None:
            return Scores(main, None, self.grid, None)
        return Scores(main, self.aux_head(features), self.grid, self._aux_grids[self.training])

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor:
        """Compute logits, or the loss.

        Args:
            image: (B, C, H, W), floating point, preprocessed; any H, W ≥ 1.
            target: (B, H, W) integers: labels 0…K−1, or the config's `ignore_index`.

        Returns:
            Logits (B, K, H, W) without a target. With one, the scalar cross-entropy that `config.loss`
            describes, plus `aux_weight` times the aux head's in training mode. Where no pixel counts it is 0.

        Raises:
            ValueError: A shape does not fit.
            TypeError: A dtype does not fit.
            LabelError: The target holds a label outside the range.
        """
        if target is None:
            scores = self.scores(image, aux=False)
            return upsample(scores.main, scores.grid, (image.shape[-2], image.shape[-1]))
        check_image(image, self.config.backbone.in_channels, self.dtype)
        check_target(target, image, self.num_classes, self.config.loss.ignore_index, on_gpu=self.check_gpu_labels)
        scores = self.scores(image)
        loss = self._loss(scores.main, target, scores.grid)
        if scores.aux is not None and scores.aux_grid is not None:
            loss = loss + self.config.loss.aux_weight * self._loss(scores.aux, target, scores.aux_grid)
        return loss

    def predict(self, image: Tensor) -> Tensor:
        """Compute labels in eval mode, without gradients and without full-size logits being kept.

        Args:
            image: (B, C, H, W), floating point, preprocessed; any H, W ≥ 1.

        Returns:
            Labels (B, H, W): uint8 up to 256 classes, else int16.

        Raises:
            ValueError: Wrong rank or number of channels.
            TypeError: Wrong dtype.
        """
        # Not inference_mode: labels made there could not be changed in place by the caller.
        with evaluating(self), torch.no_grad():
            scores = self.scores(image, aux=False)
            return upsample_argmax(scores.main, scores.grid, (image.shape[-2], image.shape[-1]))

    def features(self, image: Tensor) -> list[Tensor]:
        """Compute what the heads see.

        Args:
            image: (B, C, H, W), floating point, preprocessed; any H, W ≥ 1.

        Returns:
            One map (B, C_i, ⌈H / r_i⌉, ⌈W / r_i⌉) for each of `backbone.features`, which say C_i and r_i, finest
            first. The image is padded for the backbone and the maps are cropped again. Where features do not lie on
            the image (the paper's geometry, networks of one fixed size) they come whole.

        Raises:
            ValueError: Wrong rank, number of channels, or empty.
            TypeError: Wrong dtype.
        """
        check_image(image, self.config.backbone.in_channels, self.dtype)
        maps = self._features(image)
        if self.backbone.fixed_size is not None:
            return maps
        height, width = image.shape[-2:]
        return [
            feature
            if info.grid.stride is not None
            else feature[..., : -(-height // info.reduction), : -(-width // info.reduction)]
            for feature, info in zip(maps, self.backbone.features, strict=True)
        ]

    @torch.no_grad()
    def reset_classifier(self, num_classes: int | None = None, label_set: LabelSetLike | None = None) -> None:
        """Give the network other classes: fresh score layers, everything else as it is.

        What the score layers say about a class that both label sets have by the same name is kept, as
        [`create`][fcnzoo.create] does; the log says which. The score layers are new parameters, which an optimizer
        made before does not know: make it afterwards. All others are the same objects, frozen where they were.

        Args:
            num_classes: K.
            label_set: Names of the classes instead of their number, or besides it.

        Raises:
            ValueError: Neither is given, they contradict each other, or are impossible.
            TypeError: One of them has a wrong type.
            RuntimeError: The score layers are not those that the config describes: somebody has replaced them.
        """
        if num_classes is None and label_set is None:
            raise ValueError("reset_classifier needs num_classes or label_set")
        trained = self.config
        config = trained.with_classes(num_classes, label_set)
        old = score_layers(self, trained.num_classes)
        head, aux_head = build_heads(config, self.backbone.features)
        fresh = score_layers(nn.ModuleDict({"head": head, "aux_head": aux_head or nn.Identity()}), config.num_classes)
        if fresh.keys() != old.keys():
            raise RuntimeError(
                f"the network's score layers are {sorted(old)}, its config describes {sorted(fresh)}; "
                "reset_classifier is for networks as create, build and load return them"
            )
        for name, layer in old.items():
            self.set_submodule(name, fresh[name].to(layer.weight).train(layer.training))
        self.config = config
        weights = {f"{name}.{key}": tensor for name, layer in old.items() for key, tensor in layer.state_dict().items()}
        carry_rows(self, config, trained, weights)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put the network on the Hub; see [`fcnzoo.push_to_hub`][fcnzoo.weights.push.push_to_hub] for the options.

        Returns:
            The commit.
        """
        from fcnzoo.weights.push import push_to_hub

        return push_to_hub(self, repo_id, **options)

    def _loss(self, scores: Tensor, target: Tensor, grid: Grid) -> Tensor:
        loss = self.config.loss
        weight = None if loss.class_weights is None else torch.tensor(loss.class_weights, device=scores.device)
        return upsample_cross_entropy(
            scores,
            target,
            grid,
            ignore_index=loss.ignore_index,
            weight=weight,
            label_smoothing=loss.label_smoothing,
        )

    def _features(self, image: Tensor) -> list[Tensor]:
        image = self._fit(image)
        if not self.training or torch.compiler.is_compiling():
            return self.backbone(image)
        try:
            return self.backbone(image)
        except ValueError as error:
            explain_batch_of_one(self.backbone, error)
            raise

    def _fit(self, image: Tensor) -> Tensor:
        """Pad an image at its bottom and right as the backbone asks, or resize it to the one size it takes."""
        if self.backbone.fixed_size is not None:
            if tuple(image.shape[-2:]) == self.backbone.fixed_size:
                return image
            return F.interpolate(image, self.backbone.fixed_size, mode="bilinear", antialias=True)
        padding = self.padding
        height, width = image.shape[-2:]
        bottom, right = padding.padded(height) - height, padding.padded(width) - width
        return F.pad(image, (0, right, 0, bottom)) if bottom or right else image

    @property
    def dtype(self) -> torch.dtype:
        """Of the score layers."""
        return next(self.head.parameters()).dtype


def _padded(grid: Grid, backbone: Backbone, min_size: int) -> Grid:
    """Tell a fitting grid how the image was padded; a grid of a fixed stride need not know."""
    if grid.stride is not None or backbone.fixed_size is not None:
        return grid
    return grid.replace(multiple=backbone.size_multiple, min_size=min_size)


def build(config: FCNConfig, *, pretrained_backbone: Pretrained = False) -> FCN:
    """Build a network from its config.

    Under `torch.device("meta")` nothing is computed or stored.

    Args:
        config: What to build.
        pretrained_backbone: `True`: the provider's own weights; a path: a local safetensors file. A config
            without `preprocess` then gets the one these weights were trained on.

    Raises:
        UnknownModelError: There is no such backbone.
        BackboneError: The backbone cannot serve the head.
        WeightsError: The backbone's weights cannot be had or do not fit.
    """
    backbone = build_backbone(config.backbone, pretrained_backbone)
    return FCN(config, backbone, *build_heads(config, backbone.features))
