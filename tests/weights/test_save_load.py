"""Saving and loading: the same network back, whatever its head; damaged files are refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model.test_fcn import HEADS, randomize
from safetensors.torch import load_file, save_file

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.config.spec import Metric, ModelSpec, Weights
from fcnzoo.errors import WeightsError
from fcnzoo.labels import LabelSet
from fcnzoo.model.fcn import FCN, build
from fcnzoo.model.score_rows import score_keys
from fcnzoo.weights.folder import read_config
from fcnzoo.zoo import registry

SIZE = (1, 3, 33, 47)


def trained(name: str = "fcn8s", **changes: Any) -> FCN:
    """A network with weights that no initialization would give."""
    model = build(HEADS[name].replace(**changes)).eval()
    randomize(model)
    return model


@pytest.mark.parametrize("name", HEADS)
def test_round_trip(tmp_path: Path, name: str) -> None:
    """A loaded network has the config and computes the logits of the saved one, to the bit, in eval mode."""
    model = trained(name)
    assert fcnzoo.save(model, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    loaded = fcnzoo.load(tmp_path / "new" / "folder")
    assert not loaded.training
    assert loaded.config == model.config
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])
    assert [p.requires_grad for p in loaded.parameters()] == [p.requires_grad for p in model.parameters()]
    image = torch.randn(SIZE)
    with torch.inference_mode():
        assert torch.equal(loaded(image), model(image))


@pytest.mark.parametrize(
    "backbone", ["torchvision/shufflenet_v2_x0_5", "torchvision/regnet_y_400mf", "torchvision/swin_t"]
)
def test_round_trip_of_traced_backbones(tmp_path: Path, backbone: str) -> None:
    """Torchvision's networks, built on the meta device and filled from the file, compute the same."""
    model = fcnzoo.create("fcn8s", backbone=backbone, num_classes=3).eval()
    randomize(model)
    fcnzoo.save(model, tmp_path)
    image = torch.randn(1, 3, 40, 50)
    with torch.inference_mode():
        assert torch.equal(fcnzoo.load(tmp_path)(image), model(image))


@pytest.mark.parametrize("geometry", ["paper", "same"])
def test_round_trip_of_the_papers_network(narrow_vgg: None, tmp_path: Path, geometry) -> None:
    """The paper's network comes back in its geometry."""
    model = fcnzoo.create("fcn8s_vgg16", geometry=geometry).eval()
    randomize(model)
    fcnzoo.save(model, tmp_path)
    loaded = fcnzoo.load(tmp_path)
    assert loaded.grid == model.grid
    image = torch.randn(SIZE)
    with torch.inference_mode():
        assert torch.equal(loaded(image), model(image))


def test_buffers_that_are_not_saved_are_made_again(tmp_path: Path) -> None:
    """A network with non-persistent buffers (index tables, frequencies) loads and computes the same."""
    config = FCNConfig(BackboneConfig("timm/test_maxvit"), SkipHeadConfig(init="xavier"), num_classes=3)
    model = build(config).eval()
    kept = set(model.state_dict())
    assert {name for name, _ in model.named_buffers()} - kept, "this network is here for its buffers"
    fcnzoo.save(model, tmp_path)
    loaded = fcnzoo.load(tmp_path)
    for (name, got), (_, want) in zip(loaded.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(got, want), name


def test_own_labels_and_loss_come_back(tmp_path: Path) -> None:
    """Labels, loss and preprocessing are part of what is saved."""
    model = trained(label_set=LabelSet.from_names(list("abcde")), loss=HEADS["fcn8s"].loss.replace(label_smoothing=0.2))
    fcnzoo.save(model, tmp_path)
    config = fcnzoo.load(tmp_path).config
    assert config.label_set == model.label_set
    assert config.loss.label_smoothing == 0.2
    assert config.preprocess == model.preprocess
    assert read_config(tmp_path) == model.config


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(tmp_path: Path, dtype: torch.dtype) -> None:
    """Stored in half precision the file halves; loaded it is float32 with the rounded values."""
    model = trained()
    fcnzoo.save(model, tmp_path / "full")
    fcnzoo.save(model, tmp_path / "half", dtype=dtype)
    full, half = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("full", "half"))
    assert half < 0.55 * full
    loaded = fcnzoo.load(tmp_path / "half")
    for got, want in zip(loaded.parameters(), model.parameters(), strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want.to(dtype).float())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("saved", [torch.float64, torch.float16])
def test_loading_gives_float32_whatever_the_file_holds(tmp_path: Path, saved: torch.dtype) -> None:
    """Parameters are float32 unless another dtype is asked for."""
    fcnzoo.save(trained().to(saved), tmp_path)
    assert {p.dtype for p in fcnzoo.load(tmp_path).parameters()} == {torch.float32}
    for dtype in (torch.float16, torch.float64):
        assert {p.dtype for p in fcnzoo.load(tmp_path, dtype=dtype).parameters()} == {dtype}


def test_half_precision_on_load_predicts(tmp_path: Path) -> None:
    """A network loaded in float16 labels nearly as in float32."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    image = torch.randn(SIZE)
    got = fcnzoo.load(tmp_path, dtype=torch.float16).predict(image.half())
    assert (got == model.predict(image)).float().mean() > 0.9


def test_device(tmp_path: Path) -> None:
    """`device` says where the network goes."""
    fcnzoo.save(trained(), tmp_path)
    assert next(fcnzoo.load(tmp_path, device="cpu").parameters()).device.type == "cpu"


def test_folder_is_readable_by_people_and_other_tools(tmp_path: Path) -> None:
    """The folder holds safetensors, JSON and a card; figures, provenance and license stand where given."""
    metrics = [Metric("mean_iou", 0.6543, "CamVid val")]
    fcnzoo.save(trained(), tmp_path, metrics=metrics, provenance={"data": "CamVid"}, license="MIT")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    record = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert record["library"] == "fcnzoo"
    assert record["library_version"] == fcnzoo.__version__
    assert record["metrics"] == [metric.to_dict() for metric in metrics]
    assert record["provenance"] == {"data": "CamVid"}
    assert record["license"] == "MIT"
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    for part in (
        "license: mit",
        "given by who saved them: MIT",
        "library_name: fcnzoo",
        "| mean_iou | 0.6543 | CamVid val |",
        "fcnzoo.load",
    ):
        assert part in card
    assert set(load_file(tmp_path / "model.safetensors")) == set(trained().state_dict())


def test_no_license_is_invented(tmp_path: Path) -> None:
    """Without a license the card says none."""
    fcnzoo.save(trained(), tmp_path)
    assert "license" not in (tmp_path / "README.md").read_text(encoding="utf-8").lower()


def test_saving_again_replaces(tmp_path: Path) -> None:
    """A second save into the folder replaces the first."""
    first, second = trained(), trained("fcn")
    fcnzoo.save(first, tmp_path)
    fcnzoo.save(second, tmp_path)
    assert fcnzoo.load(tmp_path).config == second.config


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_refused(tmp_path: Path, value: float) -> None:
    """A network with a NaN or infinite weight is not saved, and an earlier save stays."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model.head.score["8"].weight.data[0, 0] = value  # pyright: ignore
    with pytest.raises(WeightsError, match=r"head\.score\.8\.weight"):
        fcnzoo.save(model, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(WeightsError):
        fcnzoo.save(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_values_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    """A weight that overflows the dtype of the file is a WeightsError that says to take another."""
    model = trained()
    model.head.score["8"].weight.data[0, 0] = 1e6  # pyright: ignore
    with pytest.raises(WeightsError, match="float16"):
        fcnzoo.save(model, tmp_path, dtype=torch.float16)


def test_unwritable_provenance_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Provenance that is no JSON fails without leaving half a folder."""
    with pytest.raises((TypeError, ValueError)):
        fcnzoo.save(trained(), tmp_path / "new", provenance={"when": object()})
    assert not (tmp_path / "new").exists()


def damage_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace keys of a saved file (`None`: drop them)."""
    path = folder / "model.safetensors"
    tensors: dict[str, Any] = dict(load_file(path)) | {key.replace("__", "."): value for key, value in changes.items()}
    save_file({key: value for key, value in tensors.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head__score__8__weight": None}, "1 missing: head.score.8.weight"),
        ({"head__surprise": torch.zeros(2)}, "1 unknown: head.surprise"),
        ({"head__score__8__bias": torch.zeros(2)}, r"head.score.8.bias \(2,\) instead of \(5,\)"),
        ({"head__score__8__bias": torch.zeros(5, dtype=torch.int64)}, "head.score.8.bias"),
        ({"head__score__8__bias": torch.zeros(5, dtype=torch.bool)}, "head.score.8.bias"),
        ({"head__score__8__bias": torch.zeros(5, dtype=torch.complex64)}, "head.score.8.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    """Missing, unknown, misshapen weights, or weights of no floating-point dtype, are a WeightsError."""
    fcnzoo.save(trained(), tmp_path)
    damage_weights(tmp_path, **changes)
    with pytest.raises(WeightsError, match=message):
        fcnzoo.load(tmp_path)


def test_step_counters_may_be_missing(tmp_path: Path) -> None:
    """`num_batches_tracked` changes nothing that a network computes; older files lack it."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    damage_weights(
        tmp_path, **{k.replace(".", "__"): None for k in model.state_dict() if k.endswith("num_batches_tracked")}
    )
    image = torch.randn(SIZE)
    assert torch.equal(fcnzoo.load(tmp_path)(image), model(image))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b'"x"', b"null", b"\xff\xfe\x00", b"[" * 100_000])
def test_damaged_files_are_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    """A missing, empty or broken file is a WeightsError that names it."""
    fcnzoo.save(trained(), tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(WeightsError, match=file):
        fcnzoo.load(tmp_path)


@pytest.mark.parametrize("cut", [4, 100, 5000, -1])
def test_truncated_weights_are_refused(tmp_path: Path, cut: int) -> None:
    """A weights file that ends too early is a WeightsError."""
    fcnzoo.save(trained(), tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        fcnzoo.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "upgrade"),
        ({"num_classes": 0}, "num_classes"),
        ({"surprise": 1}, "surprise"),
        ({"backbone": {"name": "hub/x"}}, "name"),
        ({"num_classes": 7}, "instead of"),
    ],
)
def test_configs_that_do_not_fit_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    """A config from a future version, with a wrong field, or not the file's, is a WeightsError."""
    fcnzoo.save(trained(), tmp_path)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    record["model"] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(WeightsError, match=message):
        fcnzoo.load(tmp_path)


def test_a_loaded_network_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """With `mmap=False`, changing the file in place after loading changes nothing."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    loaded = fcnzoo.load(tmp_path, mmap=False)
    path = tmp_path / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(b"\x00" * (size - size // 4))
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_no_folder_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is a WeightsError that says what to give."""
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        fcnzoo.load(tmp_path / "nothing")


# Weights that the registry knows --------------------------------------------------------------------------


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Register a model with weights in a folder; return a function that makes it, and the trained network."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    def make(name: str, sha256: str | None = None, **changes: Any) -> FCN:
        model = trained(name, **changes)
        fcnzoo.save(model, tmp_path)
        digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
        known = Weights(tag="test", dataset="noise", license="MIT", packaged=str(tmp_path), sha256=sha256 or digest)
        registry.register(ModelSpec(name="fcn8s_mine", config=HEADS[name].replace(num_classes=5), weights=(known,)))
        return model

    return make


@pytest.mark.parametrize("name", ["fcn8s_mine", "fcn8s_mine.test"])
def test_pretrained_is_the_trained_network(entry, name: str) -> None:
    """`pretrained=True` gives the trained network, labels and all, in eval mode or not, bit for bit."""
    model = entry("fcn8s", label_set=LabelSet.from_names(list("abcde")))
    loaded = fcnzoo.create(name, pretrained=True).eval()
    assert loaded.config == model.config
    image = torch.randn(SIZE)
    assert torch.equal(loaded(image), model(image))


def test_pretrained_has_the_classes_of_the_weights(entry) -> None:
    """Weights of another K than the entry's default come with their own K and scores, unless `num_classes` is given."""
    model = entry("fcn8s", label_set=LabelSet.from_names(list("abcde")))
    spec = registry.get_spec("fcn8s_mine")
    registry.register(spec.replace(config=spec.config.replace(num_classes=21)), replace=True)
    loaded = fcnzoo.create("fcn8s_mine.test", pretrained=True).eval()
    assert loaded.num_classes == 5
    assert loaded.label_set == model.label_set
    image = torch.randn(SIZE)
    assert torch.equal(loaded(image), model(image))
    assert fcnzoo.create("fcn8s_mine", pretrained=True, num_classes=21).num_classes == 21


def test_pretrained_networks_are_in_training_mode_like_all_others(entry) -> None:
    """`create` says "in training mode": with weights as without."""
    entry("fcn8s")
    assert fcnzoo.create("fcn8s_mine", pretrained=True).training == fcnzoo.create("fcn8s_mine").training


@pytest.mark.parametrize(
    "name", ["fcn8s", "fcn8s hidden", "fcn8s subpixel", "fcn32s deconv", "fcn8s depthwise", "fcn", "fcn concat"]
)
@pytest.mark.parametrize("classes", [1, 2, 20])
def test_other_classes_keep_everything_but_the_scores(entry, name: str, classes: int) -> None:
    """With another K only what depends on K is fresh: every other weight is the trained one."""
    model = entry(name)
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, num_classes=classes)
    assert loaded.num_classes == classes
    assert loaded.label_set is None
    state, own = loaded.state_dict(), model.state_dict()
    assert state.keys() == own.keys()
    same_shape = {key for key in own if own[key].shape == state[key].shape}
    assert all("score" in key or "deconv" in key for key in own.keys() - same_shape)
    last = {"head.score.bias", "aux_head.score.bias"} | {
        key for key in own if key.startswith("head.score.") and key.endswith(".bias")
    }
    for key in same_shape:
        assert torch.equal(state[key], own[key]) or key in last, key
    assert loaded.eval()(torch.randn(SIZE)).shape == (1, classes, 33, 47)
    assert not any(tensor.is_meta for tensor in state.values())


def test_score_keys_are_what_depends_on_the_number_of_classes() -> None:
    """For every head: the keys whose shape changes between two K, and no others."""
    for name, config in HEADS.items():
        with torch.device("meta"):
            first, second = build(config), build(config.replace(num_classes=9))
        shapes = {key: tensor.shape for key, tensor in second.state_dict().items()}
        depend = {key for key, tensor in first.state_dict().items() if tensor.shape != shapes[key]}
        assert score_keys(first, first.num_classes) == depend, name


def test_single_class_score_keys() -> None:
    """K = 1 is told apart from hidden layers too."""
    for name, config in HEADS.items():
        with torch.device("meta"):
            first, second = build(config.replace(num_classes=1)), build(config)
        shapes = {key: tensor.shape for key, tensor in second.state_dict().items()}
        depend = {key for key, tensor in first.state_dict().items() if tensor.shape != shapes[key]}
        assert score_keys(first, first.num_classes) == depend, name


def test_a_wrong_digest_is_refused(entry) -> None:
    """A file that is not the registry's is a WeightsError with both digests."""
    entry("fcn8s", sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"sha256 is .*{'0' * 64}"):
        fcnzoo.create("fcn8s_mine", pretrained=True)


def test_weights_of_other_channels_are_refused(entry) -> None:
    """RGB weights for another number of channels are a WeightsError that says what they take."""
    entry("fcn8s")
    with pytest.raises(WeightsError, match="3 channels, not 4"):
        fcnzoo.create("fcn8s_mine", pretrained=True, in_channels=4)


def test_pretrained_with_aux_false_has_no_aux_head(entry) -> None:
    """`aux=False` is not forgotten when weights are loaded."""
    model = entry("fcn")
    loaded = fcnzoo.create("fcn8s_mine", pretrained=True, aux=False).eval()
    assert loaded.aux_head is None
    image = torch.randn(SIZE)
    assert torch.equal(loaded(image), model(image))


def test_pretrained_with_output_stride_is_heeded_or_refused(entry) -> None:
    """`output_stride` with weights dilates the trained network, or is an error; it is never ignored."""
    entry("fcn")
    try:
        loaded = fcnzoo.create("fcn8s_mine", pretrained=True, output_stride=16)
    except (ValueError, WeightsError):
        return
    assert loaded.config.backbone.output_stride == 16
    assert loaded.scores(torch.randn(1, 3, 64, 64)).main.shape[-1] == 4


def test_pretrained_with_geometry_is_heeded(narrow_vgg: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`geometry="same"` gives the pad-free network from the same trained weights."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    model = fcnzoo.create("fcn8s_vgg16")
    randomize(model)
    fcnzoo.save(model, tmp_path)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    known = Weights(tag="test", dataset="noise", license="MIT", packaged=str(tmp_path), sha256=digest)
    registry.register(registry.get_spec("fcn8s_vgg16").replace(weights=(known,)), replace=True)
    loaded = fcnzoo.create("fcn8s_vgg16", pretrained=True, geometry="same")
    assert loaded.config.backbone.geometry == "same"
    assert loaded.grid.stride is None
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"datasets": "camvid"}, "not one text"),
        ({"datasets": [1]}, "datasets"),
        ({"metrics": [0.5]}, "Metric"),
        ({"license": 3}, "license"),
        ({"provenance": {1: "a", "1": "b"}}, "comes twice"),
        ({"provenance": {"a": {"b": [1] * 1_000_000}}}, "shorten the provenance"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, options: dict, message: str) -> None:
    """Arguments that would make a folder that does not load are refused, and nothing is written."""
    with pytest.raises((TypeError, ValueError), match=message):
        fcnzoo.save(trained(), tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_networks_that_are_not_their_config_are_not_saved(tmp_path: Path) -> None:
    """With a compiled or a quantized part the folder would not load: a WeightsError, and the old save stays."""
    model = trained()
    fcnzoo.save(model, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    backbone = model.backbone
    model.backbone = torch.compile(backbone)  # pyright: ignore
    with pytest.raises(WeightsError, match="could not be loaded again"):
        fcnzoo.save(model, tmp_path)
    model.backbone = backbone
    model.head.to(torch.float8_e5m2)
    with pytest.raises(WeightsError, match="could not be loaded again"):
        fcnzoo.save(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
