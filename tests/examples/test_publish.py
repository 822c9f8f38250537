"""examples/publish.py, with the real client, against a Hub of our own."""

from __future__ import annotations

import shutil
from pathlib import Path

from examples.conftest import FOLDER
from weights.hub.conftest import Client, client, hub  # noqa: F401 - fixtures
from weights.hub.server import OWNER, READER, Hub

SCRIPT = f"""
import os, runpy
model = tiny()
fcnzoo.save(model, "net")

def publish():
    sys.argv = ["publish.py", "net", "me/net", "--license", "cc0-1.0", "--datasets", "noise", "--sample", "street.jpg"]
    runpy.run_path({str(FOLDER / "publish.py")!r}, run_name="__main__")

print(told(publish))
print(told(lambda: fcnzoo.load("hf-hub:me/net")))
os.environ["HF_TOKEN"] = {OWNER!r}
publish()
print(same(fcnzoo.load("hf-hub:me/net"), model))
"""


def test_what_is_published_loads_again(hub: Hub, client: Client, tmp_path: Path) -> None:  # noqa: F811
    """One commit holds weights, config, card and sample; the printed address is that commit; the weights are equal.

    Before that, with a token that may only read, nothing is published, and the error says so.
    """
    shutil.copy(FOLDER / "street.jpg", tmp_path)
    refused, missing, published, equal = client(SCRIPT, token=READER).splitlines()
    assert refused.startswith("WeightsError: ") and "me/net" in refused
    assert missing.startswith("WeightsError: ")
    repo = hub.repos["me/net"]
    commit = repo.branches["main"]
    assert published == f"published: fcnzoo.load('hf-hub:me/net@{commit}')"
    assert equal == "True"
    files = repo.commits[commit]
    assert {"README.md", "config.json", "model.safetensors", "sample.jpg"} <= set(files)
    assert b"license: cc0-1.0" in files["README.md"] and b"noise" in files["README.md"]
