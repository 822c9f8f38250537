"""The model card: what a person, and the Hub, want to know about a folder of weights."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any

from fcnzoo.config.spec import Metric
from fcnzoo.weights.folder import FolderRecord

_IDENTIFIERS = """
    afl-3.0 agpl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 gpl gpl-2.0 gpl-3.0 isc lgpl
    lgpl-2.1 lgpl-3.0 mit mpl-2.0 odbl odc-by pddl unlicense wtfpl
"""
HUB_LICENSES = frozenset(_IDENTIFIERS.split())
"""Identifiers that the Hub knows: most of https://huggingface.co/docs/hub/repositories-licenses."""


def render(record: FolderRecord, *, source: str = ".", picture: str | None = None) -> str:
    """Write the card of a model.

    Args:
        record: What is known about it.
        source: What the usage snippet loads: `"."` for the folder itself, or `"hf-hub:org/name"`.
        picture: File name of a sample beside the card.

    Returns:
        Markdown, with the front matter that the Hub reads. Nothing stands in it that nobody said: no license,
        data set or figure is invented.
    """
    config = record.model
    title = f"{_head_name(record)} on {config.backbone.name}"
    labels = (
        ", ".join(map(_plain, config.label_set.names)) if config.label_set else f"{config.num_classes} classes, unnamed"
    )
    rows = "".join(f"| {_plain(m.name)} | {m.value:.4f} | {_plain(m.split)}{_measured(m)} |\n" for m in record.metrics)
    parts = [
        f"---\n{_front_matter(record, title)}\n---\n",
        f"# {_plain(title)}\n",
        f"Semantic segmentation, {config.num_classes} classes: {labels}\n"
        if config.label_set
        else f"Semantic segmentation, {labels}\n",
        f"![a sample]({picture})\n" if picture else "",
        f"## Use\n\n```python\n{_snippet(record, source)}```\n",
        f"## Figures\n\n| metric | value | on |\n|---|---|---|\n{rows}" if rows else "",
        f"## Made from\n\n{_provenance(record)}" if record.provenance or record.datasets else "",
        f"License of the weights, as given by who saved them: {_plain(record.license)}\n" if record.license else "",
        f"Written by fcnzoo {_plain(record.library_version)}.\n",
    ]
    return "\n".join(part for part in parts if part)


def _measured(metric: Metric) -> str:
    return f", measured by {_plain(metric.command)}" if metric.command else ""


def _head_name(record: FolderRecord) -> str:
    head = record.model.head
    if head.kind == "skip":
        return f"FCN-{head.stride}s"
    return {"dilated": "FCN (dilated)", "context": "DeepLabV3", "lraspp": "LR-ASPP"}[head.kind]


def _front_matter(record: FolderRecord, title: str) -> str:
    """Return the YAML block; `model-index` has one result per metric, as the Hub wants it."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type=re.sub(r"[^\w.-]+", "-", metric.split.lower()).strip("-") or "unknown",
            dataset_name=metric.split,
            metric_type=metric.name,
            metric_value=metric.value,
        )
        for metric in record.metrics
    ]
    fields: dict[str, Any] = {"library_name": "fcnzoo", "pipeline_tag": "image-segmentation"}
    if record.license:
        # The Hub takes its own identifiers, in small letters, or "other" with a name.
        known = record.license.lower().replace(" ", "-") in HUB_LICENSES
        fields["license"] = record.license.lower().replace(" ", "-") if known else "other"
        fields |= {} if known else {"license_name": record.license}
    if record.datasets:
        fields["datasets"] = list(record.datasets)
    if results:
        fields |= {"model_name": title, "eval_results": results}
    return ModelCardData(**fields).to_yaml().strip()


def _snippet(record: FolderRecord, source: str) -> str:
    channels = record.model.backbone.in_channels
    if channels == 3:
        use = 'result = fcnzoo.Predictor(model)("photo.jpg")\nresult.overlay().save("overlay.png")\n'
        return f"import fcnzoo\n\nmodel = fcnzoo.load({json.dumps(source)})\n{use}"
    use = f"labels = model.predict(torch.randn(1, {channels}, 240, 320))  # preprocessed as model.preprocess says\n"
    return f"import torch\nimport fcnzoo\n\nmodel = fcnzoo.load({json.dumps(source)})\n{use}"


def _provenance(record: FolderRecord) -> str:
    """Write short facts as a list, and whatever has parts as JSON."""
    facts: dict[str, Any] = {"datasets": ", ".join(record.datasets)} if record.datasets else {}
    facts |= dict(record.provenance)
    groups: dict[bool, list[str]] = defaultdict(list)
    for key, value in facts.items():
        short = not isinstance(value, dict | list | tuple) and not re.search(r"[\n\r\u2028\u2029]", str(value))
        if short:
            groups[True].append(f"- {_plain(key)}: {_plain(value)}\n")
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False) if not isinstance(value, str) else value
            text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text)
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            groups[False].append(
                f"\n{_plain(key)}:\n\n{fence}{'' if isinstance(value, str) else 'json'}\n{text}\n{fence}\n"
            )
    return "".join(groups[True] + groups[False])


def _plain(text: object) -> str:
    """Return a text that Markdown shows as it is: on one line, no markup, no HTML, no link."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(text)).strip()
    line = re.sub(r"[\\`*\[\]{}<>#|~&!$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
    return re.sub(r"(?i)(?<=[a-z])(?=://)|(?<=\bwww)(?=\.)|(?=@)", "\u200b", line)  # what would become a link by itself
