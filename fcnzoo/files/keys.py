"""Names and shapes of weights compared with those a network has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from fcnzoo.errors import WeightsError


def check_keys(
    given: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size], *, source: str, optional: Iterable[str] = ()
) -> None:
    """Compare names and shapes of weights with those a network has.

    Args:
        given: Names and shapes of the weights.
        wanted: Names and shapes the network has.
        source: What to call the weights in the error.
        optional: Names that may be missing or differ in shape.

    Raises:
        WeightsError: Names are missing or unknown, or shapes differ; the first few are listed.
    """
    optional = set(optional)
    # Step counters of BatchNorm do not change what a network computes, and older files lack them.
    optional |= {key for key in wanted if key.endswith("num_batches_tracked")}
    problems = {
        "missing": [key for key in wanted if key not in given and key not in optional],
        "unknown": [key for key in given if key not in wanted and key not in optional],
        "of another shape": [
            f"{key} {tuple(given[key])} instead of {tuple(wanted[key])}"
            for key in given
            if key in wanted and key not in optional and tuple(given[key]) != tuple(wanted[key])
        ],
    }
    found = [
        f"{len(keys)} {what}: {', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if found:
        raise WeightsError(f"{source} does not fit the network: {'; '.join(found)}")
