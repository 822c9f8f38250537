"""`fcnzoo info`: what a model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fcnzoo.cli.console import say

if TYPE_CHECKING:
    from fcnzoo.config.spec import Metric, ModelSpec, Weights
    from fcnzoo.model.fcn import FCN


def info(
    name: Annotated[
        str, typer.Argument(help="Name of a model, folder of a saved one, or hf-hub:org/name.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say what a model is: backbone, features, head, parameters, preprocessing, labels, weights, license.

    The network is built without memory or time: no weights are loaded or fetched.
    """
    facts = model_facts(name)
    say(*(json.dumps(facts, indent=2, ensure_ascii=False).split("\n") if as_json else _lines(facts)))


def model_facts(name: str) -> dict[str, Any]:
    """Return what `info` prints, ready for JSON.

    Raises:
        UnknownModelError: Nothing is called so.
        WeightsError: The folder does not hold a saved model.
    """
    from fcnzoo.weights.factory import is_folder

    if name.startswith("hf-hub:"):
        from fcnzoo.weights.folder import CONFIG_FILE
        from fcnzoo.weights.hub import pull

        spec, model, tag = _from_folder(pull(name, files=(CONFIG_FILE,)), "a model on the Hub", fetched=True)
    else:
        spec, model, tag = _from_folder(name) if is_folder(name) else _from_zoo(name)
    config = model.config
    return {
        "name": name,
        "description": spec.description,
        "reference": spec.reference,
        "backbone": config.backbone.to_dict(),
        **_backbone_facts(model),
        "head": config.head.to_dict(),
        "aux_head": None if config.aux_head is None else config.aux_head.to_dict(),
        "grid": model.head.grid.to_dict(),
        "parameters": {
            part: sum(parameter.numel() for parameter in module.parameters())
            for part, module in (("total", model), *model.named_children())
        },
        "num_classes": config.num_classes,
        "label_set": None
        if config.label_set is None
        else {"name": config.label_set.name, "names": list(config.label_set.names)},
        "preprocess": model.preprocess.to_dict(),
        "weights": [one.to_dict() for one in spec.weights if tag is None or one.tag == tag],
    }


def _backbone_facts(model: FCN) -> dict[str, Any]:
    backbone, roles = model.backbone, _roles(model)
    return {
        "features": [
            {"reduction": info.reduction, "channels": info.channels, "tap": info.tap, "used_by": roles.get(i, [])}
            for i, info in enumerate(backbone.features)
        ],
        "dilation": backbone.dilation,
        "image_size": {
            "multiple": backbone.size_multiple,
            "minimum": backbone.min_size,
            "resized_to": backbone.fixed_size,
        },
        "note": backbone.note,
    }


def _roles(model: FCN) -> dict[int, list[str]]:
    """Return what each feature serves: levels of the skip fusion, the head, the aux head."""
    from fcnzoo.model.heads import SkipHead

    head, roles = model.head, {}
    names = [f"level {level}" for level in head.levels] if isinstance(head, SkipHead) else ["head"] * len(head.taps)
    for tap, name in zip(head.taps, names, strict=True):
        roles.setdefault(tap, []).append(name)
    if model.aux_head is not None:
        for tap in model.aux_head.taps:
            roles.setdefault(tap, []).append("aux head")
    return roles


def _from_zoo(name: str) -> tuple[ModelSpec, FCN, str | None]:
    from fcnzoo.weights.factory import create
    from fcnzoo.zoo.registry import split_name

    spec, tag = split_name(name)
    return spec, create(name, device="meta"), tag


def _from_folder(
    folder: str | Path, what: str = "a saved model", *, fetched: bool = False
) -> tuple[ModelSpec, FCN, None]:
    import torch

    from fcnzoo.config.spec import ModelSpec
    from fcnzoo.model.fcn import build
    from fcnzoo.weights.folder import read_config

    config = read_config(folder, fetched=fetched)
    with torch.device("meta"):
        model = build(config)
    name = Path(folder).resolve().name.replace(".", "_").replace(" ", "_") or "model"
    return ModelSpec(name=name, config=config, description=what), model, None


def _lines(facts: dict[str, Any]) -> list[str]:
    """Lay the facts out for reading."""
    from fcnzoo.config.spec import Weights

    backbone, head, parameters = facts["backbone"], facts["head"], facts["parameters"]
    used = [feature for feature in facts["features"] if feature["used_by"]]
    parts = ", ".join(f"{part} {count:,}" for part, count in parameters.items() if part != "total")
    lines = [
        facts["name"],
        *_field("what", facts["description"]),
        *_field("follows", facts["reference"]),
        *_field("backbone", f"{backbone['name']}, {_options(backbone, skip=('name',))}"),
        *_field("head", f"{head['kind']}, {_options(head, skip=('kind',))}"),
        *_field("aux head", facts["aux_head"] and _options(facts["aux_head"], skip=("kind",))),
        *_field("features", "reduction  channels  used by     taken from"),
        *(
            _MARGIN + f"{one['reduction']:>9}  {one['channels']:>8}  {', '.join(one['used_by']):<8}  {one['tap']}"
            for one in used
        ),
        *_field("dilation", _DILATION[facts["dilation"]]),
        *_field("image size", _image_size(facts["image_size"])),
        *_field("note", facts["note"]),
        *_field("parameters", f"{parameters['total']:,} ({parts})"),
        *_field("preprocess", _options(facts["preprocess"])),
        *_field("labels", _labels(facts)),
    ]
    for number, one in enumerate(facts["weights"]):
        lines += _field("weights" if number == 0 else "", _weights(Weights.from_dict(one)))
    if not facts["weights"]:
        lines += _field("weights", "none trained for segmentation; its backbone's come with pretrained_backbone=True")
    return lines


_MARGIN = " " * 13

_DILATION = {
    "none": None,
    "native": "true, by the provider's own option",
    "dilated": "true: strides removed, later convolutions dilated",
    "emulated": "emulated: coarser features are resized to the output stride",
}
"""`Backbone.dilation`, for reading."""


def _image_size(size: dict[str, Any]) -> str:
    if size["resized_to"]:
        height, width = size["resized_to"]
        return f"any; the network sees it resized to {height}×{width}"
    least = f" and at least {size['minimum']}" if size["minimum"] > 1 else ""
    return f"any; padded to a multiple of {size['multiple']}{least}" if size["multiple"] > 1 or least else "any"


def _field(name: str, text: str | None) -> list[str]:
    """Return one line, or none where there is nothing to say."""
    return [f"  {name:<11}{text}"] if text else []


def _options(values: dict[str, Any], skip: tuple[str, ...] = ()) -> str:
    """Return settings as `key=value`, without those that are not set."""
    shown = {key: value for key, value in values.items() if key not in skip and value is not None}
    return ", ".join(f"{key}={value}" for key, value in shown.items())


def _labels(facts: dict[str, Any]) -> str:
    if facts["label_set"] is None:
        return f"{facts['num_classes']} classes, unnamed"
    names = facts["label_set"]["names"]
    more = f", … ({len(names)} in all)" if len(names) > 25 else ""
    return f"{facts['label_set']['name']}: {', '.join(names[:25])}{more}"


def _measured(metric: Metric) -> str:
    return f" (`{metric.command}`)" if metric.command else ""


def _weights(weights: Weights) -> str:
    metrics = "".join(
        f", {metric.name} {metric.value:.4g} on {metric.split}{_measured(metric)}" for metric in weights.metrics
    )
    places = ["the wheel"] if weights.packaged else []
    places += [f"hf-hub:{weights.hub}@{weights.revision}"] if weights.hub else []
    places += [weights.published.address] if weights.published else []
    source = f", from {' or '.join(places)}" if places else ""
    note = f"; {weights.note}" if weights.note else ""
    return f"{weights.tag}: trained on {weights.dataset}, license {weights.license}{metrics}{source}{note}"
