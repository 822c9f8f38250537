"""A Hub, and a client in a process of its own: the client reads its settings when it is imported."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from weights.hub.server import OWNER, Hub

ROOT = Path(__file__).parents[3]

Client = Callable[..., str]


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A Hub without repositories."""
    with Hub() as server:
        yield server


def run_client(tmp_path: Path, hub: Hub, script: str, *, token: str | None = OWNER, **environment: str) -> str:
    """Run Python against a Hub, and return what it prints; where it raises a FCNZooError, its text."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:fcnzoo", "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # a busy machine is no failure
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            # A folder with another version of the client may be put first, to test against it.
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("FCNZOO_TEST_CLIENT"), str(ROOT)])),
            "OMP_NUM_THREADS": "1",
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "FCNZOO_CACHE": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
            **({"HF_TOKEN": token} if token else {}),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


PRELUDE = """
import hashlib, pathlib, sys
import fcnzoo
from fcnzoo.weights import hub
hub.PAUSES = (0.01, 0.01)

def tiny(kind="fcn32s", seed=0):
    import torch
    from fcnzoo.config import BackboneConfig, DilatedHeadConfig, FCNConfig, SkipHeadConfig
    head = {
        "fcn32s": SkipHeadConfig(stride=32),
        "fcn8s": SkipHeadConfig(stride=8, hidden_channels=4, detail=(4,), subpixel=2),
        "deconv": SkipHeadConfig(stride=32, upsampling="deconv_depthwise"),
        "fcn": DilatedHeadConfig(hidden_channels=4, num_convs=2, concat_input=True),
    }[kind]
    aux = DilatedHeadConfig(hidden_channels=4) if kind == "fcn" else None
    stride = 8 if kind == "fcn" else None
    torch.manual_seed(seed)
    backbone = BackboneConfig("timm/test_resnet", output_stride=stride)
    model = fcnzoo.build(FCNConfig(backbone, head, aux_head=aux, num_classes=3))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()

def same(one, other):
    import torch
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)

def told(call):
    try:
        return "ok " + str(call())
    except (fcnzoo.errors.FCNZooError, ValueError) as error:
        return type(error).__name__ + ": " + str(error)
"""


@pytest.fixture
def client(tmp_path: Path, hub: Hub) -> Client:
    """Run scripts against `hub`, all with one cache: `client(script, token=…, HF_HUB_OFFLINE="1")`."""
    return functools.partial(run_client, tmp_path, hub)
