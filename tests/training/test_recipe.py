"""Recipes: built-in ones, overrides, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fcnzoo.training import Recipe, list_recipes
from fcnzoo.zoo.registry import split_name


@pytest.mark.parametrize("name", list_recipes())
def test_built_in_recipes_are_valid(name: str) -> None:
    """Every recipe in the package loads, says what it is for, and names a model that exists."""
    recipe = Recipe.load(name)
    assert recipe.description
    assert split_name(recipe.model.name)[0].name == recipe.model.name


def test_the_recipes_of_the_issue_exist() -> None:
    """The package has the shipped model's recipe, the paper's, torchvision's, and one for own data."""
    assert list_recipes() == ["camvid_lite0", "folder", "paper_voc", "torchvision_coco"]


def test_json_round_trip(tmp_path: Path) -> None:
    """A recipe written as JSON reads back equal, from the file and from its folder."""
    recipe = Recipe.load("camvid_lite0", ["optim.lr=0.01"])
    (tmp_path / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    assert Recipe.load(tmp_path / "recipe.json") == Recipe.load(tmp_path) == recipe


@pytest.mark.parametrize(
    ("text", "section", "field", "value"),
    [
        ("optim.lr=0.01", "optim", "lr", 0.01),
        ("optim.lr = 1", "optim", "lr", 1.0),
        ("optim.clip_norm=none", "optim", "clip_norm", None),
        ('optim.no_decay=["bias"]', "optim", "no_decay", ("bias",)),
        ("data.root=/a b/c", "data", "root", "/a b/c"),
        ("run.plots=false", "run", "plots", False),
        ("model.head.hidden_channels=128", "model", "head", None),
    ],
)
def test_overrides(text: str, section: str, field: str, value: object) -> None:
    """Override texts hold TOML values, bare words, or none, for fields of any depth."""
    recipe = Recipe.load("camvid_lite0", [text])
    if field == "head":
        assert recipe.model.head.changes() == {"hidden_channels": 128}
    else:
        assert getattr(getattr(recipe, section), field) == value


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("optim.learning_rate=1", ValueError, "has no field 'learning_rate'"),
        ("optim.weigth_decay=1", ValueError, "Did you mean weight_decay"),
        ("optimm.lr=1", ValueError, "Did you mean optim"),
        ("optim.lr=fast", TypeError, r"optim.lr must be float, got 'fast'"),
        ("optim.lr=-1", ValueError, "must be 0 or more, got -1"),
        ("optim.optimizer=lion", ValueError, "must be one of"),
        ("optim.lr", ValueError, "write section.field=value"),
        ("optim.lr.x=1", ValueError, "lr is no section"),
        ("optim.accumulate=3", ValueError, "multiple of accumulate"),
        ("optim.freeze_affine=true", ValueError, "needs freeze_batchnorm"),
        ("augment.scale=[2.0, 1.0]", ValueError, "low ≤ high"),
        ("augment.crop=[10]", TypeError, "must hold 2 values"),
        ("data.label_set=voc", ValueError, "brings its own"),
    ],
)
def test_bad_overrides(text: str, error: type[Exception], message: str) -> None:
    """What a recipe cannot hold is an error that names the field and what is allowed."""
    with pytest.raises(error, match=message):
        Recipe.load("camvid_lite0", [text])


def test_missing_and_damaged_recipes(tmp_path: Path) -> None:
    """An unknown name lists the known ones; a file that is no TOML is named."""
    with pytest.raises(FileNotFoundError, match="Did you mean camvid_lite0"):
        Recipe.load("camvid_lite")
    with pytest.raises(FileNotFoundError, match=r"no recipe at .*mine\.toml"):
        Recipe.load(tmp_path / "mine.toml")
    (tmp_path / "bad.toml").write_text("[model\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.toml: not a valid recipe"):
        Recipe.load(tmp_path / "bad.toml")
    (tmp_path / "twice.json").write_text('{"model": {"name": "a", "name": "b"}}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"twice\.json: not a valid recipe \('name' comes twice\)"):
        Recipe.load(tmp_path / "twice.json")


def test_differences_name_only_what_changes_the_weights(tiny: Callable[..., Recipe]) -> None:
    """Two recipes that differ in folders and logging are the same run; another learning rate is not."""
    recipe = tiny("one")
    assert not recipe.differences(tiny("two", "run.log_steps=7", "data.num_workers=3"))
    assert recipe.differences(tiny("one", "optim.lr=0.5")) == ["optim.lr: 0.5 there, 0.01 here"]


def test_none_is_a_word_where_a_field_takes_it() -> None:
    """`none` is the choice of that name for fields that have one, and no value for the others."""
    recipe = Recipe.load(
        "camvid_lite0", ["loss.class_weights=none", "optim.freeze_batchnorm=none", "optim.clip_norm=none"]
    )
    assert recipe.loss.class_weights == "none"
    assert recipe.optim.freeze_batchnorm == "none"
    assert recipe.optim.clip_norm is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", ["toml", "json"])
def test_encodings_of_recipes(tmp_path: Path, encoding: str, suffix: str) -> None:
    """UTF-8 with and without a byte order mark, and UTF-16 with one, as Windows' editors write them."""
    text = '[model]\nname = "everyday"\n[data]\ndataset = "folder"\nclass_names = ["土", "Boden é"]\n'
    if suffix == "json":
        text = '{"model": {"name": "everyday"}, "data": {"dataset": "folder", "class_names": ["土", "Boden é"]}}'
    (tmp_path / f"x.{suffix}").write_bytes(text.encode(encoding))
    assert Recipe.load(tmp_path / f"x.{suffix}").data.class_names == ("土", "Boden é")


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "UTF-8"), ("utf-16", "UTF-16")])
def test_recipes_in_no_known_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    """Latin-1, or UTF-16 that is cut off, is a ValueError that says what to save it as."""
    data = 'description = "Übung"'.encode(encoding)
    (tmp_path / "x.toml").write_bytes(data[:-1] if encoding == "utf-16" else data)
    with pytest.raises(ValueError, match=rf"not {name} .*save it as UTF-8"):
        Recipe.load(tmp_path / "x.toml")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[soil,crop]", ("soil", "crop")),
        ("[soil, dry crop ]", ("soil", "dry crop")),
        ("[土,]", ("土",)),
        ('["a,b", "c"]', ("a,b", "c")),
        ("[]", ()),
    ],
)
def test_lists_of_bare_words(text: str, names: tuple[str, ...]) -> None:
    """What PowerShell leaves of a quoted list is read as the list it was."""
    assert Recipe.load("folder", [f"data.class_names={text}"]).data.class_names == names


def test_true_as_python_writes_it() -> None:
    """`True` and `False` are booleans where the field takes one, as the errors of `create` write them."""
    recipe = Recipe.load("folder", ["model.pretrained_backbone=False", "run.plots=TRUE", 'model.backbone="True"'])
    assert (recipe.model.pretrained_backbone, recipe.run.plots, recipe.model.backbone) == (False, True, "True")


def test_mapping_and_ignore(tmp_path: Path) -> None:
    """Numbers are keys in TOML, JSON and overrides alike; what is no number, or comes twice, is refused."""
    recipe = Recipe.load("folder", ["data.mapping={255=1, 7=0}", "data.mapping.9=1", "data.ignore=[3, [1, 2, 3]]"])
    assert recipe.data.mapping == {255: 1, 7: 0, 9: 1} and recipe.data.ignore == (3, (1, 2, 3))
    (tmp_path / "recipe.json").write_text(recipe.to_json(), encoding="utf-8")
    assert Recipe.load(tmp_path) == recipe
    for text, message in (
        ("{a=1}", "key must be int"),
        ("{255='b'}", r"mapping\[255\] must be int"),
        ("3", "int: int"),
    ):
        with pytest.raises(TypeError, match=message):
            Recipe.load("folder", [f"data.mapping={text}"])
    with pytest.raises(ValueError, match="names 7 twice"):
        Recipe.load("folder", ["data.mapping={7=1, 07=1}".replace("07", '"07"')])
    with pytest.raises(ValueError, match=r"DataSection\.mapping is for dataset = 'folder'"):
        Recipe.load("camvid_lite0", ["data.mapping={1=1}"])


@pytest.mark.parametrize("text", ["data.mapping=" + "[" * 3000, "data.mapping=" + "{a=" * 3000])
def test_values_nested_too_deeply(text: str) -> None:
    """A thousand brackets are a ValueError, not the end of Python's stack."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Recipe.load("folder", [text])
    assert len(str(caught.value)) < 1000


def test_files_nested_too_deeply(tmp_path: Path) -> None:
    """The same in a file, TOML or JSON."""
    for name, text in (("x.toml", "a = " + "[" * 5000), ("x.json", '{"a":' * 5000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="not a valid recipe"):
            Recipe.load(tmp_path / name)
