"""The registry: which models there are, and what a name means. Nothing here imports torch.

Models come from three places: they are built in (`zoo/entries/`), other packages bring them
(`zoo/plugins.py`), or somebody called `register`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.errors import UnknownModelError
from fcnzoo.files.records import LONGEST_NAME, near, shown
from fcnzoo.zoo.catalog import (
    backbone_names,
    heads_by_backbone,
    timm_names,
    timm_renamed,
    torchvision_names,
)
from fcnzoo.zoo.entries import ALIASES, DEFAULT_MODEL, ENTRIES
from fcnzoo.zoo.heads import HEADS, HeadName, head_config
from fcnzoo.zoo.plugins import Plugins

__all__ = [
    "ALIASES",
    "DEFAULT_MODEL",
    "HEADS",
    "ModelSpec",
    "Weights",
    "get_spec",
    "is_model",
    "list_backbones",
    "list_models",
    "register",
]

_registered: dict[str, ModelSpec] = {spec.name: spec for spec in ENTRIES}
_plugins = Plugins({**_registered, **ALIASES})


def register(spec: ModelSpec, *, replace: bool = False) -> ModelSpec:
    """Add a model to the zoo of this process.

    A package adds its models for every process with an entry point instead, which is read when it is needed:

        [project.entry-points."fcnzoo.models"]
        fcn8s_fields = "fcnzoo_fields:SPECS"

    where `SPECS` is a `ModelSpec`, an iterable of them, or a function that returns either (see `zoo/plugins.py`).

    Args:
        spec: The entry.
        replace: Take the place of an entry of the same name.

    Returns:
        `spec`.

    Raises:
        ValueError: The name is taken.
    """
    if spec.name in ALIASES:
        raise ValueError(f"{spec.name!r} is the short name of {ALIASES[spec.name]}; use another name")
    if not replace and _find(spec.name) is not None:
        raise ValueError(f"{spec.name!r} is registered already; use another name or replace=True")
    _registered[spec.name] = spec
    return spec


def _find(name: str) -> ModelSpec | None:
    """Return the entry of a name. Plug-ins are read only where nothing else is called so."""
    return _registered.get(name) or _plugins.models().get(name)


def _entries() -> Iterable[ModelSpec]:
    """Return every entry, those of plug-ins included."""
    return {**_plugins.models(), **_registered}.values()


def list_models(
    pattern: str = "*",
    *,
    pretrained: bool = False,
    head: HeadName | None = None,
    dataset: str | None = None,
    license: str | None = None,
    buildable: bool = False,
) -> list[str]:
    """List the models of the zoo and of plug-ins; on request every name that builds.

    Args:
        pattern: Shell pattern for the name (or name and tag), as in timm: `"fcn8s_*"`.
        pretrained: Only trained weights, each as `name.tag`.
        head: Only models of this head.
        dataset: Only weights trained on it.
        license: Only weights under it.
        buildable: Also every `<head>_<backbone>` that was built when this version of fcnzoo was made, of the installed
            timm and torchvision; without weights, so not together with `pretrained`, `dataset` and `license`.

    Returns:
        Names, sorted.

    Raises:
        ValueError: `head` is unknown, or `buildable` is asked for together with what goes with weights.
    """
    _check_head(head)
    names: set[str] = set()
    if buildable:
        if pretrained or dataset is not None or license is not None:
            raise ValueError("buildable=True lists names without weights; leave pretrained, dataset and license out")
        names = {
            f"{one}_{backbone.partition('/')[2]}"
            for backbone in (
                *(f"timm/{name}" for name in timm_names()),
                *map("torchvision/{}".format, torchvision_names()),
            )
            for one in heads_by_backbone().get(backbone, ())
            if head in (None, one)
        }
        names = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
    for spec in _entries():
        if head is not None and spec.name.partition("_")[0] != head:
            continue
        fitting = [
            weights
            for weights in spec.weights
            if (dataset is None or weights.dataset.lower() == dataset.lower())
            and (license is None or weights.license.lower() == license.lower())
        ]
        if (dataset is not None or license is not None or pretrained) and not fitting:
            continue
        tagged = {f"{spec.name}.{weights.tag}" for weights in fitting}
        whole = fnmatch.fnmatchcase(spec.name, pattern)
        found = tagged if pretrained else {spec.name}
        names |= {name for name in found if whole or fnmatch.fnmatchcase(name, pattern)}
    return sorted(names)


def list_backbones(pattern: str = "*", *, source: str | None = None, head: HeadName | None = None) -> list[str]:
    """List the backbones that are installed, without importing them.

    Args:
        pattern: Shell pattern, for the whole name or for what follows the slash.
        source: `"timm"`, `"torchvision"` or `"paper"`; all by default.
        head: Only those this head was built on when this version of fcnzoo was made. Networks newer than
            that are left out here; `create` tries them all the same.

    Returns:
        Names such as `"timm/resnet50"`, as `create(..., backbone=…)` takes them. timm's and torchvision's
        weight tags may be added: `"timm/resnet50.a1_in1k"`.

    Raises:
        ValueError: `source` or `head` is unknown.
    """
    _check_head(head)
    return [
        name
        for name in backbone_names(source)
        if (head is None or head in heads_by_backbone().get(name, ()))
        and (fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.partition("/")[2], pattern))
    ]


def _check_head(head: str | None) -> None:
    if head is not None and head not in HEADS:
        raise ValueError(f"head must be one of {list(HEADS)}, got {head!r}")


def is_model(name: str) -> bool:
    """Return whether `create(name)` knows what a name means: an entry, or any head on any installed backbone.

    Raises:
        TypeError: `name` is no text.
    """
    try:
        split_name(name)
    except UnknownModelError:
        return False
    return True


def get_spec(name: str) -> ModelSpec:
    """Find what a name means: an entry of the zoo or of a plug-in, or any head on any installed backbone.

    Args:
        name: `<head>_<backbone>`, a tag may follow: of the entry's weights, or of the backbone's; or a short name,
            `"everyday"` or `"street"`.

    Raises:
        UnknownModelError: Nothing is called so (the text lists near names), or the plug-in that has it is broken.
        TypeError: `name` is no text.
    """
    return split_name(name)[0]


def split_name(name: str) -> tuple[ModelSpec, str | None]:
    """As `get_spec`, with the tag of the segmentation weights, if the name has one."""
    if not isinstance(name, str):
        raise TypeError(f"a model's name must be a string, got {type(name).__name__}")
    name = ALIASES.get(name, name)
    base, _, tag = name.partition(".")
    spec = _find(base)
    if spec is None and (failure := _plugins.failure(base)) is not None:
        raise UnknownModelError(failure)  # never another network in its place
    if spec is not None and (not tag or spec.find_weights(tag)):
        return spec, tag or None
    head, _, backbone = name.partition("_")
    found = find_backbone(backbone) if head in HEADS and backbone else None
    if (
        found is not None
        and spec is not None
        and found.partition(".")[0] == spec.config.backbone.name.partition(".")[0]
    ):
        # The backbone's tag: the entry's own form on other weights, never another network under the same name.
        config = spec.config.replace(backbone=spec.config.backbone.replace(name=found))
        return spec.replace(config=config), None
    if found is not None and spec is None:
        return _on_the_fly(head, found, base), None
    if spec is not None:
        tags = ", ".join(weights.tag for weights in spec.weights) or "none"
        raise UnknownModelError(f"{base!r} has no weights {tag!r}; it has: {tags}")
    raise UnknownModelError(_unknown(name, head, backbone))


def find_backbone(name: str) -> str | None:
    """Return the full name of a backbone, looked up at timm, then torchvision; `None` if neither has it."""
    architecture = name.partition(".")[0]
    if architecture in timm_names():
        return f"timm/{name}"
    if architecture in torchvision_names():
        return f"torchvision/{name}"
    return None


def check_backbone(name: str) -> str:
    """Return a backbone's full name, its source filled in.

    Raises:
        UnknownModelError: No source has it; the text lists near names.
    """
    if "/" not in name:
        found = find_backbone(name)
        if found is None and name in timm_renamed():
            raise UnknownModelError(f"timm calls {name!r} {timm_renamed()[name]!r} today")
        if found is None:
            known = [known.partition("/")[2] for known in backbone_names()]
            raise UnknownModelError(f"neither timm nor torchvision has a network {name!r}.{near(name, known)}")
        return found
    base = name.partition(".")[0]
    if base not in backbone_names():
        if base.startswith("timm/") and base[5:] in timm_renamed():
            raise UnknownModelError(f"timm calls {base[5:]!r} {timm_renamed()[base[5:]]!r} today")
        raise UnknownModelError(f"there is no backbone {name!r}.{near(base, backbone_names())}")
    return name


def _on_the_fly(head: str, backbone: str, name: str) -> ModelSpec:
    return ModelSpec(name=name, config=head_config(head, backbone), description=f"{head} on {backbone}")


def _unknown(name: str, head: str, backbone: str) -> str:
    hint = _today(name, head, backbone)
    if not hint:
        backbones = [f"{head}_{known}" for known in (*timm_names(), *torchvision_names())] if head in HEADS else []
        entries = [*(spec.name for spec in _entries()), *list_models(pretrained=True), *ALIASES]
        hint = near(name, [*entries, *backbones]) if len(name) <= LONGEST_NAME else ""
    if not hint and head not in HEADS:
        hint = f" Names are <head>_<backbone>, with a head of {', '.join(HEADS)}."
    hint = hint or " fcnzoo.list_models() and fcnzoo.list_backbones() list what there is."
    text = f"there is no model {shown(name)}.{hint}"
    return " ".join([text, *(f"Besides, {failure}." for failure in _plugins.failures())])


def _today(name: str, head: str, backbone: str) -> str:
    """Say what a name certainly means: a network that timm renamed, a backbone alone, other letters, a repository."""
    if head in HEADS and backbone in timm_renamed():
        return f" timm calls {backbone!r} {timm_renamed()[backbone]!r} today: {head}_{timm_renamed()[backbone]}"
    if find_backbone(name) is not None or name in timm_renamed():
        return f" {name!r} is a backbone: put a head before it, as in fcn8s_{timm_renamed().get(name, name)}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return f" A repository of the Hub is 'hf-hub:{name}', a folder './{name}'."
    plain = name.lower().replace("-", "_").replace("_tu_", "_")
    return f" Did you mean {plain}?" if len(name) <= LONGEST_NAME and plain != name and is_model(plain) else ""
