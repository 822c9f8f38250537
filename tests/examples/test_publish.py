"""examples/publish.py, with the real client, against a Hub of our own."""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.conftest import FOLDER
from hub.conftest import Client, client, hub  # noqa: F401 - fixtures
from hub.server import READER, Hub

SCRIPT = f"""
import runpy
model = tiny()
fcnzoo.save(model, "net")

def publish(*options):
    sys.argv = ["publish.py", "net", "me/net", *options]
    runpy.run_path({str(FOLDER / "publish.py")!r}, run_name="__main__")
"""


def test_what_is_published_loads_again(hub: Hub, client: Client, tmp_path: Path) -> None:  # noqa: F811
    """One commit holds weights, config, card and sample; the printed address is that commit; the weights are equal."""
    shutil.copy(FOLDER / "street.jpg", tmp_path)
    script = """
publish("--license", "cc0-1.0", "--datasets", "noise", "--sample", "street.jpg")
print(same(fcnzoo.load("hf-hub:me/net"), model))
"""
    published, equal = client(SCRIPT + script).splitlines()
    repo = hub.repos["me/net"]
    commit = repo.branches["main"]
    assert published == f"published: fcnzoo.load('hf-hub:me/net@{commit}')"
    assert equal == "True"
    files = repo.commits[commit]
    assert {"README.md", "config.json", "model.safetensors", "sample.jpg"} <= set(files)
    assert b"license: cc0-1.0" in files["README.md"] and b"noise" in files["README.md"]


def test_without_the_right_to_write_nothing_is_published(hub: Hub, client: Client) -> None:  # noqa: F811
    """A token that may only read: the error says so, and there is no repository."""
    assert client(SCRIPT + "print(told(publish))", token=READER).startswith("WeightsError: ")
    assert not hub.repos
