"""From a recipe to its data sets and its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from fcnzoo.data import (
    SegmentationDataset,
    make_transform,
    median_frequency_weights,
    open_dataset,
)
from fcnzoo.errors import WeightsError
from fcnzoo.labels import LabelSet, get_label_set
from fcnzoo.model.score_rows import score_keys
from fcnzoo.training.recipe import Recipe
from fcnzoo.weights.factory import create
from fcnzoo.weights.load import load

if TYPE_CHECKING:
    from fcnzoo.model.fcn import FCN


def build_dataset(recipe: Recipe, split: str) -> SegmentationDataset:
    """Return one split of a recipe's data, as yet without a transform.

    Raises:
        LabelError: A mask holds a value that is no class.
        FileNotFoundError: A folder is missing.
        ValueError: `data.root` is not given, or pictures and masks do not fit each other.
    """
    section = recipe.data
    if not section.root:
        raise ValueError("data.root is not set: give the folder of the data set (--data FOLDER)")
    label_set = _folder_label_set(recipe) if section.dataset == "folder" else None
    return open_dataset(
        section.dataset, section.root, split, label_set=label_set, mapping=section.mapping, ignore=section.ignore
    )


def _folder_label_set(recipe: Recipe) -> LabelSet:
    if recipe.data.class_names:
        return LabelSet.from_names(recipe.data.class_names)
    if recipe.data.label_set:
        return get_label_set(recipe.data.label_set)
    raise ValueError(
        "data.dataset = 'folder' needs the classes: data.label_set (a set the library knows) or "
        "data.class_names (one name per class, in the order of the mask values)"
    )


def set_transform(recipe: Recipe, train: SegmentationDataset, model: FCN) -> None:
    """Give the training split the transform that fits the model's preprocessing; evaluation brings its own."""
    augment = dataclasses.asdict(recipe.augment)
    train.transform = make_transform(
        model.preprocess,
        train=True,
        crop_size=augment.pop("crop"),
        ignore_index=model.config.loss.ignore_index,
        **augment,
    )


def class_weights(recipe: Recipe, train: SegmentationDataset) -> tuple[float, ...] | None:
    """Return the recipe's class weights, counted on the training split."""
    section = recipe.loss
    if section.class_weights == "none":
        return None
    weights = median_frequency_weights(train.count_pixels(), section.weight_power, section.max_weight)
    return tuple(float(weight) for weight in weights)


def build_model(recipe: Recipe, label_set: LabelSet, weights: tuple[float, ...] | None) -> FCN:
    """Return the recipe's model for a label set, with its first weights (save `init_from`).

    Raises:
        ValueError: `model.head` changes a field that the head does not have, or changes the head of a
            pretrained network.
    """
    section = recipe.model
    if len(label_set.names) == 1:
        raise ValueError(
            f"the data have one class, {label_set.names[0]!r}: its loss is 0 whatever the network says. "
            'Name what is not it too: data.class_names = ["background", …]'
        )
    if section.head.changes() and section.pretrained:
        raise ValueError(
            "model.head cannot be changed with model.pretrained: the weights are those of the published head"
        )
    model = create(
        section.name,
        pretrained=section.pretrained,
        num_classes=len(label_set.names),
        backbone=section.backbone,
        pretrained_backbone=section.pretrained_backbone,
        aux=section.aux,
        output_stride=section.output_stride,
        geometry=section.geometry,
        head=section.head.changes() or None,
    )
    loss = model.config.loss.replace(
        ignore_index=label_set.ignore_index, class_weights=weights, label_smoothing=recipe.loss.label_smoothing
    )
    if recipe.loss.aux_weight is not None:
        loss = loss.replace(aux_weight=recipe.loss.aux_weight)
    model.config = model.config.replace(label_set=label_set, loss=loss)
    return model


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What `initialize_from` did.

    Attributes:
        taken: Tensors that came from the finished model.
        fresh: Tensors that the finished model does not have, or has for other classes.
        left: Tensors of the finished model that this one has no place for (its aux head).
    """

    taken: tuple[str, ...]
    fresh: tuple[str, ...]
    left: tuple[str, ...]


def initialize_from(model: FCN, folder: str | Path) -> Transfer:
    """Start a model from a finished one of a neighboring stage: FCN-32s → 16s → 8s.

    The backbone must fit whole. In the heads, what both have must fit; what only this model has stays
    fresh and is listed. Score layers (and they alone) may differ in shape, if the classes differ. Pictures are
    preprocessed from now on as the finished model's were, whatever this model would take by itself.

    Raises:
        WeightsError: Something else does not fit.
    """
    source = load(folder)
    theirs, own = source.state_dict(), model.state_dict()
    scores = score_keys(model, model.num_classes) if source.num_classes != model.num_classes else set()
    taken, fresh = [], []
    for name, value in own.items():
        if name in theirs and theirs[name].shape == value.shape:
            value.copy_(theirs[name])
            taken.append(name)
        elif name in theirs and name not in scores:
            raise WeightsError(
                f"init_from {folder}: {name} has shape {tuple(theirs[name].shape)}, this model {tuple(value.shape)}; "
                "start from a model with the same backbone and head width"
            )
        elif name not in theirs and name.startswith("backbone."):
            raise WeightsError(
                f"init_from {folder}: it has no {name}; "
                f"start from a model with the backbone {model.config.backbone.name}"
            )
        else:
            fresh.append(name)
    left = tuple(name for name in theirs if name not in own)
    odd = [name for name in left if not name.startswith("aux_head.")]
    if odd:
        raise WeightsError(
            f"init_from {folder}: this model has no place for {', '.join(odd[:4])}{', …' if len(odd) > 4 else ''}; "
            "stages go from coarse to fine (32s, 16s, 8s) with the same head options"
        )
    model.config = model.config.replace(preprocess=source.preprocess)
    return Transfer(tuple(taken), tuple(fresh), left)
