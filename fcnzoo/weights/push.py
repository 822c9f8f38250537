"""Networks to the Hugging Face Hub: `push_to_hub`."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.digests import Digest, hash_file
from fcnzoo.files.parts import part_folder
from fcnzoo.version import __version__
from fcnzoo.weights.folder import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from fcnzoo.weights.hub import PREFIX, Address, call_hub, digests_of_listing, list_files, pull

if TYPE_CHECKING:
    from PIL import Image

    from fcnzoo.config.spec import Metric
    from fcnzoo.model.fcn import FCN

SAMPLE_FILE = "sample.jpg"

logger = logging.getLogger(__name__)


def push_to_hub(
    model: FCN,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    license: str | None = None,
    datasets: Iterable[str] = (),
    metrics: Iterable[Metric] = (),
    provenance: Mapping[str, Any] | None = None,
    sample: Image.Image | None = None,
    overwrite_card: bool = False,
) -> str:
    """Put a network on the Hub: weights, config and card in one commit.

    It is saved to a temporary folder, loaded from there and compared before anything is sent, and the
    digests the Hub then has are compared with ours.

    Args:
        model: The network.
        repo_id: `"org/name"`; made if it is missing.
        private: Whether a new repository is; by default as the account is set. `True` is refused for one that is
            public already.
        revision: Branch to commit to; made if it is missing. By default the main one.
        commit_message: By default it says which fcnzoo wrote it.
        token: With write permission; by default the one you are logged in with.
        license: For the card, as you give it; none is ever invented.
        datasets: Names of the data sets it was trained on, for the card.
        metrics: What it reaches, for `config.json` and the card.
        provenance: See `fcnzoo.save`.
        sample: A picture for a new card, such as `Predictor(model)("photo.jpg").overlay()`.
        overwrite_card: Replace a README that is there already.

    Returns:
        The commit, 40 hex digits. Where nothing changed that is the one before: no empty commit is made.

    Raises:
        WeightsError: A weight is NaN or infinite, or the Hub refuses (the text says why and what to do).
        ValueError: `repo_id` or `revision` cannot be one.
    """
    from fcnzoo.model.evaluating import uncompiled
    from fcnzoo.weights.load import load
    from fcnzoo.weights.save import save

    Address.parse(f"{PREFIX}{repo_id}{f'@{revision}' if revision else ''}")
    model = cast("FCN", uncompiled(model))  # of another kind `save` says so
    with part_folder(Path(tempfile.gettempdir()), "fcnzoo-push-") as temporary:
        folder = save(model, temporary, metrics=metrics, datasets=datasets, provenance=provenance, license=license)
        _compare(model, load(folder))
        _write_card(folder, repo_id, sample)
        message = commit_message or f"Written by fcnzoo {__version__}"
        send = lambda: _upload(folder, repo_id, private, revision, message, token, overwrite_card)  # noqa: E731
        return call_hub(send, repo_id, revision, "write")


def digest_of_weights(repo_id: str, commit: str) -> str:
    """Return the sha256 that the Hub has for the weights of a commit: the pin for the registry.

    Raises:
        WeightsError: The Hub does not tell.
    """
    digest = list_files(repo_id, commit).files[WEIGHTS_FILE]
    if digest.kind == "sha256":
        return digest.value
    # A repository may keep small files outside git-lfs, where the Hub knows git's own id only.
    return hash_file(pull(f"{PREFIX}{repo_id}@{commit}") / WEIGHTS_FILE)


def _compare(model: FCN, loaded: FCN) -> None:
    """Raise unless a network came back from its file exactly."""
    import torch

    copies = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name not in copies or not torch.equal(tensor.detach().cpu().to(copies[name].dtype), copies[name].cpu()):
            raise WeightsError(f"{name} is not the same after saving and loading; nothing was sent. Please report this")


def _write_card(folder: Path, repo_id: str, sample: Image.Image | None) -> None:
    """Write the card anew: its snippet loads from the Hub, and a sample shows what the network makes of it."""
    from fcnzoo.weights.card import render
    from fcnzoo.weights.folder import read_record

    if sample is not None:
        sample.convert("RGB").save(folder / SAMPLE_FILE)
    record = read_record(folder)
    text = render(record, source=f"{PREFIX}{repo_id}", picture=SAMPLE_FILE if sample is not None else None)
    with atomic(folder / CARD_FILE, "w") as file:
        file.write(text)


def _upload(
    folder: Path, repo_id: str, private: bool | None, revision: str | None, message: str, token: str | None, card: bool
) -> str:
    """Send a folder in one commit, and make sure that the Hub has what we have."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    if revision is not None and revision != "main":
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    before = api.model_info(repo_id, revision=revision)
    if private and not before.private:
        raise WeightsError(
            f"{PREFIX}{repo_id}: it is public already, and private=True was asked for; nothing was sent. "
            "Make it private in its settings, or choose another name"
        )
    names = [WEIGHTS_FILE, CONFIG_FILE]
    if card or CARD_FILE not in {file.rfilename for file in before.siblings or ()}:
        names += [name for name in (CARD_FILE, SAMPLE_FILE) if (folder / name).is_file()]
    else:
        logger.warning("%s%s: its %s stays as it is; overwrite_card=True replaces it", PREFIX, repo_id, CARD_FILE)
    with _quiet():
        info = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message, allow_patterns=names
        )
    there = digests_of_listing(api.model_info(repo_id, revision=info.oid, files_metadata=True).siblings or ())
    for name in names:
        ours = there.get(name, Digest("sha256", ""))
        if ours.mismatch(folder / name) is not None:
            raise WeightsError(
                f"{PREFIX}{repo_id}@{info.oid}: the Hub's {name} is not the one that was sent; try again"
            )
    return info.oid


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client from warning that nothing changed: the returned commit says so."""
    client = logging.getLogger("huggingface_hub.hf_api")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
