"""How names and shapes of weights differ from those a network has."""

from __future__ import annotations

import pytest
import torch
from torch import Size, nn

from fcnzoo.errors import WeightsError
from fcnzoo.files.keys import check_keys, differences

NETWORK = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
WANTED = {key: tensor.shape for key, tensor in NETWORK.state_dict().items()}
COUNTER = "1.num_batches_tracked"


def test_equal_names_and_shapes_do_not_differ() -> None:
    """Nothing is said, whatever the order."""
    assert differences(dict(reversed(WANTED.items())), WANTED, counters=True) == ""


def test_all_kinds_are_named_with_how_many() -> None:
    """Missing, unknown and misshapen names stand in one text, with both shapes."""
    given = {**WANTED, "0.weight": Size([3, 2, 3, 3]), "extra": Size([1])}
    del given["0.bias"], given["1.running_mean"]
    assert differences(given, WANTED) == (
        "2 missing: 0.bias, 1.running_mean; 1 unknown: extra; "
        "1 of another shape: 0.weight (3, 2, 3, 3) instead of (3, 2, 1, 1)"
    )


@pytest.mark.parametrize("name", ["0.weight", "extra"])
def test_optional_names_may_differ(name: str) -> None:
    """A name that is optional may be missing, unknown or misshapen."""
    given = {key: shape for key, shape in WANTED.items() if key != name}
    for odd in (given, {**given, name: Size([9])}):
        assert differences(odd, WANTED, optional={name}) == ""


def test_step_counters_may_be_missing_and_nothing_else() -> None:
    """A counter may be missing unless it is asked for; one of a wrong shape is never passed over."""
    given = {key: shape for key, shape in WANTED.items() if key != COUNTER}
    assert differences(given, WANTED) == ""
    assert differences(given, WANTED, counters=True) == f"1 missing: {COUNTER}"
    assert "of another shape" in differences({**WANTED, COUNTER: torch.Size([4])}, WANTED)


def test_many_names_are_cut() -> None:
    """Eight names are listed, and how many there are."""
    found = differences({}, {f"layer{i}": Size() for i in range(1000)})
    assert found.startswith("1000 missing: layer0, ") and found.endswith("layer7, … (1000 in all)")


def test_the_error_names_the_source() -> None:
    """`check_keys` raises what `differences` says, about the file it was given."""
    check_keys(WANTED, WANTED, source="file")
    with pytest.raises(WeightsError, match=r"^file does not fit the network: 6 missing: 0\.weight, "):
        check_keys({}, WANTED, source="file")
