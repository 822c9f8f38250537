"""`push_to_hub`, with the real client, against a server of our own."""

from __future__ import annotations

import pytest
from weights.hub.conftest import Client
from weights.hub.server import READER, Hub

ROUND_TRIP = """
for kind in ("fcn32s", "fcn8s", "deconv", "fcn"):
    model = tiny(kind)
    commit = model.push_to_hub(f"org/{kind}", license="cc0-1.0", datasets=["noise"])
    print(kind, len(commit))
    for source in (f"hf-hub:org/{kind}", f"hf-hub:org/{kind}@{commit}"):
        loaded = fcnzoo.load(source)
        print(same(model, loaded), loaded.config == model.config, loaded.training)
    created = fcnzoo.create(f"hf-hub:org/{kind}", pretrained=True)
    print(same(model, created), created.training)
"""


def test_round_trip(hub: Hub, client: Client) -> None:
    """What is pushed comes back to the bit, for every head, by branch and by commit, through `load` and `create`."""
    want = [
        line
        for kind in ("fcn32s", "fcn8s", "deconv", "fcn")
        for line in (f"{kind} 40", "True True False", "True True False", "True False")
    ]
    assert client(ROUND_TRIP).splitlines() == want
    assert sorted(hub.repos) == ["org/deconv", "org/fcn", "org/fcn32s", "org/fcn8s"]
    repo = hub.repos["org/fcn"]
    assert len(repo.commits) == 2  # the Hub's own first one, and one with all files
    files = repo.commits[repo.branches["main"]]
    assert sorted(files) == [".gitattributes", "README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert card.startswith("---\n") and "library_name: fcnzoo" in card and "license: cc0-1.0" in card
    assert 'datasets:\n- "noise"\n' in card or "datasets:\n- noise\n" in card


def test_pushing_again(hub: Hub, client: Client) -> None:
    """The same network again makes no commit and returns the last; a changed one makes one; the card stays."""
    script = """
model = tiny()
first = fcnzoo.push_to_hub(model, "org/net")
print(fcnzoo.push_to_hub(model, "org/net") == first)
other = tiny(seed=1)
second = fcnzoo.push_to_hub(other, "org/net", commit_message="better", license="mit")
print(second == first, same(fcnzoo.load("hf-hub:org/net"), other), same(fcnzoo.load(f"hf-hub:org/net@{first}"), model))
fcnzoo.push_to_hub(other, "org/net", license="mit", overwrite_card=True)
"""
    assert client(script).splitlines() == ["True", "False True True"]
    cards = [files.get("README.md", b"") for files in hub.repos["org/net"].commits.values()]
    assert len(cards) == 4
    assert cards[1] == cards[2] and b"license: mit" not in cards[2] and b"license: mit" in cards[3]


def test_private_and_branch(hub: Hub, client: Client) -> None:
    """`private` makes a private repository, `revision` a branch beside the untouched main one."""
    script = """
model = tiny()
fcnzoo.push_to_hub(model, "org/mine", private=True, revision="half")
print(same(fcnzoo.load("hf-hub:org/mine@half"), model))
print(told(lambda: fcnzoo.load("hf-hub:org/mine")))
"""
    first, second = client(script).splitlines()
    assert first == "True"
    assert second.startswith("WeightsError") and "config.json" in second
    repo = hub.repos["org/mine"]
    assert repo.private
    assert sorted(repo.branches) == ["half", "main"]
    assert list(repo.commits[repo.branches["main"]]) == [".gitattributes"]


@pytest.mark.parametrize(
    ("token", "words"),
    [(None, "hf auth login"), (READER, "write permission"), ("hf_wrong", "token was refused")],
)
def test_pushing_without_leave(client: Client, token: str | None, words: str) -> None:
    """Without a token, with one that may only read, and with a wrong one: one error that says what to do."""
    text = client('print(told(lambda: fcnzoo.push_to_hub(tiny(), "org/net")))', token=token)
    assert text.startswith("WeightsError: hf-hub:org/net: ") and words in text
    assert len(text.splitlines()) == 1


def test_nothing_bad_is_sent(hub: Hub, client: Client) -> None:
    """NaN weights, a name that cannot be, and a server that fails: typed errors, and no commit."""
    script = """
import torch
model = tiny()
torch.nn.init.constant_(next(model.parameters()), float("nan"))
print(told(lambda: fcnzoo.push_to_hub(model, "org/net")))
print(told(lambda: fcnzoo.push_to_hub(tiny(), "a b/../c")))
"""
    first, second = client(script).splitlines()
    assert first.startswith("WeightsError") and "NaN" in first
    assert second.startswith("ValueError") and "org/name" in second
    assert hub.requests == []


def test_a_server_that_changes_the_weights_is_found_out(hub: Hub, client: Client) -> None:
    """If the Hub has other weights after the commit than those that were sent, the push says so."""
    script = """
import huggingface_hub
answer = huggingface_hub.HfApi.model_info
def wrong(*arguments, **options):
    info = answer(*arguments, **options)
    for file in info.siblings:
        if file.lfs is not None:
            file.lfs.sha256 = "0" * 64
    return info
huggingface_hub.HfApi.model_info = wrong
print(told(lambda: fcnzoo.push_to_hub(tiny(), "org/net")))
"""
    text = client(script)
    assert text.startswith("WeightsError") and "model.safetensors is not the one that was sent" in text


def test_private_is_not_forgotten(hub: Hub, client: Client) -> None:
    """`private=True` for a repository that is public already is refused before anything is sent."""
    hub.add("org/open", {"README.md": b"hello"})
    text = client('print(told(lambda: fcnzoo.push_to_hub(tiny(), "org/open", private=True)))')
    assert text.startswith("WeightsError: hf-hub:org/open: it is public already")
    assert not [request for request in hub.requests if "/commit/" in request or "/lfs/" in request]


def test_the_digest_of_weights_outside_git_lfs(hub: Hub, client: Client) -> None:
    """Where the Hub knows git's id only, the pin is the sha256 all the same."""
    script = """
from fcnzoo.weights import push
commit = push.push_to_hub(tiny(), "org/net")
want = push.digest_of_weights("org/net", commit)
answer = push.list_files
def plain(*arguments):
    listing = answer(*arguments)
    return listing._replace(files=listing.files | {"model.safetensors": hub.Digest("git", "0" * 40)})
push.list_files = plain
print(push.digest_of_weights("org/net", commit) == want, len(want))
"""
    assert client(script) == "True 64"
