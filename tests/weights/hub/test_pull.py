"""`load("hf-hub:…")`: damage, broken connections, no connection, and everything the Hub may refuse."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from weights.hub.conftest import Client
from weights.hub.server import READER, Hub

FILES = {"config.json": b'{"a": 1}\n', "model.safetensors": bytes(range(256)) * 2000}
SHA256 = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
PULL = """
folder = hub.pull({source!r}{options})
for name in ("config.json", "model.safetensors"):
    print(hashlib.sha256((folder / name).read_bytes()).hexdigest())
"""
WANT = [hashlib.sha256(content).hexdigest() for content in FILES.values()]
TELL = "print(told(lambda: hub.pull('{source}'{options})))"


def pull(source: str = "hf-hub:org/net", options: str = "") -> str:
    """A script that pulls and prints what came."""
    return PULL.format(source=source, options=options)


def tell(source: str = "hf-hub:org/net", options: str = "") -> str:
    """A script that pulls and prints the error."""
    return TELL.format(source=source, options=options)


def cached(tmp_path: Path, size: int = len(FILES["model.safetensors"])) -> list[Path]:
    """Files of the client's cache that are as long as the weights."""
    return [path for path in (tmp_path / "hf").rglob("*") if path.is_file() and path.stat().st_size == size]


def test_offline_after_one_load(hub: Hub, client: Client) -> None:
    """After one load the same call works with `HF_HUB_OFFLINE`, and with the server down; a commit costs no request."""
    commit = hub.add("org/net", FILES)
    assert client(pull()).splitlines() == WANT
    before = len(hub.requests)
    assert client(pull(f"hf-hub:org/net@{commit}")).splitlines() == WANT
    assert client(pull(), HF_HUB_OFFLINE="1").splitlines() == WANT
    assert len(hub.requests) == before
    hub.stop()
    assert client(pull()).splitlines() == WANT


def test_all_files_are_of_one_commit(hub: Hub, client: Client) -> None:
    """A push between the two files of a load does not mix them; the next load sees the new commit."""
    hub.add("org/net", FILES)
    newer = {name: content[::-1] for name, content in FILES.items()}
    script = """
from huggingface_hub import hf_hub_download
import huggingface_hub, urllib.request
def slow(*arguments, **options):
    print(arguments[1], len(options["revision"]))
    return hf_hub_download(*arguments, **options)
huggingface_hub.hf_hub_download = slow
"""
    lines = client(script + pull()).splitlines()
    assert lines == ["config.json 40", "model.safetensors 40", *WANT]
    hub.add("org/net", newer)
    assert client(pull()).splitlines() == [hashlib.sha256(content).hexdigest() for content in newer.values()]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_is_healed_by_one_retry(hub: Hub, client: Client, name: str) -> None:
    """A body that is corrupted once, at the right length, is fetched again."""
    hub.add("org/net", FILES)
    hub.fail("GET", f"resolve/.*/{name}", corrupt=True, times=1)
    assert client(pull()).splitlines() == WANT
    assert sum(request.startswith("GET") and request.endswith(name) for request in hub.requests) == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damage_that_stays_is_an_error(tmp_path: Path, hub: Hub, client: Client, name: str) -> None:
    """Corrupted twice: an error that names file and digests, and nothing in the cache, online or offline."""
    hub.add("org/net", FILES)
    hub.fail("GET", f"resolve/.*/{name}", corrupt=True, times=2)
    text = client(tell())
    assert text.startswith("WeightsError: hf-hub:org/net@") and name in text and "fetched again" in text
    assert cached(tmp_path, len(FILES[name])) == []
    assert "WeightsError" in client(tell(), HF_HUB_OFFLINE="1")
    assert client(pull()).splitlines() == WANT  # and it heals by itself once the server is well


def test_damage_in_the_cache(tmp_path: Path, hub: Hub, client: Client) -> None:
    """A cached file that changed is fetched again; offline it is an error and deleted."""
    hub.add("org/net", FILES)
    client(pull())
    for path in cached(tmp_path):
        path.write_bytes(b"\0" * path.stat().st_size)
    assert client(pull()).splitlines() == WANT
    for path in cached(tmp_path):
        path.write_bytes(b"\0" * path.stat().st_size)
    text = client(tell(), HF_HUB_OFFLINE="1")
    assert text.startswith("WeightsError") and "deleted from the cache" in text
    assert cached(tmp_path) == []


def test_a_checked_file_is_not_hashed_again(hub: Hub, client: Client) -> None:
    """The second load hashes nothing."""
    hub.add("org/net", FILES)
    client(pull())
    script = "from fcnzoo.files import digests\ndigests._hash = None\n"
    assert client(script + pull()).splitlines() == WANT


def test_the_pin_of_the_registry(hub: Hub, client: Client) -> None:
    """The right pin loads; another one is an error before anything is downloaded."""
    hub.add("org/net", FILES)
    assert client(pull(options=f", sha256={SHA256!r}")).splitlines() == WANT
    text = client(tell(options=f", sha256={'0' * 64!r}, files=['model.safetensors']"), FCNZOO_CACHE="other")
    assert text.startswith("WeightsError") and SHA256 in text and "0" * 64 in text


def test_a_cut_connection_recovers(hub: Hub, client: Client) -> None:
    """A body that ends early is continued or fetched again."""
    hub.add("org/net", FILES)
    hub.fail("GET", "resolve/.*model.safetensors", cut=True, times=1)
    assert client(pull()).splitlines() == WANT


def test_a_busy_server_recovers(hub: Hub, client: Client) -> None:
    """Two answers of 503 to the question for the commit are waited out."""
    hub.add("org/net", FILES)
    hub.fail("GET", "api/models", status=503, times=2)
    assert client(pull()).splitlines() == WANT


def test_refusals(hub: Hub, client: Client) -> None:
    """Missing, private, gated, no such revision, no weights, a wrong token: one line each that says what to do."""
    hub.add("org/net", FILES)
    hub.add("org/private", FILES, private=True)
    hub.add("org/gated", FILES, gated=True)
    hub.add("org/empty", {"README.md": b"hello"})
    for source, token, words in (
        ("org/missing", READER, ("no such repository", "spelling")),
        ("org/private", None, ("private", "hf auth login")),
        ("org/private", READER, ("private", "hf auth login")),
        ("org/gated", READER, ("gated", "accept its terms", f"{hub.endpoint}/org/gated")),
        ("org/net@nowhere", None, ("no such revision", "@nowhere")),
        ("org/empty", None, ("config.json", "push_to_hub")),
        ("org/net", "hf_wrong", ("token was refused", "hf auth login")),
    ):
        text = client(tell(f"hf-hub:{source}"), token=token)
        assert text.startswith("WeightsError: hf-hub:org/") and len(text.splitlines()) == 1, text
        assert all(word in text for word in words), text


@pytest.mark.parametrize(("status", "words"), [(429, "limits the rate"), (500, "answered 500"), (503, "answered 503")])
def test_a_server_that_cannot(hub: Hub, client: Client, status: int, words: str) -> None:
    """A rate limit and a broken server are an error for who has nothing in the cache, and none for who has."""
    hub.add("org/net", FILES)
    hub.fail("GET", "api/models", status=status, times=3)
    text = client(tell())
    assert text.startswith("WeightsError: hf-hub:org/net: ") and words in text
    hub.faults.clear()
    client(pull())
    hub.fail("GET", "api/models", status=status, times=3)
    assert client(pull()).splitlines() == WANT


def test_no_connection(hub: Hub, client: Client) -> None:
    """With nothing cached, no server and offline mode are errors that name the ways out."""
    hub.stop()
    text = client(tell())
    assert text.startswith("WeightsError") and "cannot be reached" in text and "FCNZOO_MIRROR" in text
    text = client(tell(), HF_HUB_OFFLINE="1")
    assert text.startswith("WeightsError") and "HF_HUB_OFFLINE" in text and "FCNZOO_MIRROR" in text


def test_addresses_that_are_none(client: Client) -> None:
    """What is no `org/name` is a ValueError that shows how to write one; nothing is asked of any server."""
    sources = [
        "hf-hub:net",
        "hf-hub:",
        "hf-hub:a/b/c",
        "hf-hub:../x",
        "hf-hub:org/..",
        "hf-hub:org/net@",
        "hf-hub:o r/g",
    ]
    for line in client("\n".join(tell(source) for source in sources)).splitlines():
        assert line.startswith("ValueError") and "hf-hub:org/name" in line


def test_a_cache_that_cannot_be_written(tmp_path: Path, hub: Hub, client: Client) -> None:
    """A fault of the disk is told as one, at once, and not as a missing connection."""
    hub.add("org/net", FILES)
    (tmp_path / "file").write_text("in the way")
    text = client(tell(), HF_HOME=str(tmp_path / "file"))
    assert text.startswith("WeightsError: hf-hub:org/net") and "cache cannot be used" in text and "HF_HOME" in text


def test_offline_from_a_cache_that_another_endpoint_filled(hub: Hub, client: Client) -> None:
    """What came through a mirror of the Hub is found offline without it, and when the Hub cannot be reached."""
    hub.add("org/net", FILES)
    assert client(pull()).splitlines() == WANT
    other = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert client(pull(), HF_HUB_OFFLINE="1", **other).splitlines() == WANT
    assert client(pull(), **other).splitlines() == WANT
