"""`fcnzoo publish`, and entries of the registry that are on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from weights.hub.conftest import Client
from weights.hub.server import READER, Hub

PUBLISH = """
from fcnzoo.cli import main
from fcnzoo.config.spec import Metric
model = tiny()
metrics = [Metric("mean_iou", 0.25, "noise val")]
fcnzoo.save(model, "net", license="mit", datasets=["noise"], metrics=metrics, provenance={"recipe": "none"})
sys.argv = ["fcnzoo", "publish", "net", "org/net", *sys.argv[1:]]
main()
"""

ENTRY = """
from fcnzoo.config.spec import ModelSpec, Weights
weights = Weights(tag="test", dataset="noise", license="mit", {pin})
fcnzoo.register(ModelSpec(name="fcn32s_tiny", config=tiny().config, weights=(weights,)))
"""


def test_publish_and_pin(hub: Hub, client: Client) -> None:
    """The lines that `publish` prints are what an entry needs for `pretrained=True` to find its weights."""
    pin = client(PUBLISH)
    assert re.fullmatch(r'hub="org/net",\nrevision="[0-9a-f]{40}",\nsha256="[0-9a-f]{64}",', pin)
    files = hub.repos["org/net"].commits[hub.repos["org/net"].branches["main"]]
    card = files["README.md"].decode()
    assert all(word in card for word in ("license: mit", "noise", "0.25", "recipe", "hf-hub:org/net"))
    create = 'print(same(fcnzoo.create("fcn32s_tiny", pretrained=True), tiny()))'
    assert client(ENTRY.format(pin=pin) + create, token=READER) == "True"
    assert client(ENTRY.format(pin=pin) + create, HF_HUB_OFFLINE="1") == "True"
    # The pin holds even where the Hub's own listing agrees with the file.
    wrong = re.sub(r'sha256="\w{8}', 'sha256="00000000', pin)
    text = client(ENTRY.format(pin=wrong) + 'print(told(lambda: fcnzoo.create("fcn32s_tiny", pretrained=True)))')
    assert text.startswith("WeightsError") and "the registry pins" in text


def test_the_mirror_comes_before_the_hub(tmp_path: Path, hub: Hub, client: Client) -> None:
    """A mirror of a Hub entry serves it without the Hub, compared with the registry's pin."""
    pin = client(PUBLISH)
    client(ENTRY.format(pin=pin) + 'from fcnzoo.cli.mirror import copy\ncopy("fcn32s_tiny.test", pathlib.Path("m"))')
    hub.stop()
    create = 'print(told(lambda: same(fcnzoo.create("fcn32s_tiny", pretrained=True), tiny())))'
    away = {"FCNZOO_CACHE": str(tmp_path / "other"), "HF_HOME": str(tmp_path / "other hf")}
    assert client(ENTRY.format(pin=pin) + create, FCNZOO_MIRROR=str(tmp_path / "m"), **away) == "ok True"
    text = client(ENTRY.format(pin=pin) + create, **away)
    assert "FCNZOO_MIRROR is not set" in text and "cannot be reached" in text
    wrong = re.sub(r'sha256="\w{8}', 'sha256="00000000', pin)
    text = client(ENTRY.format(pin=wrong) + create, FCNZOO_MIRROR=str(tmp_path / "m"), **away)
    assert text.startswith("WeightsError") and "model.safetensors: its sha256 is" in text


def test_create_without_weights_fetches_none(hub: Hub, client: Client) -> None:
    """`create("hf-hub:…")` alone builds the network of the config, other classes and all, and fetches no weights."""
    script = """
tiny().push_to_hub("org/net")
model = fcnzoo.create("hf-hub:org/net")
print(same(model, tiny()), model.config == tiny().config, fcnzoo.create("hf-hub:org/net", num_classes=7).num_classes)
"""
    assert client(script) == "False True 7"
    assert not [
        request for request in hub.requests if request.startswith("GET") and "resolve" in request and "model" in request
    ]
    script = """
model = fcnzoo.create("hf-hub:org/net", pretrained=True, num_classes=7)
own, theirs = model.backbone.state_dict(), tiny().backbone.state_dict()
print(model.num_classes, all((own[key] == theirs[key]).all() for key in own))
print(told(lambda: fcnzoo.create("hf-hub:org/net", backbone="timm/resnet18")))
"""
    first, second = client(script).splitlines()
    assert first == "7 True"
    assert second.startswith("ValueError") and "backbone" in second


def test_a_sample_on_the_card(tmp_path: Path, hub: Hub, client: Client) -> None:
    """`--sample` puts a picture with the labels laid over it on the card."""
    script = """
from PIL import Image
Image.new("RGB", (64, 48), (9, 99, 199)).save("photo.png")
sys.argv += ["--sample", "photo.png", "--private", "--revision", "draft"]
"""
    assert 'revision="' in client(script + PUBLISH)
    repo = hub.repos["org/net"]
    files = repo.commits[repo.branches["draft"]]
    assert repo.private
    assert files["sample.jpg"].startswith(b"\xff\xd8")
    assert b"sample.jpg" in files["README.md"]


def test_damaged_weights_are_not_published(hub: Hub, client: Client) -> None:
    """A flipped bit in the folder is found through its recorded digest, and nothing is sent."""
    script = """
from fcnzoo.cli.publish import publish
fcnzoo.save(tiny(), "net")
path = pathlib.Path("net/model.safetensors")
content = bytearray(path.read_bytes())
content[-1] ^= 1
path.write_bytes(content)
print(told(lambda: publish("net", "org/net", None, False, None, None, False)))
"""
    assert client(script).startswith("WeightsError: net/model.safetensors: sha256 is")
    assert hub.requests == []
