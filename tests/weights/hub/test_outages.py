"""What a silent server, a half update, a hostile cache or a Hub without git-lfs can do to `load("hf-hub:…")`."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from weights.hub import server
from weights.hub.conftest import Client
from weights.hub.server import Hub
from weights.hub.test_pull import FILES, WANT, pull, tell

NEWER = {name: content[::-1] for name, content in FILES.items()}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(20)
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for connection in (listener, *held):
        connection.close()


def test_a_silent_server_is_given_up(hub: Hub, client: Client, silent: str) -> None:
    """With nothing cached it is an error in about `FCNZOO_TIMEOUT`; what is cached is loaded, with a warning."""
    hub.add("org/net", FILES)
    start = time.monotonic()
    text = client(tell(), HF_ENDPOINT=silent, FCNZOO_TIMEOUT="1")
    assert time.monotonic() - start < 40  # of which Python's start is the most on a busy machine
    assert text.startswith("WeightsError") and "cannot be reached" in text and "FCNZOO_TIMEOUT" in text
    assert client(pull()).splitlines() == WANT
    warn = "import logging\nlogging.basicConfig(format='%(message)s', stream=sys.stdout)\n"
    lines = client(warn + pull(), HF_ENDPOINT=silent, FCNZOO_TIMEOUT="1").splitlines()
    assert lines[-2:] == WANT and "taken from the cache" in lines[0]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_half_update_leaves_the_old_commit(hub: Hub, client: Client, name: str) -> None:
    """A new commit of which a file cannot be fetched: the commit before is loaded, now and offline, until it can."""
    hub.add("org/net", FILES)
    assert client(pull()).splitlines() == WANT
    hub.add("org/net", NEWER)
    hub.fail("GET", f"resolve/.*/{re.escape(name)}", status=500, times=1000)
    hub.fail("HEAD", f"resolve/.*/{re.escape(name)}", status=500, times=1000)
    assert client(pull()).splitlines()[-2:] == WANT
    assert client(pull(), HF_HUB_OFFLINE="1").splitlines() == WANT
    hub.faults.clear()
    new = [hashlib.sha256(content).hexdigest() for content in NEWER.values()]
    assert client(pull()).splitlines() == new
    assert client(pull(), HF_HUB_OFFLINE="1").splitlines() == new


def test_a_config_alone_does_not_move_a_revision(hub: Hub, client: Client) -> None:
    """After a look at a newer config, the weights of the commit before still load offline."""
    hub.add("org/net", FILES)
    client(pull())
    hub.add("org/net", NEWER)
    client("hub.pull('hf-hub:org/net', files=['config.json'])")
    assert client(pull(), HF_HUB_OFFLINE="1").splitlines() == WANT


def test_a_cache_of_ours_that_cannot_be_written(hub: Hub, client: Client) -> None:
    """A network in the client's cache loads although nothing can be noted about it, online as with its commit."""
    commit = hub.add("org/net", FILES)
    for source in ("hf-hub:org/net", f"hf-hub:org/net@{commit}"):
        assert client(pull(source), FCNZOO_CACHE="/dev/null").splitlines()[-2:] == WANT


def test_files_outside_the_cache_are_never_deleted(tmp_path: Path, hub: Hub, client: Client) -> None:
    """A link in the cache that leads to a file of the user's is replaced; the file stays."""
    hub.add("org/net", FILES)
    client(pull())
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    link = next((tmp_path / "hf").rglob("snapshots/*/model.safetensors"))
    link.unlink()
    link.symlink_to(mine)
    assert client(pull()).splitlines() == WANT
    assert mine.read_bytes() == b"mine"


def test_the_pin_holds_outside_git_lfs(hub: Hub, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the Hub has only git's own id for the weights, the registry's sha256 is still what they must hash to."""
    monkeypatch.setattr(server, "lfs", lambda path: False)
    hub.add("org/net", FILES)
    sha256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert client(pull(options=f", sha256={sha256!r}")).splitlines() == WANT
    text = client(tell(options=f", sha256={'0' * 64!r}"))
    assert text.startswith("WeightsError") and sha256 in text and "0" * 64 in text


def test_a_long_config_is_not_fetched(hub: Hub, client: Client) -> None:
    """The listing tells its size: nothing of it is downloaded."""
    hub.add("org/net", {**FILES, "config.json": b" " * (9 * 2**20)})
    text = client(tell())
    assert "config.json is longer than" in text
    assert not any(request.startswith("GET") and "config.json" in request for request in hub.requests)


def test_what_killed_downloads_left_is_deleted(tmp_path: Path, hub: Hub, client: Client) -> None:
    """Parts of a file that a killed process had begun go with the next load of it; other files' parts stay."""
    hub.add("org/net", FILES)
    client(pull())
    blob = next((tmp_path / "hf").rglob("snapshots/*/model.safetensors")).resolve()
    mine, other = blob.with_name(f"{blob.name}.0a1b2c3d.incomplete"), blob.with_name("0123.incomplete")
    for path in (mine, other):
        path.write_bytes(b"half")
    assert client(pull()).splitlines() == WANT
    assert not mine.exists() and other.exists()
