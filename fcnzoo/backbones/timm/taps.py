"""Which features of a timm network are taken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

TAPS = 3
"""Of a network whose features all have one reduction: one for each level of the skip heads."""


def choose_taps(network: Any) -> tuple[int, ...]:
    """Choose among all features a timm network could give, not only among those it gives by default.

    Pyramids give every stage that timm takes by default, and all stages where that would lose a reduction of 4 or
    more, or the deepest stage. Isotropic networks (one reduction, many blocks) give three depths, evenly spaced,
    the last block last: FCNs fuse shallow with deep features, and timm's default, the last three blocks, are
    nearly equal. The choice is the same for every head, so that one head's weights are the beginning of another's.

    Args:
        network: What `timm.create_model(features_only=True)` returned.

    Returns:
        Indices into its `feature_info`, ascending.
    """
    reductions = [int(info["reduction"]) for info in network.feature_info.info]
    taken = tuple(index % len(reductions) for index in network.feature_info.out_indices)
    count = len(reductions)
    if len(set(reductions)) == 1 and count > TAPS:
        return tuple(math.ceil(count * (i + 1) / TAPS) - 1 for i in range(TAPS))
    lost = {reduction for reduction in reductions if reduction >= 4} - {reductions[i] for i in taken}
    return tuple(range(count)) if lost or count - 1 not in taken else taken


def set_out_indices(network: Any, out_indices: Sequence[int]) -> bool:
    """Make a built network give other features, if it is of the kind that chooses them at run time.

    Returns:
        Whether it is (and has not cut off what is wanted); the others must be built anew.
    """
    # timm's FeatureGetterNet asks the whole network for intermediates by index, and has pruned nothing before
    # the deepest of those it takes by default.
    if not hasattr(network, "out_indices") or not hasattr(getattr(network, "model", None), "forward_intermediates"):
        return False
    count = len(network.feature_info.info)
    if max(out_indices) > max(index % count for index in network.feature_info.out_indices):
        return False
    network.out_indices = list(out_indices)
    network.feature_info = network.feature_info.from_other(tuple(out_indices))
    return True
