"""Names and shapes of weights compared with those a network has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from fcnzoo.errors import WeightsError


def listed(names: Iterable[str]) -> str:
    """Return the first eight names, and how many there are in all."""
    names = list(names)
    more = f", … ({len(names)} in all)" if len(names) > 8 else ""
    return (", ".join(names[:8]) + more) or "none"


def differences(
    given: Mapping[str, torch.Size],
    wanted: Mapping[str, torch.Size],
    *,
    optional: Collection[str] = (),
    counters: bool = False,
) -> str:
    """Say how names and shapes of weights differ from those a network has; empty if they do not.

    Args:
        given: Names and shapes of the weights.
        wanted: Names and shapes the network has.
        optional: Names that may be missing or differ in shape.
        counters: Step counters of BatchNorm must be there too. They do not change what a network computes, and
            files of old PyTorch versions lack them.
    """
    problems = {
        "missing": [
            key
            for key in wanted
            if key not in given and key not in optional and (counters or not key.endswith("num_batches_tracked"))
        ],
        "unknown": [key for key in given if key not in wanted and key not in optional],
        "of another shape": [
            f"{key} {tuple(given[key])} instead of {tuple(wanted[key])}"
            for key in given
            if key in wanted and key not in optional and tuple(given[key]) != tuple(wanted[key])
        ],
    }
    return "; ".join(f"{len(keys)} {what}: {listed(keys)}" for what, keys in problems.items() if keys)


def check_keys(
    given: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size], *, source: str, optional: Collection[str] = ()
) -> None:
    """Raise unless names and shapes of weights are those a network has; see `differences`.

    Args:
        given: Names and shapes of the weights.
        wanted: Names and shapes the network has.
        source: What to call the weights in the error.
        optional: Names that may be missing or differ in shape.

    Raises:
        WeightsError: Names are missing or unknown, or shapes differ; the first few are listed.
    """
    found = differences(given, wanted, optional=optional)
    if found:
        raise WeightsError(f"{source} does not fit the network: {found}")
