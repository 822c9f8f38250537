"""Records: typed, checked, frozen, to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fcnzoo.files.records import Record, near


@dataclass(frozen=True)
class Inner(Record):
    """A record inside another."""

    value: float = 1.0
    kind: Literal["inner"] = "inner"


@dataclass(frozen=True)
class Other(Record):
    """Another one, told apart by its kind."""

    count: int = 0
    kind: Literal["other"] = "other"


@dataclass(frozen=True)
class Outer(Record):
    """Every kind of field."""

    name: str
    count: int = 3
    share: float = 0.5
    on: bool = False
    choice: Literal[8, 16, "auto"] = 8
    maybe: int | None = None
    either: int | str = 1
    sizes: tuple[float, ...] = ()
    pair: tuple[int, str] = (1, "a")
    inner: Inner = dataclasses.field(default_factory=Inner)
    part: Inner | Other = dataclasses.field(default_factory=Other)
    optional: Inner | None = None
    nested: tuple[Inner, ...] = ()

    def check(self) -> None:
        """Refuse a count of 13."""
        if self.count == 13:
            self.refuse("count", "must not be 13")


FULL = Outer(
    name="Größe",
    count=5,
    share=2,
    on=True,
    choice="auto",
    maybe=4,
    either="x",
    sizes=(1, 2.5),
    pair=(2, "b"),
    inner=Inner(3),
    part=Inner(4),
    optional=Inner(5),
    nested=(Inner(6), Inner(7)),
)


@pytest.mark.parametrize("record", [Outer("a"), FULL])
def test_json_round_trip(record: Outer) -> None:
    """Record → JSON → record is the same record, with the same hash and the same JSON."""
    text = record.to_json()
    back = Outer.from_json(text)
    assert back == record
    assert hash(back) == hash(record)
    assert back.to_json() == text
    assert Outer.from_dict(record.to_dict()) == record


def test_json_is_plain_and_in_field_order() -> None:
    """The JSON is indented, keeps the order of the fields and Unicode, and ends with a line feed."""
    text = FULL.to_json()
    assert list(json.loads(text)) == [field.name for field in dataclasses.fields(Outer)]
    assert "Größe" in text
    assert text.endswith("}\n")


def test_values_take_the_type_of_their_field() -> None:
    """Integers become floats where floats are wanted, lists become tuples, mappings become records."""
    record = Outer("a", share=2, sizes=[1, 2], inner={"value": 3})  # pyright: ignore
    assert isinstance(record.share, float)
    assert record.sizes == (1.0, 2.0)
    assert isinstance(record.sizes[0], float)
    assert record.inner == Inner(3.0)


def test_records_are_frozen() -> None:
    """A field cannot be set."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.name = "b"  # pyright: ignore


def test_replace_checks_like_a_new_record() -> None:
    """`replace` changes what is named, leaves the original alone, and checks."""
    assert FULL.replace(count=6).count == 6
    assert FULL.count == 5
    with pytest.raises(ValueError, match=r"Outer\.count must not be 13, got 13"):
        FULL.replace(count=13)


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("name", 3, TypeError, r"Outer\.name must be str, got 3 \(int\)"),
        ("name", None, TypeError, r"Outer\.name"),
        ("count", 1.0, TypeError, r"Outer\.count must be int, got 1\.0 \(float\)"),
        ("count", True, TypeError, r"Outer\.count must be int, got True"),
        ("count", "1", TypeError, r"Outer\.count"),
        ("share", "x", TypeError, r"Outer\.share must be float"),
        ("share", True, TypeError, r"Outer\.share"),
        ("share", float("nan"), ValueError, r"Outer\.share must be a finite number"),
        ("share", float("inf"), ValueError, r"Outer\.share"),
        pytest.param("share", 10**400, ValueError, r"Outer\.share", id="huge"),
        ("on", 1, TypeError, r"Outer\.on must be bool"),
        ("choice", 9, ValueError, r"Outer\.choice must be one of \[8, 16, 'auto'\], got 9"),
        ("choice", 8.0, ValueError, r"Outer\.choice"),
        ("maybe", "x", TypeError, r"Outer\.maybe must be int \| null"),
        ("either", 1.5, TypeError, r"Outer\.either must be int \| str"),
        ("sizes", 1, TypeError, r"Outer\.sizes must be \[float, …\]"),
        ("sizes", "12", TypeError, r"Outer\.sizes"),
        ("sizes", [1, "x"], TypeError, r"Outer\.sizes\[1\] must be float"),
        ("pair", [1], TypeError, r"Outer\.pair must hold 2 values"),
        ("pair", ["a", 1], TypeError, r"Outer\.pair\[0\] must be int"),
        ("inner", 3, TypeError, r"Outer\.inner must be Inner"),
        ("inner", {"value": "x"}, TypeError, r"Outer\.inner\.value must be float"),
        ("inner", {"valu": 1}, ValueError, r"Outer\.inner has no field 'valu'.*Did you mean value\?"),
        ("part", {"value": 1}, ValueError, r"Outer\.part\.kind must be one of \['inner', 'other'\], got None"),
        ("part", {"kind": []}, ValueError, r"Outer\.part\.kind"),
        ("part", {"kind": "other", "count": "x"}, TypeError, r"Outer\.part\.count must be int"),
        ("part", {"kind": "other", "value": 1}, ValueError, r"Outer\.part has no field 'value'"),
        ("part", 3, TypeError, r"Outer\.part must be Inner \| Other"),
        ("part", None, TypeError, r"Outer\.part"),
        ("optional", {"value": "x"}, TypeError, r"Outer\.optional\.value"),
        ("nested", [{"value": 1}, {"value": None}], TypeError, r"Outer\.nested\[1\]\.value"),
    ],
)
@pytest.mark.parametrize("how", ["constructor", "mapping"])
def test_wrong_values_name_their_field(field: str, value: Any, error: type[Exception], message: str, how: str) -> None:
    """A wrong type or impossible value says which field, what was given and what is allowed."""
    given = {"name": "a", field: value}
    with pytest.raises(error, match=message):
        Outer(**given) if how == "constructor" else Outer.from_dict(given)


def test_unknown_keys_are_refused() -> None:
    """A key that is no field is a ValueError that lists the fields and the nearest one."""
    with pytest.raises(
        ValueError, match=r"Outer has no field 'cuont'; its fields are name, count.*Did you mean count\?"
    ):
        Outer.from_dict({"name": "a", "cuont": 1})


def test_missing_fields_are_refused() -> None:
    """A field without a default must be there."""
    with pytest.raises(ValueError, match=r"Outer lacks the field 'name'"):
        Outer.from_dict({})


@pytest.mark.parametrize("data", [[], "x", 3, None])
def test_only_mappings_are_records(data: Any) -> None:
    """JSON that is no object is a TypeError that names the record."""
    with pytest.raises(TypeError, match="Outer must be a JSON object"):
        Outer.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "{'name': 1}", "\x00", "[" * 100_000, "1" * 5000], ids=range(6))
def test_text_that_is_no_json_is_refused(text: str) -> None:
    """Broken, deeply nested or oversized JSON is a ValueError that names the record."""
    with pytest.raises(ValueError, match="Outer"):
        Outer.from_json(text)


def test_near_names() -> None:
    """Near names are suggested, far ones are not."""
    assert near("resnet5", ["resnet50", "vgg"]) == " Did you mean resnet50?"
    assert near("zzz", ["resnet50", "vgg"]) == ""
