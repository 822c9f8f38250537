"""Where `pretrained=True` finds weights: mirror, Hub, the authors' own file, in this order, each verified."""

from __future__ import annotations

import functools
import hashlib
import logging
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

import fcnzoo
from fcnzoo.cli import app
from fcnzoo.config.spec import Metric, ModelSpec, Publication, Weights
from fcnzoo.errors import WeightsError
from fcnzoo.files import digests, download, staging
from fcnzoo.model.fcn import FCN
from fcnzoo.model.skip import bilinear_kernel
from fcnzoo.weights import sources as resolve
from fcnzoo.zoo import registry

NAME = "fcn32s_vgg16.test"


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, counts, and cuts off what it is told to."""

    requests: list[str]
    cut: list[str]

    def do_GET(self) -> None:
        """Serve a file, or its first half."""
        self.requests.append(self.path)
        if self.path in self.cut:
            self.cut.remove(self.path)
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            return
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Site:
    """A web server for a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.requests: list[str] = []
        self.cut: list[str] = []
        handler = type("Bound", (Handler,), {"requests": self.requests, "cut": self.cut})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Take it down."""
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A web server for an empty folder."""
    server = Site(tmp_path / "site")
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FCNZOO_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0))


@pytest.fixture
def trained(narrow_vgg: None, tmp_path: Path) -> FCN:
    """A small FCN-32s with weights of its own."""
    model = fcnzoo.create("fcn32s_vgg16").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


@pytest.fixture
def published(trained: FCN, site: Site) -> Path:
    """Its weights as torchfcn would have published them."""
    state = {
        name.replace("backbone.", "").replace("head.score.32.", "score_fr."): tensor
        for name, tensor in trained.state_dict().items()
    }
    deconvolution = torch.zeros(21, 21, 64, 64)
    deconvolution[range(21), range(21)] = bilinear_kernel(32).float()
    path = site.folder / "fcn32s.pth"
    torch.save(state | {"upscore.weight": deconvolution}, path)
    return path


def enter(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> ModelSpec:
    """Give the zoo's FCN-32s these weights and no others."""
    spec = fcnzoo.get_spec("fcn32s_vgg16").replace(weights=(weights,))
    monkeypatch.setitem(registry._registered, spec.name, spec)
    return spec


def weights(site: Site, **changes: object) -> Weights:
    """The entry of the published file."""
    digest = hashlib.sha256((site.folder / "fcn32s.pth").read_bytes()).hexdigest()[:8]
    where = {"url": f"{site.url}/fcn32s.pth", "sha256": digest} | changes
    return Weights(
        tag="test",
        dataset="noise",
        license="CC0-1.0",
        metrics=(Metric("mean_iou", 0.5, "noise"),),
        published=Publication("torchfcn", **where),  # pyright: ignore[reportArgumentType]
    )


def same(one: FCN, other: FCN) -> bool:
    """Whether two networks have the same weights."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def run(*arguments: object) -> Result:
    """Run the command line."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def scores(model: FCN) -> Tensor:
    """Of a fixed image."""
    return model.eval().scores(torch.linspace(-90, 90, 3 * 40 * 50).reshape(1, 3, 40, 50)).main


def test_the_authors_file(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, trained: FCN) -> None:
    """It is fetched, converted and kept; the second time nothing is fetched, and it need not be there."""
    spec = enter(monkeypatch, weights(site))
    loaded = fcnzoo.create(NAME, pretrained=True)
    assert loaded.training
    assert same(loaded, trained)
    assert torch.equal(scores(loaded), scores(trained))
    assert loaded.config == spec.config
    assert site.requests == ["/fcn32s.pth"]
    site.stop()
    assert same(fcnzoo.create("fcn32s_vgg16", pretrained=True), trained)
    folder = resolve.find(spec, spec.weights[0])
    assert folder.parent == digests.cache_folder() / "converted"
    again = fcnzoo.load(folder)
    assert again.provenance["address"] == f"{site.url}/fcn32s.pth"
    card = (folder / "README.md").read_text()
    assert "cc0-1.0" in card and "noise" in card and "0.5" in card
    assert [path for path in digests.cache_folder().rglob("*") if path.suffix in (".pth", ".part")] == []


def test_a_damaged_cache_is_made_again(
    monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, trained: FCN, caplog: pytest.LogCaptureFixture
) -> None:
    """A cached file that changed is noticed, said, and fetched again; without the site it is an error."""
    spec = enter(monkeypatch, weights(site))
    path = resolve.find(spec, spec.weights[0]) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with caplog.at_level(logging.WARNING):
        assert same(fcnzoo.create(NAME, pretrained=True), trained)
    assert "damaged" in caplog.text
    assert site.requests == ["/fcn32s.pth"] * 2
    path.write_bytes(content[: len(content) // 2])
    site.stop()
    with pytest.raises(WeightsError, match=r"fcn32s_vgg16\.test cannot be had: FCNZOO_MIRROR is not set; http"):
        fcnzoo.create(NAME, pretrained=True)


def test_wrong_digests(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path) -> None:
    """Another sha256 or MD5 than the registry's: an error with both, after a retry, and nothing is kept."""
    for changes, words in (
        ({"sha256": "0" * 8}, f"sha256 is {digests.hash_file(published)}, it should be 00000000"),
        ({"sha256": None, "md5": "1" * 32}, f"md5 is {digests.hash_file(published, 'md5')}, it should be 1111"),
    ):
        enter(monkeypatch, weights(site, **changes))
        with pytest.raises(WeightsError, match=words):
            fcnzoo.create(NAME, pretrained=True)
    assert len(site.requests) == 6
    assert [path for path in digests.cache_folder().rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_broken_connections(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, trained: FCN) -> None:
    """A cut connection is tried again; three are an error that says where it broke; a missing file is asked once."""
    enter(monkeypatch, weights(site))
    site.cut += ["/fcn32s.pth"] * 3
    with pytest.raises(WeightsError, match="the connection broke after"):
        fcnzoo.create(NAME, pretrained=True)
    site.cut.append("/fcn32s.pth")
    assert same(fcnzoo.create(NAME, pretrained=True), trained)
    enter(monkeypatch, weights(site, url=f"{site.url}/other.pth"))
    del site.requests[:]
    with pytest.raises(WeightsError, match="the server answered 404"):
        fcnzoo.create(NAME, pretrained=True)
    assert site.requests == ["/other.pth"]


def test_another_network_than_the_registry_says(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path) -> None:
    """A file that holds other classes than its entry says is an error that names it."""
    known = weights(site)
    other = fcnzoo.get_spec("fcn32s_vgg16").config.replace(num_classes=5, label_set=None)
    enter(monkeypatch, known.replace(config=other))
    with pytest.raises(WeightsError, match="21"):
        fcnzoo.create(NAME, pretrained=True)


def test_google_drive(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, trained: FCN) -> None:
    """Without gdown an ImportError names it and the address; with it the file is fetched, and its MD5 checked."""
    md5 = digests.hash_file(published, "md5")
    enter(monkeypatch, weights(site, url=None, sha256=None, drive="abc", md5=md5))
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImportError, match=r"https://drive\.google\.com/uc\?id=abc .*pip install gdown"):
        fcnzoo.create(NAME, pretrained=True)
    gdown = types.ModuleType("gdown")
    gdown.download = lambda **asked: Path(asked["output"]).write_bytes(published.read_bytes())  # type: ignore
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    assert same(fcnzoo.create(NAME, pretrained=True), trained)
    enter(monkeypatch, weights(site, url=None, sha256=None, drive="abd", md5="2" * 32))
    with pytest.raises(WeightsError, match=f"md5 is {md5}, it should be 2222"):
        fcnzoo.create(NAME, pretrained=True)
    gdown.download = lambda **_: None  # type: ignore
    with pytest.raises(WeightsError, match="did not give it"):
        fcnzoo.create(NAME, pretrained=True)


def test_no_digest_is_said(
    monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a publisher gives no digest, the log says that nothing vouches for the file but its address."""
    enter(monkeypatch, weights(site, sha256=None))
    fcnzoo.create(NAME, pretrained=True)
    assert "gives no digest" in caplog.text


@pytest.mark.parametrize("over_http", [False, True])
def test_a_mirror_works_without_any_other_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path, trained: FCN, over_http: bool
) -> None:
    """`fcnzoo mirror` writes a folder that serves an air-gapped machine, as a folder or behind a web server."""
    enter(monkeypatch, weights(site))
    mirror = site.folder if over_http else tmp_path / "mirror"
    result = run("mirror", NAME, "--to", mirror)
    assert result.exit_code == 0, result.stderr
    digest = digests.hash_file(mirror / NAME / "model.safetensors")
    assert result.stdout.split("\t") == [NAME, digest, f"{mirror / NAME}\n"]
    assert sorted(path.name for path in (mirror / NAME).iterdir()) == [
        "README.md",
        "config.json",
        "digests.json",
        "model.safetensors",
    ]
    published.unlink()
    if not over_http:
        site.stop()
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "another machine"))
    monkeypatch.setenv("FCNZOO_MIRROR", site.url if over_http else str(mirror))
    assert same(fcnzoo.create(NAME, pretrained=True), trained)
    before = list(site.requests)
    assert same(fcnzoo.create(NAME, pretrained=True), trained)
    assert site.requests == before


def test_a_damaged_mirror_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path
) -> None:
    """A file of the mirror that is not what its digests say, or lacks, is named; no other source is taken."""
    enter(monkeypatch, weights(site))
    mirror = tmp_path / "mirror"
    run("mirror", NAME, "--to", mirror)
    monkeypatch.setenv("FCNZOO_MIRROR", str(mirror))
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "another machine"))
    path = mirror / NAME / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(b"\1" + content[1:])
    with pytest.raises(WeightsError, match=r"mirror.*model\.safetensors: its sha256 is"):
        fcnzoo.create(NAME, pretrained=True)
    path.unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors: No such file"):
        fcnzoo.create(NAME, pretrained=True)
    whole = '"config.json": "' + "0" * 64 + '", "model.safetensors": '
    for text in (
        "{",
        "[]",
        "{}",
        '{"../x": "0"}',
        '{"model.safetensors": "' + "0" * 64 + '"}',
        "{" + whole + "1" * 64 + "}",
        "{" + whole + f'"{"1" * 64}", "config.json": "{"1" * 64}"}}',
        " " * 2**21,
    ):
        (mirror / NAME / "digests.json").write_text(text)
        with pytest.raises(WeightsError, match=r"digests\.json"):
            fcnzoo.create(NAME, pretrained=True)
    assert site.requests == ["/fcn32s.pth"]
    monkeypatch.setenv("FCNZOO_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="nowhere is no folder"):
        fcnzoo.create(NAME, pretrained=True)


def test_a_damaged_file_on_a_web_mirror(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path
) -> None:
    """Over http, too: the file and both digests are named, and nothing is kept."""
    enter(monkeypatch, weights(site))
    run("mirror", NAME, "--to", site.folder)
    path = site.folder / NAME / "model.safetensors"
    path.write_bytes(b"\1" + path.read_bytes()[1:])
    monkeypatch.setenv("FCNZOO_MIRROR", site.url)
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "another machine"))
    with pytest.raises(WeightsError, match=r"/model\.safetensors: its sha256 is \w{64}, it should be \w{64}"):
        fcnzoo.create(NAME, pretrained=True)
    assert list((tmp_path / "another machine" / "mirror").iterdir()) == []


def test_a_mirror_without_the_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path, trained: FCN
) -> None:
    """What the mirror lacks comes from the next source; if there is none, the error says both."""
    enter(monkeypatch, weights(site))
    for mirror in (str(tmp_path), site.url):
        monkeypatch.setenv("FCNZOO_MIRROR", mirror)
        monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / mirror[:4].strip("/")))
        assert same(fcnzoo.create(NAME, pretrained=True), trained)
    assert not (digests.cache_folder() / "mirror" / NAME).exists()
    assert not list(digests.cache_folder().glob("mirror/*"))
    site.stop()
    monkeypatch.setenv("FCNZOO_MIRROR", str(tmp_path))
    monkeypatch.setenv("FCNZOO_CACHE", str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match=r"the mirror .* does not have them; http"):
        fcnzoo.create(NAME, pretrained=True)


def test_mirroring_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path) -> None:
    """What is whole stays, what is damaged is written again; a name without weights fails, the others go on."""
    enter(monkeypatch, weights(site))
    path = tmp_path / "mirror" / NAME / "model.safetensors"
    assert run("mirror", NAME, "--to", tmp_path / "mirror").exit_code == 0
    inode = path.stat().st_ino
    (next((digests.cache_folder() / "converted").iterdir()) / "stray.bin").write_bytes(b"nobody checked this")
    result = run("mirror", "fcn8s_resnet34", NAME, "no_such", "--to", tmp_path / "mirror")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{NAME}\t")
    assert "fcn8s_resnet34 has no trained" in result.stderr and "no_such" in result.stderr
    assert path.stat().st_ino == inode
    assert not (path.parent / "stray.bin").exists()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert run("mirror", NAME, "--to", tmp_path / "mirror").exit_code == 0
    assert path.read_bytes() == content


def test_a_file_that_the_caller_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, site: Site, published: Path, trained: FCN
) -> None:
    """`find(original=…)` converts it without asking anybody, if its digest is right, and leaves it where it is."""
    spec = enter(monkeypatch, weights(site))
    folder = resolve.find(spec, spec.weights[0], original=published)
    assert same(fcnzoo.load(folder), trained)
    assert published.is_file()
    assert site.requests == []
    other = tmp_path / "other.pth"
    other.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"other\.pth: its digest is"):
        resolve.find(spec, spec.weights[0], original=other)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "url or drive"),
        ({"url": "https://x/y.pth", "drive": "abc"}, "url or drive"),
        ({"url": "ftp://x/y.pth"}, "https://"),
        ({"url": "https://x/y.pth", "sha256": "xyz"}, "sha256"),
        ({"url": "https://x/y.pth", "md5": "12345678"}, "md5"),
    ],
)
def test_impossible_publications(changes: dict[str, str], words: str) -> None:
    """A publication without an address, with two, or with a digest that cannot be one is refused."""
    with pytest.raises(ValueError, match=words):
        Publication("caffe", **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "changes", [{"hub": "org/x"}, {"hub": "org/x", "sha256": "0" * 64}, {"hub": "org/x", "revision": "0" * 40}]
)
def test_weights_on_the_hub_are_pinned(changes: dict[str, str]) -> None:
    """An entry on the Hub gives its commit and its digest."""
    with pytest.raises(ValueError, match="must be"):
        Weights(tag="x", dataset="x", license="x", **changes)


def test_many_that_start_at_once(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path, trained: FCN) -> None:
    """Of several that ask for the same weights one fetches and converts, the others wait; all get them."""
    spec = enter(monkeypatch, weights(site))
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: resolve.find(spec, spec.weights[0]), range(4)))
    assert len(folders) == 1
    assert same(fcnzoo.load(folders.pop()), trained)
    assert site.requests == ["/fcn32s.pth"]


def test_a_folder_that_came_in_the_meantime_stays(tmp_path: Path) -> None:
    """Without a lock, too: what another process has put there is not taken away; what was there before is replaced."""
    (tmp_path / "old").mkdir()
    with staging.replaced_folder(tmp_path / "new"), staging.replaced_folder(tmp_path / "old") as ours:
        (ours / "mine").write_text("x")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "digests.json").write_text("theirs")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["mine"]
    assert (tmp_path / "new" / "digests.json").read_text() == "theirs"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("new", "old") or "." in path.name[:1]) == [
        "new",
        "old",
    ]


def test_newer_rules_convert_again(monkeypatch: pytest.MonkeyPatch, site: Site, published: Path) -> None:
    """What an older version of the converters made is not taken for what the present one makes."""
    enter(monkeypatch, weights(site))
    fcnzoo.create(NAME, pretrained=True)
    monkeypatch.setattr(sys.modules["fcnzoo.weights.converters.receipt"], "RULES_VERSION", 99)
    fcnzoo.create(NAME, pretrained=True)
    assert len(site.requests) == 2


@pytest.mark.parametrize("url", ["http://[::1/x", "http://127.0.0.1:1/ä", "http://a b/x"])
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    """What cannot be an address is a WeightsError that names it."""
    with pytest.raises(WeightsError, match="not an address"):
        download.download(url, tmp_path / "x")
