"""The command line: what it prints, writes and returns, with good and with bad input."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import fcnzoo
from fcnzoo.cli import COMMANDS, app
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.images.load import load_image
from fcnzoo.inference.predictor import Predictor
from fcnzoo.labels import get_label_set

ROOT = Path(fcnzoo.__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small saved network with VOC's labels."""
    torch.manual_seed(0)
    config = FCNConfig(
        backbone=BackboneConfig("timm/resnet10t"),
        head=SkipHeadConfig(stride=32, init="xavier"),
        label_set=get_label_set("voc"),
    )
    return fcnzoo.save(fcnzoo.build(config), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, on one thread."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments: object) -> Result:
    """Run the command line; a traceback is a failure of the test."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    return result


def complaints(result: Result) -> list[str]:
    """Return the lines on stderr, each of which must say who speaks."""
    lines = result.stderr.splitlines()
    assert all(line.startswith("fcnzoo: ") for line in lines), lines
    return lines


def photo(path: Path | str, height: int = 40, width: int = 57) -> Path:
    """Write a smooth random picture."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(len(path.name)).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def files(folder: Path | str = ".") -> set[str]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


# list


def test_list_prints_what_the_registry_holds() -> None:
    """Without options, one line per model, name first, in the registry's order."""
    result = run("list")
    assert result.exit_code == 0
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == fcnzoo.list_models()
    assert {len(line.split("\t")) for line in result.stdout.splitlines()} == {5}


def test_list_filters() -> None:
    """A part of a name, a pattern and a head narrow the list as the registry does."""
    assert [line.split("\t")[0] for line in run("list", "resnet18").stdout.splitlines()] == fcnzoo.list_models(
        "*resnet18*"
    )
    assert [line.split("\t")[0] for line in run("list", "fcn8s_*").stdout.splitlines()] == fcnzoo.list_models("fcn8s_*")
    heads = run("list", "--head", "fcn32s").stdout.splitlines()
    assert [line.split("\t")[0] for line in heads] == fcnzoo.list_models(head="fcn32s")


def test_list_shows_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights stand with their data set and license; --pretrained gives one line per set of weights."""
    from fcnzoo.config.spec import Weights
    from fcnzoo.zoo import registry

    spec = registry.get_spec("fcn32s_resnet18").replace(
        name="fcn32s_test",
        weights=(Weights("a", dataset="CamVid", license="MIT"), Weights("b", dataset="VOC", license="CC0-1.0")),
    )
    monkeypatch.setitem(registry._registered, spec.name, spec)
    assert run("list", "fcn32s_test").stdout.split("\t")[:4] == ["fcn32s_test", "a, b", "CamVid, VOC", "MIT, CC0-1.0"]
    lines = run("list", "fcn32s_test", "--pretrained").stdout.splitlines()
    assert [line.split("\t")[:4] for line in lines] == [
        ["fcn32s_test.a", "a", "CamVid", "MIT"],
        ["fcn32s_test.b", "b", "VOC", "CC0-1.0"],
    ]
    assert run("list", "fcn32s_test*", "--pretrained", "--dataset", "voc").stdout.startswith("fcn32s_test.b\t")
    assert run("list", "fcn32s_test*", "--pretrained", "--license", "MIT").stdout.startswith("fcn32s_test.a\t")
    assert "trained on CamVid, license MIT" in run("info", "fcn32s_test").stdout
    assert [one["tag"] for one in json.loads(run("info", "fcn32s_test.b", "--json").stdout)["weights"]] == ["b"]


def test_list_backbones() -> None:
    """--backbones lists what the registry can build on, with the same patterns."""
    assert run("list", "--backbones", "vgg16").stdout.splitlines() == fcnzoo.list_backbones("*vgg16*")


def test_list_of_nothing() -> None:
    """A filter that nothing fits is one line and exit code 1."""
    result = run("list", "no_such_thing")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(complaints(result)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--head", "fcn4s"),
        ("list", "--backbones", "--pretrained"),
        ("list", "--nonsense"),
        ("info",),
        ("segment",),
        ("segment", "a.png", "--kind", "movie"),
        ("segment", "a.png", "--alpha", "1.5"),
        ("segment", "a.png", "--max-pixels", "0"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Unknown options, values and commands, and missing arguments, are usage errors."""
    assert run(*arguments).exit_code == 2


def test_list_and_help_import_nothing_heavy() -> None:
    """`fcnzoo list` and `--help` run without torch, timm, torchvision, numpy and Pillow."""
    code = (
        "import sys; from fcnzoo.cli import app\n"
        "for arguments in (['list'], ['--help'], ['segment', '--help']):\n"
        "    try: app(arguments)\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'numpy', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_every_command_has_help() -> None:
    """Each command in the table answers --help."""
    for name in COMMANDS:
        assert run(name, "--help").exit_code == 0


def test_version() -> None:
    """--version prints the package's version."""
    assert run("--version").stdout == f"fcnzoo {fcnzoo.__version__}\n"


# info


@pytest.mark.parametrize("name", ["fcn32s_resnet18", "fcn8s_vgg16", "fcn_resnet50", "fcn16s_mobilenetv3_small_100"])
def test_info_is_true(name: str) -> None:
    """Parameters, taps and preprocessing are those of the built network; the JSON holds the same facts."""
    model = fcnzoo.create(name, device="meta")
    result = run("info", name)
    facts = json.loads(run("info", name, "--json").stdout)
    assert result.exit_code == 0
    total = sum(parameter.numel() for parameter in model.parameters())
    assert facts["parameters"]["total"] == total
    assert f"{total:,}" in result.stdout
    assert sum(count for part, count in facts["parameters"].items() if part != "total") == total
    assert facts["backbone"]["name"] == model.config.backbone.name
    assert facts["backbone"]["name"] in result.stdout
    used = [feature for feature in facts["features"] if set(feature["used_by"]) - {"aux head"}]
    for feature, tap in zip(used, sorted(model.head.taps), strict=True):
        info = model.backbone.features[tap]
        assert (feature["reduction"], feature["channels"], feature["tap"]) == (info.reduction, info.channels, info.tap)
        assert info.tap in result.stdout
    assert facts["preprocess"] == model.preprocess.to_dict()


def test_info_of_a_folder(model: Path) -> None:
    """A saved network is described from its config."""
    facts = json.loads(run("info", model, "--json").stdout)
    assert facts["backbone"]["name"] == "timm/resnet10t"
    assert facts["label_set"]["name"] == "voc"
    assert "aeroplane" in run("info", model).stdout


@pytest.mark.parametrize(
    ("name", "part"), [("fcn8s_resnt50", "fcn8s_resnet50"), ("nonsense", "nonsense"), ("./none", "none")]
)
def test_info_of_nothing(name: str, part: str) -> None:
    """An unknown name or folder is one line and exit code 1; the line helps."""
    result = run("info", name)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = complaints(result)
    assert part in line


# segment


def test_segment_writes_beside_the_image(model: Path) -> None:
    """One image: its overlay beside it, a line with its largest classes, exit code 0, nothing on stderr."""
    photo("street.jpg")
    result = run("segment", "street.jpg", "--model", model)
    assert (result.exit_code, result.stderr) == (0, "")
    assert files() == {"street.jpg", "street.fcnzoo.overlay.png"}
    name, classes, written = result.stdout.rstrip("\n").split("\t")
    assert (name, written) == ("street.jpg", "street.fcnzoo.overlay.png")
    areas = Predictor(model)("street.jpg").areas()
    first, share = next(iter(areas.items()))
    assert classes.startswith(f"{first} {100 * share:.1f}%")


def test_segment_all_kinds_into_a_folder(model: Path) -> None:
    """--kind all --out: overlay, labels and areas, equal to the Predictor's, in a folder that is made."""
    photo("in/street.png")
    result = run("segment", "in", "-m", model, "-o", "new/out", "-k", "all")
    assert result.exit_code == 0
    assert result.stdout.endswith("\tnew/out/street.fcnzoo.{overlay.png,labels.png,json}\n")
    names = {f"street.fcnzoo.{rest}" for rest in ("overlay.png", "labels.png", "json")}
    assert files("new/out") == names
    assert files("in") == {"street.png"}
    expected = Predictor(model)("in/street.png")
    with Image.open("new/out/street.fcnzoo.labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected.labels)
    assert json.loads(Path("new/out/street.fcnzoo.json").read_text()) == expected.to_dict()
    with Image.open("new/out/street.fcnzoo.overlay.png") as image:
        assert image.tobytes() == expected.overlay().tobytes()


def test_segment_options_of_the_overlay(model: Path) -> None:
    """--alpha and --no-legend reach the overlay."""
    photo("a.png")
    assert run("segment", "a.png", "-m", model, "--alpha", "0.2", "--no-legend").exit_code == 0
    with Image.open("a.fcnzoo.overlay.png") as image:
        assert image.tobytes() == Predictor(model)("a.png").overlay(0.2, legend=False).tobytes()


def test_segment_never_overwrites_without_force(model: Path) -> None:
    """A result that exists stays, is named and makes exit code 1; other images are done; --force replaces."""
    photo("a.png")
    photo("b.png")
    Path("a.fcnzoo.overlay.png").write_bytes(b"mine")
    result = run("segment", "a.png", "b.png", "-m", model)
    assert result.exit_code == 1
    (line,) = complaints(result)
    assert "a.fcnzoo.overlay.png" in line
    assert "--force" in line
    assert Path("a.fcnzoo.overlay.png").read_bytes() == b"mine"
    assert Path("b.fcnzoo.overlay.png").exists()
    assert run("segment", "a.png", "b.png", "-m", model, "--force").exit_code == 0
    assert Path("a.fcnzoo.overlay.png").read_bytes() != b"mine"


def test_segment_does_not_segment_its_own_results(model: Path) -> None:
    """A folder run twice (with --force), or a glob over it, gives the same files."""
    photo("in/a.png")
    photo("in/b.jpg")
    assert run("segment", "in", "-m", model, "-k", "all").exit_code == 0
    after = files("in")
    assert len(after) == 8
    for paths in (["in"], sorted(Path("in").iterdir())[:-1]):
        result = run(
            "segment", *[path for path in paths if not str(path).endswith("json")], "-m", model, "-k", "all", "-f"
        )
        assert result.exit_code == 0
        assert files("in") == after
        (line,) = complaints(result)
        assert "left out 4 results" in line
    result = run("segment", "in/a.fcnzoo.labels.png", "-m", model)
    assert result.exit_code == 1
    assert "no images" in complaints(result)[-1]


def test_segment_goes_on_after_bad_images(model: Path) -> None:
    """Each bad image has one line that names it; the good ones are written; exit code 1."""
    photo("in/good1.png")
    photo("in/good2.jpg")
    Path("in/text.png").write_text("not a picture\n" * 20)
    Path("in/empty.png").write_bytes(b"")
    whole = photo("in/cut.jpg", 200, 300).read_bytes()
    Path("in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    Path("in/bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    Image.fromarray(np.ones((4, 4), np.float32)).save("in/depth.tif")
    before = files("in")
    result = run("segment", "in", "missing.png", "-m", model, "--out", "out")
    assert result.exit_code == 1
    assert files("out") == {"good1.fcnzoo.overlay.png", "good2.fcnzoo.overlay.png"}
    assert files("in") == before
    lines = complaints(result)
    assert len(lines) == 6
    parts = {
        "missing.png": "no such file",
        "in/text.png": "not an image",
        "in/empty.png": "empty",
        "in/cut.jpg": "damaged",
        "in/bomb.png": "--max-pixels",
        "in/depth.tif": "32-bit",
    }
    for name, part in parts.items():
        assert len([line for line in lines if name in line and part in line]) == 1, (name, lines)
    assert len(result.stdout.splitlines()) == 2


def test_segment_max_pixels(model: Path) -> None:
    """--max-pixels is the limit."""
    photo("a.png")
    result = run("segment", "a.png", "-m", model, "--max-pixels", 40 * 57 - 1)
    assert result.exit_code == 1
    assert "2,280 pixels" in complaints(result)[0]
    assert run("segment", "a.png", "-m", model, "--max-pixels", 40 * 57).exit_code == 0


def test_segment_folders_within_folders(model: Path) -> None:
    """Only --recursive goes deeper; below --out the structure is kept; hidden files and other files are passed over."""
    for name in ("in/a.png", "in/deep/a.png", "in/deep/er/b.JPG", "in/.hidden.png", "in/.git/c.png"):
        photo(name)
    Path("in/notes.txt").write_text("no picture")
    assert run("segment", "in", "-m", model, "-o", "flat").exit_code == 0
    assert files("flat") == {"a.fcnzoo.overlay.png"}
    assert run("segment", "in", "-m", model, "-o", "tree", "-r").exit_code == 0
    assert files("tree") == {"a.fcnzoo.overlay.png", "deep/a.fcnzoo.overlay.png", "deep/er/b.fcnzoo.overlay.png"}


@pytest.mark.parametrize(
    ("arguments", "first", "result"),
    [
        (("a/x.png", "b/x.png", "-o", "out"), "a/x.png", "out/x"),
        (("a",), "a/x.jpg", "a/x"),
        (("b", "a/x.png", "-o", "out", "--force"), "b/x.png", "out/x"),
    ],
)
def test_segment_writes_one_result_for_one_image(
    model: Path, arguments: tuple[str, ...], first: str, result: str
) -> None:
    """Of two images of one stem for one folder the second is refused, by a line that names both."""
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        photo(name, 40, 50 + len(name) + ord(name[0]))
    photo("a/y.png")
    before = files()
    ran = run("segment", *arguments, "a/y.png", "-m", model, "-k", "labels")
    assert ran.exit_code == 1
    (line,) = complaints(ran)
    assert line.count("x.") >= 3
    assert first in line
    assert files() - before == {f"{result}.fcnzoo.labels.png", f"{Path(result).parent}/y.fcnzoo.labels.png"}
    with Image.open(f"{result}.fcnzoo.labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image), Predictor(model)(first).labels)


def test_segment_takes_an_image_once(model: Path) -> None:
    """A file that is given twice, or with its folder, is one image."""
    photo("in/a.png")
    result = run("segment", "in/a.png", "in", "./in/a.png", "-m", model)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 1


def test_segment_names_with_odd_characters(model: Path) -> None:
    """Markup, spaces, dots and other scripts in a name change nothing."""
    for name in ("[red]a b.png", "two.dots.png", "straße 写真.png"):
        photo(name)
    result = run("segment", ".", "-m", model)
    assert result.exit_code == 0
    assert {"[red]a b.fcnzoo.overlay.png", "two.dots.fcnzoo.overlay.png", "straße 写真.fcnzoo.overlay.png"} < files()
    assert "[red]a b.png" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("empty",), "no images in this folder"),
        (("none",), "no such file or folder"),
        (("a.png", "--model", "fcn8s_resnt50"), "Did you mean"),
        (("a.png", "--model", "./none"), "none"),
        (("a.png", "--model", "empty"), "empty"),
        (("a.png", "--model", "bad"), "num_classes"),
        (("a.png", "--model", "future"), "newer"),
        (("a.png", "--model", "garbled"), "config.json"),
        (("a.png", "--model", "fcn32s_resnet18"), "pretrained_backbone"),
        (("a.png", "--out", "a.png"), "is a file"),
    ],
)
def test_segment_with_nothing_to_do_it_with(model: Path, arguments: tuple[str, ...], part: str) -> None:
    """Empty folders, unknown models, impossible and future configs: one line, exit code 1, nothing written."""
    photo("a.png")
    Path("empty").mkdir()
    good = json.loads((model / "config.json").read_text())
    for name, change in (("bad", {"num_classes": 0}), ("future", {"format": 99})):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text(json.dumps(good | {"model": good["model"] | change}))
    Path("garbled").mkdir()
    Path("garbled/config.json").write_text("{")
    before = files()
    options = () if "--model" in arguments else ("--model", str(model))
    result = run("segment", *arguments, *options)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = complaints(result)
    assert part in line
    assert files() == before


def test_segment_on_a_device_that_is_not_here(model: Path) -> None:
    """A device that does not exist is one line."""
    photo("a.png")
    result = run("segment", "a.png", "-m", model, "--device", "cuda:99")
    assert result.exit_code == 1
    assert "cuda:99" in complaints(result)[0]


def test_segment_without_a_shipped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --model, and without a shipped model, one line says what to give."""
    monkeypatch.setattr("fcnzoo.zoo.registry.DEFAULT_MODEL", None)
    photo("a.png")
    result = run("segment", "a.png")
    assert result.exit_code == 1
    assert "ships no model" in complaints(result)[0]


def test_segment_reports_memory_and_runtime_errors(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that does not fit in memory, or on the GPU, is one line, and the others are done."""
    photo("a.png", 40, 50)
    photo("b.png", 41, 50)
    photo("c.png", 42, 50)
    errors = {40: MemoryError(), 41: RuntimeError("out of memory\nsecond line")}
    whole = Predictor.__call__

    def fail(self: Predictor, image: Image.Image) -> object:
        if image.height in errors:
            raise errors[image.height]
        return whole(self, image)

    monkeypatch.setattr(Predictor, "__call__", fail)
    result = run("segment", "a.png", "b.png", "c.png", "-m", model)
    assert result.exit_code == 1
    assert complaints(result) == ["fcnzoo: a.png: not enough memory", "fcnzoo: b.png: out of memory second line"]
    assert Path("c.fcnzoo.overlay.png").exists()


def test_segment_reports_an_out_that_cannot_be_made(model: Path) -> None:
    """A folder that cannot be made is one line, not one per image."""
    photo("in/a.png")
    photo("in/b.png")
    Path("file").write_text("")
    result = run("segment", "in", "-m", model, "-o", "file/out")
    assert result.exit_code == 1
    (line,) = complaints(result)
    assert "file/out" in line


def test_list_ends_quietly_when_its_reader_goes() -> None:
    """`fcnzoo list | head -1` prints one line and no error."""
    code = "from fcnzoo.cli import main; main()"
    command = f"'{sys.executable}' -c '{code}' list --backbones | head -1"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (result.stdout.count("\n"), result.stderr) == (1, "")


def test_debug_shows_the_traceback(model: Path) -> None:
    """With --debug the error itself comes out."""
    Path("a.png").write_text("no picture")
    for arguments in (("info", "nonsense"), ("segment", "a.png", "-m", str(model))):
        assert CliRunner().invoke(app, list(arguments)).exception.__class__ is SystemExit
        result = CliRunner().invoke(app, ["--debug", *arguments])
        assert isinstance(result.exception, LookupError | ValueError)


def test_the_script_ends_with_one_line(tmp_path: Path) -> None:
    """The real process, not the test runner: one line on stderr, exit code 1."""
    code = "from fcnzoo.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "segment", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert str(tmp_path) in result.stderr


def test_export_writes_a_file(model: Path, tmp_path: Path) -> None:
    """A folder becomes one file that says its classes; an existing file stays without --force."""
    import onnxruntime

    result = run("export", model)
    assert result.exit_code == 0
    file = tmp_path / "small.onnx"
    assert result.stdout.startswith("small.onnx: ") and "compared with the network" in result.stdout
    about = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert json.loads(about["labels"]) == list(get_label_set("voc").names)
    written = file.read_bytes()
    again = run("export", model)
    assert again.exit_code == 1 and "small.onnx exists" in complaints(again)[0]
    assert file.read_bytes() == written


def test_export_of_bad_input(model: Path, tmp_path: Path) -> None:
    """An unknown name, output or format is one line; nothing is written."""
    for arguments, text in [
        (["fcn8s_nonsense"], "nonsense"),
        ([model, "--outputs", "labels,masks"], "outputs must be"),
        ([model, "--out", tmp_path.parent], "is a folder; give a file"),
        (["fcn8s_resnet18"], "no trained segmentation weights"),
    ]:
        result = run("export", *arguments)
        assert result.exit_code == 1 and text in complaints(result)[0]
    assert run("export", model, "--to", "tflite").exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_names_that_the_terminal_cannot_show(tmp_path: Path, encoding: str) -> None:
    """Pictures are written, every line is printed with escapes, and the exit code is 0."""
    names = ("街.png", "Ω.png", "plain.png")
    for name in names:
        Image.new("RGB", (32, 24)).save(tmp_path / name)
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(fcnzoo.__file__).parents[1])}
    command = [sys.executable, "-m", "fcnzoo", "segment", *names]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # Where a stream claims to be ASCII, click writes UTF-8.
    lines = done.stdout.decode("utf-8" if encoding == "ascii" else encoding).splitlines()
    assert len(lines) == 3 and ("\\u8857" in lines[0] or "街" in lines[0]) and "plain.png" in lines[2]
    assert all((tmp_path / f"{Path(name).stem}.fcnzoo.overlay.png").is_file() for name in names)


def test_problem_lists_keep_their_lines(tmp_path: Path) -> None:
    """Every file of a list of problems has a line of its own, without what a terminal would obey."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b\x1b[31m"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    result = CliRunner().invoke(app, ["evaluate", "everyday", "--data", str(tmp_path)])
    assert result.exit_code == 1
    result = CliRunner().invoke(app, ["evaluate", "everyday", "--data", str(tmp_path / "nowhere")])
    assert len(result.stderr.splitlines()) == 1
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "masks" / "c.png")
    result = CliRunner().invoke(app, ["evaluate", "everyday", "--data", str(tmp_path)])
    lines = result.stderr.splitlines()
    assert lines[0].startswith("fcnzoo: SegmentationFolder: 3 problems") and "\x1b" not in result.stderr
    assert sum(line.strip().endswith(".png") for line in lines) == 3


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "http://example.org/a.jpg", "s3://bucket/a.jpg"])
def test_addresses_are_printed_whole(address: str) -> None:
    """A URL is refused in a sentence that shows it as it was given."""
    result = CliRunner().invoke(app, ["segment", address])
    assert result.exit_code == 1 and f"{address} is no file; nothing is fetched from the web" in result.stderr
    with pytest.raises(ValueError, match="nothing is fetched from the web"):
        load_image(address)
