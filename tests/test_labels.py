"""Label sets: names and colors against their publishers, and what they refuse."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcnzoo import labels
from fcnzoo.errors import LabelError, UnknownModelError
from fcnzoo.labels import LabelSet, as_label_set, generic_label_set, get_label_set, list_label_sets, voc_colormap

RGB = tuple[int, int, int]

COUNTS = {
    "ade20k": 150,
    "camvid": 11,
    "cityscapes": 19,
    "coco_stuff": 171,
    "pascal_context_59": 59,
    "pascal_context_60": 60,
    "voc": 21,
}

# Colors as the publishers print them: the VOC development kit, SegNet's CamVid script,
# Cityscapes' helpers/labels.py, MIT's color150.mat, mmsegmentation's PASCAL-Context; COCO-Stuff has
# VOC's color map from entry 1 on, worked out by hand (80 = 1010000: bit 6 is red 32, bit 4 green 64).
LANDMARKS: list[tuple[str, int, str, RGB]] = [
    ("voc", 0, "background", (0, 0, 0)),
    ("voc", 1, "aeroplane", (128, 0, 0)),
    ("voc", 8, "cat", (64, 0, 0)),
    ("voc", 15, "person", (192, 128, 128)),
    ("voc", 20, "tvmonitor", (0, 64, 128)),
    ("camvid", 0, "sky", (128, 128, 128)),
    ("camvid", 3, "road", (128, 64, 128)),
    ("camvid", 4, "pavement", (60, 40, 222)),
    ("camvid", 6, "sign", (192, 128, 128)),
    ("camvid", 10, "bicyclist", (0, 128, 192)),
    ("cityscapes", 0, "road", (128, 64, 128)),
    ("cityscapes", 1, "sidewalk", (244, 35, 232)),
    ("cityscapes", 13, "car", (0, 0, 142)),
    ("cityscapes", 18, "bicycle", (119, 11, 32)),
    ("ade20k", 0, "wall", (120, 120, 120)),
    ("ade20k", 7, "bed", (204, 5, 255)),
    ("ade20k", 12, "person", (150, 5, 61)),
    ("ade20k", 149, "flag", (92, 0, 255)),
    ("pascal_context_59", 0, "aeroplane", (180, 120, 120)),
    ("pascal_context_60", 0, "background", (120, 120, 120)),
    ("pascal_context_60", 59, "wood", (31, 0, 255)),
    ("coco_stuff", 0, "person", (128, 0, 0)),
    ("coco_stuff", 79, "toothbrush", (32, 64, 0)),
    ("coco_stuff", 80, "banner", (160, 64, 0)),
    ("coco_stuff", 170, "wood", (192, 160, 64)),
]

# data/pascal-context/classes-59.txt of the Caffe networks of Long et al. 2015, in their order.
CAFFE_CONTEXT = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor bag bed bench book building cabinet ceiling clothes computer cup "
    "door fence floor flower food grass ground keyboard light mountain mouse curtain platform sign plate road "
    "rock shelves sidewalk sky snow bedcloth track tree truck wall water window wood"
)


def devkit_colormap(count: int) -> list[RGB]:
    """VOClabelcolormap.m, line by line."""
    colors = []
    for number in range(count):
        index, red, green, blue = number, 0, 0, 0
        for j in range(8):
            red |= (index & 1) << (7 - j)
            green |= (index >> 1 & 1) << (7 - j)
            blue |= (index >> 2 & 1) << (7 - j)
            index >>= 3
        colors.append((red, green, blue))
    return colors


def make(**changes: object) -> LabelSet:
    """A set of two classes with some fields changed."""
    fields: dict[str, object] = {"name": "pets", "names": ["cat", "dog"], "palette": [[1, 2, 3], [4, 5, 6]]}
    return LabelSet.from_dict(fields | changes)


def test_the_built_in_sets_are_the_seven_of_the_field():
    """The names come sorted, and changing the returned list changes nothing."""
    names = list_label_sets()
    assert names == sorted(COUNTS)
    names.clear()
    assert list_label_sets() == sorted(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_built_in_set_is_complete(name: str):
    """Each set has its count of classes, the name of its file, ignore index 255 and says where it is from."""
    label_set = get_label_set(name)
    assert label_set.name == name
    assert len(label_set) == len(label_set.names) == len(label_set.palette) == COUNTS[name]
    assert label_set.ignore_index == 255
    assert label_set.description and label_set.source
    assert all(text == text.strip() for text in label_set.names)
    assert get_label_set(name) is label_set


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_built_in_set_goes_to_json_and_back(name: str):
    """A set is equal to what its JSON form reads back as, and frozen and hashable."""
    label_set = get_label_set(name)
    again = LabelSet.from_json(label_set.to_json())
    assert again == label_set and hash(again) == hash(label_set)
    with pytest.raises(FrozenInstanceError):
        label_set.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(("name", "number", "title", "color"), LANDMARKS)
def test_classes_have_the_number_and_color_of_their_publisher(name: str, number: int, title: str, color: RGB):
    """Single classes are where their data set puts them, with its color."""
    label_set = get_label_set(name)
    assert label_set.names[number] == title
    assert label_set.index(title) == number
    assert label_set.palette[number] == color


@pytest.mark.parametrize("name", ["voc", "camvid", "cityscapes", "coco_stuff"])
def test_colors_tell_classes_apart(name: str):
    """No two classes share a color, nor have they the border's."""
    palette = get_label_set(name).palette
    assert len(set(palette)) == len(palette)
    assert (224, 224, 192) not in palette


def test_the_only_shared_color_of_ade20k_is_the_published_one():
    """color150.mat gives road and skyscraper the same gray; everything else differs."""
    ade = get_label_set("ade20k")
    assert len(set(ade.palette)) == 149
    assert [n for n, c in zip(ade.names, ade.palette, strict=True) if c == (140, 140, 140)] == ["road", "skyscraper"]


def test_pascal_context_is_alphabetical_and_60_adds_background():
    """The 59 classes are those of the Caffe networks, sorted; the set of 60 puts background first."""
    fewer, more = get_label_set("pascal_context_59"), get_label_set("pascal_context_60")
    spelled = {"diningtable": "table", "clothes": "cloth", "bedcloth": "bedclothes"}
    assert list(fewer.names) == sorted(spelled.get(name, name) for name in CAFFE_CONTEXT.split())
    assert more.names == ("background", *fewer.names)
    assert more.palette[1:] == fewer.palette


def test_coco_stuff_is_80_things_then_91_sorted_stuff_classes():
    """COCO's things keep COCO's order; stuff classes follow in alphabetical order."""
    names = get_label_set("coco_stuff").names
    assert names[:5] == ("person", "bicycle", "car", "motorcycle", "airplane")
    assert len(names[80:]) == 91 and list(names[80:]) == sorted(names[80:])


def test_voc_colormap_is_the_development_kits():
    """All colors of an 8-bit mask equal the development kit's loop; longer maps start the same and stay distinct."""
    assert list(voc_colormap(256)) == devkit_colormap(256)
    assert get_label_set("voc").palette == voc_colormap(21)
    longer = voc_colormap(1000)
    assert longer[:256] == voc_colormap(256) and len(set(longer)) == 1000
    assert voc_colormap(0) == ()


@pytest.mark.parametrize(
    ("count", "error"), [(-1, ValueError), (2**24 + 1, ValueError), (2.0, TypeError), (True, TypeError)]
)
def test_voc_colormap_refuses_impossible_counts(count: object, error: type[Exception]):
    """A count that is no natural number of at most 2^24 is an error that repeats it."""
    with pytest.raises(error, match=re.escape(str(count))):
        voc_colormap(count)  # pyright: ignore[reportArgumentType]


def test_flat_palette_is_that_of_vocs_own_masks():
    """For VOC the 768 bytes are the whole color map, border color included."""
    flat = get_label_set("voc").flat_palette()
    assert list(flat) == [value for color in devkit_colormap(256) for value in color]


def test_flat_palette_colors_an_indexed_png():
    """A PNG written with the palette shows classes, ignored and stray pixels in their colors."""
    image_module = pytest.importorskip("PIL.Image")
    image = image_module.new("P", (4, 1))
    for x, value in enumerate([0, 1, 7, 9]):
        image.putpixel((x, 0), value)
    image.putpalette(make(ignore_index=7).flat_palette())
    file = io.BytesIO()
    image.save(file, "PNG")
    shown = image_module.open(file).convert("RGB")
    assert [shown.getpixel((x, 0)) for x in range(4)] == [(1, 2, 3), (4, 5, 6), (224, 224, 192), (192, 0, 0)]


@pytest.mark.parametrize("ignore_index", [-1, 65535])
def test_flat_palette_leaves_out_an_ignore_index_that_is_no_byte(ignore_index: int):
    """An ignore index outside 0…255 has no entry and does no harm."""
    flat = make(ignore_index=ignore_index).flat_palette()
    assert len(flat) == 768 and tuple(flat[:6]) == (1, 2, 3, 4, 5, 6)


def test_flat_palette_holds_at_most_256_classes():
    """256 classes fit an indexed PNG, 257 are an error that says what to do."""
    assert len(generic_label_set(256).flat_palette()) == 768
    with pytest.raises(ValueError, match=r"257 classes.*16-bit"):
        generic_label_set(257).flat_palette()


def test_from_names_colors_and_checks_the_names():
    """Own classes get VOC's colors and the default ignore index; any iterable of names will do."""
    label_set = LabelSet.from_names(iter(["roof", "wall"]), name="houses")
    assert label_set == LabelSet("houses", ("roof", "wall"), ((0, 0, 0), (128, 0, 0)))
    assert LabelSet.from_names(["roof"]).name == "custom"


@pytest.mark.parametrize(
    ("names", "error", "text"),
    [
        ([], ValueError, "LabelSet.names must hold at least one class"),
        (["a", "b", "a"], ValueError, "LabelSet.names must all differ, got 'a' at 0 and at 2"),
        (["a", " "], ValueError, "LabelSet.names[1] must not be empty"),
        (["a", 1], TypeError, "LabelSet.names[1] must be str, got 1"),
        ("wall", TypeError, "single text 'wall'"),
    ],
)
def test_from_names_refuses_what_are_no_names(names: object, error: type[Exception], text: str):
    """No names, equal, empty or numeric names and a bare text are errors that say which."""
    with pytest.raises(error, match=re.escape(text)):
        LabelSet.from_names(names)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "value",
    [
        ["roof", "wall"],
        iter(("roof", "wall")),
        {1: "wall", 0: "roof"},
        {"1": "wall", "0": "roof"},  # as JSON has it
        {np.int64(0): "roof", np.int64(1): "wall"},
        LabelSet.from_names(["roof", "wall"]),
    ],
)
def test_what_stands_for_a_label_set(value: Any):
    """A set, names in order, or names by number, whatever their order."""
    assert as_label_set(value) == LabelSet.from_names(["roof", "wall"])


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ({"roof", "wall"}, TypeError, "label_set must be in the order of the class numbers, and a set has none"),
        (frozenset({"roof"}), TypeError, "a frozenset has none"),
        ("voc", TypeError, "fcnzoo.labels.get_label_set('voc') gives that set"),
        ("wall", TypeError, "single text 'wall'"),
        (3, TypeError, "label_set must be a LabelSet, a list of names or names by number, got 3 (int)"),
        ({0.5: "roof"}, TypeError, "must have whole numbers as keys, got 0.5 (float)"),
        ({True: "wall", 0: "roof"}, TypeError, "whole numbers as keys, got True (bool)"),
        ({"roof": 0}, TypeError, "whole numbers as keys, got 'roof' (str)"),
        ({0: "roof", "0": "wall"}, ValueError, "must have the numbers 0…1, got [0]"),
        ({1: "roof", 2: "wall"}, ValueError, "must have the numbers 0…1, got [1, 2]"),
        ({}, ValueError, "must hold at least one class"),
        ({0: 1}, TypeError, "LabelSet.names[0] must be str, got 1"),
    ],
)
def test_what_does_not_stand_for_a_label_set(value: Any, error: type[Exception], text: str):
    """No order, no names, numbers that are none or have gaps are errors that say what was given."""
    with pytest.raises(error, match=re.escape(text)):
        as_label_set(value)


@pytest.mark.parametrize(("count", "ignore_index"), [(1, 255), (255, 255), (256, -1), (1000, -1)])
def test_generic_sets_number_their_classes(count: int, ignore_index: int):
    """Classes are called by their number, and the ignore index never is one of them."""
    label_set = generic_label_set(count)
    assert label_set.names[0] == "class 0" and label_set.names[-1] == f"class {count - 1}"
    assert len(label_set) == count and label_set.ignore_index == ignore_index


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-3, ValueError), ("3", TypeError), (True, TypeError)])
def test_generic_sets_need_a_class(count: object, error: type[Exception]):
    """A number of classes below 1 or of another type is an error that names the argument."""
    with pytest.raises(error, match="num_classes must be"):
        generic_label_set(count)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"name": ""}, ValueError, "LabelSet.name must not be empty"),
        ({"names": [], "palette": []}, ValueError, "LabelSet.names must hold at least one class"),
        ({"names": ["cat", "cat"]}, ValueError, "LabelSet.names must all differ"),
        ({"palette": [[1, 2, 3]]}, ValueError, "LabelSet.palette must hold one color per name (2), got 1"),
        ({"palette": [[1, 2, 3], [4, 5, 256]]}, ValueError, "LabelSet.palette[1] must hold values 0…255"),
        ({"palette": [[-1, 2, 3], [4, 5, 6]]}, ValueError, "LabelSet.palette[0] must hold values 0…255"),
        ({"palette": [[1, 2, 3], [4, 5]]}, TypeError, "LabelSet.palette[1] must hold 3 values"),
        ({"palette": [[1, 2, 3], [4, 5, 0.5]]}, TypeError, "LabelSet.palette[1][2] must be int"),
        ({"ignore_index": 0}, ValueError, "LabelSet.ignore_index must not be one of the 2 classes"),
        ({"ignore_index": 1}, ValueError, "LabelSet.ignore_index must not be one of the 2 classes"),
        ({"ignore_index": None}, TypeError, "LabelSet.ignore_index must be int"),
        ({"colors": []}, ValueError, "LabelSet has no field 'colors'"),
    ],
)
def test_impossible_sets_are_refused_by_field(changes: dict[str, object], error: type[Exception], text: str):
    """Every field that cannot be is an error that names it."""
    with pytest.raises(error, match=re.escape(text)):
        make(**changes)


def test_index_suggests_near_names():
    """A misspelt class is a LabelError with near names; its text lists the classes, but not hundreds."""
    with pytest.raises(LabelError, match=r"'camvid' has no class 'pavment'\. Did you mean pavement\?.*sky, building"):
        get_label_set("camvid").index("pavment")
    with pytest.raises(LabelError, match=r"… \(150 in all\)"):
        get_label_set("ade20k").index("zeppelin")
    with pytest.raises(LabelError, match="no class 3"):
        get_label_set("voc").index(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cityscape", "Did you mean cityscapes"),
        ("VOC", "Did you mean voc"),
        ("../labels/voc", "no label set"),
        ("", "camvid"),
        (3, "camvid"),
    ],
)
def test_an_unknown_set_lists_what_there_is(name: object, text: str):
    """A wrong name, a path or no text at all is an UnknownModelError with near names and all names."""
    with pytest.raises(UnknownModelError, match=text) as caught:
        get_label_set(name)  # pyright: ignore[reportArgumentType]
    assert isinstance(caught.value, LookupError)
    assert all(known in str(caught.value) for known in COUNTS)


def test_files_are_read_when_asked_for_and_nothing_heavy_is_imported():
    """A fresh interpreter imports the module without reading a set and without torch, numpy or PIL."""
    code = (
        "import sys, fcnzoo.labels as labels\n"
        "assert labels._read.cache_info().currsize == 0\n"
        "assert len(labels.get_label_set('voc')) == 21\n"
        "print([name for name in ('torch', 'torchvision', 'timm', 'numpy', 'PIL') if name in sys.modules])"
    )
    root = Path(labels.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_every_file_has_exactly_the_records_fields():
    """The JSON files spell out every field, so that reading one shows all there is to know."""
    for file in Path(labels.__file__).parent.glob("*.json"):
        data = json.loads(file.read_text(encoding="utf-8"))
        assert set(data) == set(LabelSet.__dataclass_fields__), file.name
