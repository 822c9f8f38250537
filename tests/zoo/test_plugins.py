"""Models that other packages bring by an entry point, and packages that bring something else."""

from __future__ import annotations

import hashlib
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
from fcnzoo.config.spec import ModelSpec, Weights
from fcnzoo.errors import UnknownModelError, WeightsError
from fcnzoo.zoo import plugins, registry
from fcnzoo.zoo.plugins import Plugins
from fcnzoo.zoo.registry import get_spec, list_models, register

HEADER = """
import fcnzoo
from fcnzoo.config import BackboneConfig, FCNConfig, SkipHeadConfig
def spec(name, **more):
    config = FCNConfig(BackboneConfig("timm/test_resnet"), SkipHeadConfig(), num_classes=3)
    return fcnzoo.ModelSpec(name=name, config=config, **more)
"""
GOOD = "SPECS = spec('fcn8s_good')"

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install packages as pip does: `install("dist", entry="module:NAME", code="…")`; none is read before the end."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    monkeypatch.setattr(registry, "_plugins", Plugins({spec.name for spec in registry.ENTRIES}))
    modules: list[str] = []

    def make(name: str, code: str = GOOD, *, site: Path = tmp_path, entries: str | None = None) -> Path:
        module = name.replace("-", "_")
        modules.append(module)
        folder = site / f"{module}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entries = f"{module} = {module}:SPECS" if entries is None else entries
        (folder / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[fcnzoo.models]\n{entries}\n")
        (site / f"{module}.py").write_text(HEADER + code)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(site)
        return site

    yield make
    for module in modules:
        sys.modules.pop(module, None)


def models_of(code: str, install: Install) -> list[str]:
    """What a package with this code adds to the list."""
    before = {spec.name for spec in registry.ENTRIES}
    install("one", code)
    return sorted(set(list_models()) - before)


@pytest.mark.parametrize(
    ("code", "want"),
    [
        ("SPECS = spec('fcn8s_a')", ["fcn8s_a"]),
        ("SPECS = [spec('fcn8s_a'), spec('fcn32s_a')]", ["fcn32s_a", "fcn8s_a"]),
        ("SPECS = (spec(f'fcn8s_{letter}') for letter in 'ab')", ["fcn8s_a", "fcn8s_b"]),
        ("def SPECS():\n    return spec('fcn8s_a')", ["fcn8s_a"]),
        ("def SPECS():\n    yield spec('fcn8s_a')\n    yield spec('fcn8s_b')", ["fcn8s_a", "fcn8s_b"]),
        ("SPECS = ()", []),
    ],
)
def test_what_an_entry_point_may_name(install: Install, code: str, want: list[str]) -> None:
    """A spec, an iterable of specs, or a function that returns either."""
    assert models_of(code, install) == want
    for name in want:
        assert get_spec(name).config.num_classes == 3
        assert fcnzoo.create(name, device="meta").num_classes == 3


def test_plugins_are_read_once_and_when_needed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    """A built-in name does not read them; any other does, and once for all."""
    install("one", "print('read')\n" + GOOD)
    assert get_spec("fcn8s_vgg16").name == "fcn8s_vgg16"
    assert "one" not in sys.modules
    assert get_spec("fcn8s_good").name == "fcn8s_good"
    assert "one" in sys.modules
    monkeypatch.setattr(plugins, "_mentioned", lambda: pytest.fail("read again"))
    assert "fcn8s_good" in list_models()


def test_a_plugin_goes_before_a_head_on_a_backbone(install: Install) -> None:
    """A name that would be built on the fly is the plug-in's, which says what its author means by it."""
    install("one", "SPECS = spec('fcn8s_resnet50d')")
    assert get_spec("fcn8s_resnet50d").config.backbone.name == "timm/test_resnet"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('no\\nluck')", "RuntimeError: no luck"),
        ("import nothing_of_that_name", "ModuleNotFoundError: .*nothing_of_that_name"),
        ("OTHER = 1", "AttributeError: .*SPECS"),
        ("SPECS = 3", "TypeError: must be a fcnzoo.ModelSpec, .* got int"),
        ("SPECS = 'fcn8s_vgg16'", "TypeError: must be .* got str with str"),
        ("SPECS = [spec('fcn8s_a'), None]", "TypeError: must be .* got list with NoneType"),
        ("def SPECS():\n    return 1 / 0", "ZeroDivisionError"),
        ("SPECS = spec('no name')", "ValueError: ModelSpec.name"),
        ("SPECS = [spec('fcn8s_vgg16'), spec('fcn8s_a')]", "'fcn8s_vgg16' is a model of fcnzoo"),
        ("SPECS = [spec('fcn8s_a'), spec('fcn8s_a')]", "two of its models have one name"),
        ("SPECS = spec('fcn8s_a', weights=[fcnzoo.Weights('v1', 'd', 'MIT', packaged='x')])", "sha256"),
    ],
)
def test_a_broken_plugin_is_told_and_takes_nothing_along(install: Install, code: str, why: str) -> None:
    """One warning with distribution and cause; every other model stays; its own names are errors that say why."""
    built_in = get_spec("fcn8s_vgg16")
    install("broken-one", code, entries="fcn8s_a = broken_one:SPECS")
    install("z")
    with pytest.warns(RuntimeWarning, match=rf"plug-in 'fcn8s_a' \(broken_one:SPECS\) of broken-one .*{why}") as caught:
        names = list_models()
    assert len(caught) == 1
    assert "fcn8s_good" in names and "fcn8s_a" not in names and "fcn8s_vgg16" in names
    assert get_spec("fcn8s_vgg16") is built_in
    assert list_models() == names  # and no second warning
    with pytest.raises(UnknownModelError, match=f"broken-one cannot be used: .*{why}"):
        get_spec("fcn8s_a")
    with pytest.raises(UnknownModelError, match=r"there is no model 'fcn9s_x'.*broken-one"):
        get_spec("fcn9s_x")


def test_a_broken_plugins_name_never_means_another_network(install: Install) -> None:
    """`fcn8s_resnet50d` of a plug-in that fails is not built on timm's network in silence."""
    install("one", "SPECS = [spec('fcn8s_resnet50d'), spec('fcn8s_vgg16')]")
    with (
        pytest.warns(RuntimeWarning, match="'one'"),
        pytest.raises(UnknownModelError, match="'fcn8s_vgg16' is a model of fcnzoo"),
    ):
        fcnzoo.create("fcn8s_resnet50d")


def test_the_first_of_two_with_one_name_stays(install: Install) -> None:
    """By the names of the distributions; the second is told."""
    install("b", GOOD.replace("good'", "good', description='second'"))
    install("a", GOOD.replace("good'", "good', description='first'"))
    with pytest.warns(RuntimeWarning, match=r"of b cannot be used: .*'fcn8s_good' is a model of another plug-in"):
        assert get_spec("fcn8s_good").description == "first"


def test_where_warnings_are_errors_the_models_are_there_all_the_same(install: Install) -> None:
    """The warning comes after everything was read."""
    install("broken", "SPECS = 3")
    install("z")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning):
            list_models()
        assert "fcn8s_good" in list_models()


def test_damaged_files_of_pip_are_told(install: Install, tmp_path: Path) -> None:
    """An entry point without a value, and a distribution without a name, are told; others are read."""
    install("half", entries="nonsense")
    install("anonymous")
    (tmp_path / "anonymous-1.0.dist-info" / "METADATA").unlink()
    (tmp_path / "odd-1.0.dist-info" / "entry_points.txt").mkdir(parents=True)  # no file: it declares nothing
    install("z")
    with pytest.warns(RuntimeWarning) as caught:
        assert "fcn8s_good" in list_models()
    texts = " ".join(str(warning.message) for warning in caught)
    assert "half" in texts and str(tmp_path) in texts and len(caught) == 2


def test_of_two_copies_the_first_on_the_path_counts(install: Install, tmp_path: Path) -> None:
    """As for imports: a distribution that is installed twice is read once."""
    install("one", site=tmp_path / "second")
    install("one", GOOD.replace("good", "newer"), site=tmp_path / "first")
    assert [name for name in list_models() if name in ("fcn8s_good", "fcn8s_newer")] == ["fcn8s_newer"]


def test_plugins_in_zip_files(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is run from a zip file brings its models too."""
    site = install("zipped", site=tmp_path / "site")
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in site.rglob("*"):
            if path.is_file():
                file.write(path, path.relative_to(site))
    monkeypatch.setattr(sys, "path", [str(archive), *(entry for entry in sys.path if entry != str(site))])
    assert "fcn8s_good" in list_models()
    assert ".zip" in str(sys.modules["zipped"].__file__)


def test_registering_beside_plugins(install: Install) -> None:
    """A plug-in's name is taken for `register`, unless it is replaced; while it is imported it may register itself."""
    install("one", "fcnzoo.register(spec('fcn8s_own'))\n" + GOOD)
    config = FCNConfig(BackboneConfig("timm/test_vit"), SkipHeadConfig())
    spec = ModelSpec("fcn8s_good", config, weights=(Weights("v1", dataset="mine", license="MIT"),))
    with pytest.raises(ValueError, match="registered already"):
        register(spec)
    register(spec, replace=True)
    assert get_spec("fcn8s_good") is spec
    assert get_spec("fcn8s_own").name == "fcn8s_own"
    assert list_models("fcn8s_good") == list_models(dataset="mine") == ["fcn8s_good"]


def test_two_threads_get_all_models(install: Install) -> None:
    """A second thread waits until all are read."""
    install("slow", "import time\ntime.sleep(0.2)\n" + GOOD)
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append("fcn8s_good" in list_models())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]


def test_weights_in_the_plugins_own_package(install: Install, tmp_path: Path) -> None:
    """`packaged` with an absolute folder: `pretrained=True` loads it; a missing or changed file is refused by name."""
    config = FCNConfig(BackboneConfig("timm/test_resnet"), SkipHeadConfig(), num_classes=3)
    trained = fcnzoo.build(config).eval()
    torch.nn.init.normal_(trained.head.score["8"].weight)
    folder = fcnzoo.save(trained, tmp_path / "weights")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    code = f"""
from pathlib import Path
WEIGHTS = dict(dataset="d", license="MIT", packaged=str(Path(__file__).parent / "weights"))
SPECS = spec("fcn8s_own", weights=(
    fcnzoo.Weights(tag="v1", sha256="{digest}", **WEIGHTS), fcnzoo.Weights(tag="v2", sha256="{"0" * 64}", **WEIGHTS)
))
"""
    install("own", code)
    assert list_models("*own*", pretrained=True) == ["fcn8s_own.v1", "fcn8s_own.v2"]
    model = fcnzoo.create("fcn8s_own", pretrained=True)
    assert torch.equal(model.head.score["8"].weight, trained.head.score["8"].weight)
    with pytest.raises(WeightsError, match=r"weights/model\.safetensors: sha256 is .* reinstall the package"):
        fcnzoo.create("fcn8s_own.v2", pretrained=True)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"weights/model\.safetensors is missing; reinstall"):
        fcnzoo.create("fcn8s_own", pretrained=True)
