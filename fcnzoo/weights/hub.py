"""Networks from the Hugging Face Hub: what `load("hf-hub:…")` stands on.

The Hub's client does not look at what a downloaded file holds. Here every file is compared with the digest
the Hub (or our registry) has for it, and one commit is meant from the first request to the last.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote

from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.digests import Digest, cache_folder, wrong_digest
from fcnzoo.weights.folder import CONFIG_FILE, WEIGHTS_FILE
from fcnzoo.weights.hub_errors import explain, hub_failures, status_of, unreachable

PREFIX = "hf-hub:"
PAUSES = (0.5, 2.0)
"""Seconds to wait before the second and the third try."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Address(NamedTuple):
    """Where a network lies: `hf-hub:<repo_id>[@<revision>]`."""

    repo_id: str
    revision: str | None

    @classmethod
    def parse(cls, source: str) -> Address:
        """Read an address.

        Raises:
            ValueError: It is none.
        """
        found = re.fullmatch(rf"{PREFIX}([\w.-]+/[\w.-]+)(?:@(\S+))?", source)
        if found is None or ".." in found[1] + (found[2] or ""):
            raise ValueError(f"{source!r} is no address on the Hub; write hf-hub:org/name or hf-hub:org/name@revision")
        return cls(found[1], found[2])


class Listing(NamedTuple):
    """What a repository holds at one commit."""

    commit: str
    files: dict[str, Digest]


def pull(
    source: str,
    *,
    sha256: str | None = None,
    token: str | None = None,
    files: Iterable[str] = (CONFIG_FILE, WEIGHTS_FILE),
) -> Path:
    """Fetch a network from the Hub into the client's cache, and check every byte.

    The revision is resolved to a commit once. What was fetched before costs no download, and, where the
    revision is a commit's full id, no request; if the Hub cannot be reached, the commit that the revision
    meant last time is used.

    Args:
        source: `"hf-hub:org/name"` or `"hf-hub:org/name@revision"`: a branch, a tag or a commit.
        sha256: What the weights must hash to; by default what the Hub says.
        token: For what is private or gated; by default the one you are logged in with.
        files: Which files.

    Returns:
        The folder, for `fcnzoo.load`.

    Raises:
        WeightsError: It cannot be had (the text says why and what to do), or a file is damaged there.
        ValueError: `source` is no address.
    """
    repo_id, revision = Address.parse(source)
    listing = list_files(repo_id, revision, token)
    path = Path()
    for name in files:
        digest = listing.files.get(name)
        if digest is None:
            raise WeightsError(f"{source}: it has no {name}; give a repository that fcnzoo.push_to_hub wrote")
        if sha256 is not None and name == WEIGHTS_FILE:
            pin = Digest("sha256", sha256)
            if digest.kind == "sha256" and digest != pin:
                raise WeightsError(f"{source}: the Hub's {name} has {digest}, the registry pins {pin}; not loaded")
            digest = pin
        path = _fetch(repo_id, listing.commit, name, digest, token)
    return path.parent


def _fetch(repo_id: str, commit: str, name: str, digest: Digest, token: str | None) -> Path:
    """Return a file of the client's cache whose content is right; one that is not is fetched once more."""
    from huggingface_hub import constants, hf_hub_download

    offline = bool(constants.HF_HUB_OFFLINE)
    found = ""
    for force in (False,) if offline else (False, True):
        path = Path(
            call_hub(
                lambda force=force: hf_hub_download(repo_id, name, revision=commit, token=token, force_download=force),
                repo_id,
                commit,
            )
        )
        found = wrong_digest(path, digest)
        if found is None:
            return path
        # Nothing damaged stays where a later call, ours or another program's, would find it.
        for stale in {path.resolve(), path}:
            stale.unlink(missing_ok=True)
    raise WeightsError(
        f"{PREFIX}{repo_id}@{commit}: {name} has {digest.kind} {found}, not {digest.value}"
        f"{'' if offline else ', also when fetched again'}; it was deleted from the cache. "
        "Try again later or over another network; if it stays so, the file is damaged on the Hub: tell its owner"
    )


def list_files(repo_id: str, revision: str | None, token: str | None = None) -> Listing:
    """Find out which commit a revision means and what its files must hash to.

    Raises:
        WeightsError: The Hub does not tell, and has not before.
    """
    from huggingface_hub import HfApi, constants

    known = _Memory(repo_id)
    if re.fullmatch(r"[0-9a-f]{40}", revision or "") or constants.HF_HUB_OFFLINE:
        remembered = known.read(revision, anywhere=bool(constants.HF_HUB_OFFLINE))
        if remembered is not None:
            return remembered
    api = HfApi(token=token)
    try:
        info = _retry(lambda: api.model_info(repo_id, revision=revision, files_metadata=True))
    except hub_failures() as error:
        remembered = known.read(revision, anywhere=True) if unreachable(error) else None
        if remembered is None:
            raise explain(error, repo_id, revision, "read") from None
        logger.warning("the Hub cannot be reached; %s at %s is taken from the cache", repo_id, remembered.commit)
        return remembered
    listing = Listing(info.sha or "", digests_of_listing(info.siblings or ()))
    if not re.fullmatch(r"[0-9a-f]{40}", listing.commit):
        raise WeightsError(f"{PREFIX}{repo_id}: the Hub gave no commit for {revision or 'the default branch'}")
    known.write(revision, listing)
    return listing


def digests_of_listing(siblings: Iterable[Any]) -> dict[str, Digest]:
    """Read the digest of each file: sha256 where it is in git-lfs, git's own id elsewhere."""
    found = {}
    for file in siblings:
        if file.lfs is not None:
            found[file.rfilename] = Digest("sha256", file.lfs.sha256)
        elif file.blob_id is not None:
            found[file.rfilename] = Digest("git", file.blob_id)
    return found


class _Memory:
    """What the Hub said about a repository, kept in fcnzoo's cache for when it cannot be asked."""

    def __init__(self, repo_id: str) -> None:
        from huggingface_hub import constants

        server = re.sub(r"\W+", "_", constants.ENDPOINT.partition("://")[2])
        self.folder = cache_folder() / "hub" / server / repo_id.replace("/", "--")

    def _ref(self, revision: str | None) -> Path:
        return self.folder / "refs" / quote(revision or "main", safe="")

    def read(self, revision: str | None, *, anywhere: bool = False) -> Listing | None:
        """Return what was last known of a revision; with `anywhere`, also from another server (`HF_ENDPOINT`)."""
        folders = [self.folder]
        if anywhere:
            others = (folder / self.folder.name for folder in self.folder.parents[1].glob("*") if folder.is_dir())
            folders += sorted((folder for folder in others if folder.is_dir()), key=_age)
        for folder in folders:
            try:
                commit = (folder / self._ref(revision).relative_to(self.folder)).read_text(encoding="utf-8")
                files = json.loads((folder / f"{commit}.json").read_text(encoding="utf-8"))
                return Listing(commit, {name: Digest(*digest) for name, digest in files.items()})
            except (OSError, ValueError, TypeError, AttributeError):
                continue
        return None

    def write(self, revision: str | None, listing: Listing) -> None:
        """Keep what a revision means now."""
        try:
            with atomic(self.folder / f"{listing.commit}.json", "w") as file:
                json.dump(listing.files, file)
            for name in {revision, listing.commit}:
                with atomic(self._ref(name), "w") as file:
                    file.write(listing.commit)
        except OSError as error:
            logger.warning("%s cannot be written (%s): loading offline will not work", self.folder, error)


def _age(folder: Path) -> float:
    return -folder.stat().st_mtime


def _retry(call: Callable[[], T]) -> T:
    """Call the client; where the connection or the server fails, a second and a third time."""
    for pause in PAUSES:
        try:
            return call()
        except hub_failures() as error:
            if not unreachable(error) or status_of(error) == 429 or _offline(error):
                raise
            logger.info("the Hub failed (%s); trying again in %s s", error, pause)
            time.sleep(pause)
    return call()


def _offline(error: BaseException | None) -> bool:
    """Whether there is no connection at all, so that waiting some seconds is of no use."""
    from huggingface_hub import constants

    while error is not None and not isinstance(error, ConnectionRefusedError | socket.gaierror):
        error = error.__cause__ or error.__context__
    return bool(constants.HF_HUB_OFFLINE) or error is not None


def call_hub(call: Callable[[], T], repo_id: str, revision: str | None, doing: Literal["read", "write"] = "read") -> T:
    """Call the client; reading is tried three times, writing once.

    Args:
        call: What to do.
        repo_id: Which repository it is about, for the error.
        revision: Which revision.
        doing: What it does there.

    Raises:
        WeightsError: It failed; the text says why and what to do.
    """
    try:
        return _retry(call) if doing == "read" else call()
    except hub_failures() as error:
        raise explain(error, repo_id, revision, doing) from None
