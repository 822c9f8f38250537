"""Networks from the Hugging Face Hub: what `load("hf-hub:…")` stands on.

The Hub's client does not look at what a downloaded file holds. Here every file is compared with the digest
the Hub (or our registry) has for it, and one commit is meant from the first request to the last.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from fcnzoo.errors import WeightsError
from fcnzoo.files.deadlines import patience, within
from fcnzoo.files.digests import Digest, wrong_digest
from fcnzoo.weights.bundle import locked
from fcnzoo.weights.folder import CONFIG_FILE, MAX_CONFIG, WEIGHTS_FILE
from fcnzoo.weights.hub_errors import explain, hub_failures, status_of, unreachable
from fcnzoo.weights.hub_memory import Listing, Memory

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
    names, known = tuple(files), Memory(repo_id)
    listing = list_files(repo_id, revision, token)
    try:
        folder = _fetch_all(source, listing, names, sha256, token)
    except WeightsError as error:
        cause, error.__cause__ = error.__cause__, None  # the client's own, long and of no use to a reader
        older = known.read(revision, anywhere=True) if cause is not None and unreachable(cause) else None
        if older is None or older.commit == listing.commit:
            raise
        logger.warning("%s; the commit %s is taken from the cache", error, older.commit)
        return _fetch_all(source, older, names, sha256, token)
    # Last of all, so that a download that fails leaves the revision where it is whole. A config alone is not.
    known.write(revision, listing, move=WEIGHTS_FILE in names or known.read(revision) is None)
    return folder


def _fetch_all(source: str, listing: Listing, names: Iterable[str], sha256: str | None, token: str | None) -> Path:
    path = Path()
    for name in names:
        digest = listing.files.get(name)
        if digest is None:
            raise WeightsError(f"{source}: it has no {name}; give a repository that fcnzoo.push_to_hub wrote")
        if name in listing.too_long:
            raise WeightsError(f"{source}: its {name} is longer than {MAX_CONFIG:,} bytes; not fetched")
        if sha256 is not None and name == WEIGHTS_FILE:
            pin = Digest("sha256", sha256)
            if digest.kind == "sha256" and digest != pin:
                raise WeightsError(f"{source}: the Hub's {name} has {digest}, the registry pins {pin}; not loaded")
            digest = pin
        path = _fetch(Address.parse(source).repo_id, listing.commit, name, digest, token)
    return path.parent


def _fetch(repo_id: str, commit: str, name: str, digest: Digest, token: str | None) -> Path:
    """Return a file of the client's cache whose content is right; one that is not is fetched once more."""
    from huggingface_hub import constants, hf_hub_download

    offline = bool(constants.HF_HUB_OFFLINE)
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "blobs"
    found, count = "", [0]
    bars = _counting_bar(count)
    for force in (False,) if offline else (False, True):
        fetch = lambda force=force: hf_hub_download(  # noqa: E731
            repo_id, name, revision=commit, token=token, force_download=force, etag_timeout=patience(), **bars
        )
        path = Path(call_hub(fetch, repo_id, commit, progress=lambda: count[0] + _bytes_in(blobs)))
        found = _wrong(path, digest)
        if found is None:
            _sweep_incomplete(path.resolve())
            return path
        with locked(blobs):  # one process repairs; what it put there in the meantime stays
            if _wrong(path, digest) is not None:
                _delete_cached(path)
    raise WeightsError(
        f"{PREFIX}{repo_id}@{commit}: {name} has {digest.kind} {found}, not {digest.value}"
        f"{'' if offline else ', also when fetched again'}; it was deleted from the cache. "
        "Try again later or over another network; if it stays so, the file is damaged on the Hub: tell its owner"
    )


def _counting_bar(count: list[int]) -> dict[str, Any]:
    """Return what makes the client's progress bar count the bytes that come, if this client takes a bar.

    What comes by way of xet need not be in the file until much later.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import tqdm

    if "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        return {}

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            count[0] += int(n or 0)
            return super().update(n)

    return {"tqdm_class": Bar}


def _wrong(path: Path, digest: Digest) -> str | None:
    try:
        return wrong_digest(path, digest)
    except FileNotFoundError:
        return "gone: another process deleted it"


def _delete_cached(path: Path) -> None:
    """Delete a damaged file, so that nobody finds it; a link that leads out of the client's cache, as a link only."""
    from huggingface_hub import constants

    content = path.resolve()
    if content.is_relative_to(Path(constants.HF_HUB_CACHE).resolve()):
        content.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _sweep_incomplete(content: Path) -> None:
    """Delete what killed downloads of a file left beside it, unless somebody is fetching it anew right now."""
    from huggingface_hub.utils import WeakFileLock

    left = list(content.parent.glob(f"{content.name}.*incomplete")) if content.parent.name == "blobs" else []
    if left:
        folder = content.parents[1]
        with (
            contextlib.suppress(OSError, TimeoutError),
            WeakFileLock(  # the client's own
                folder.parent / ".locks" / folder.name / f"{content.name}.lock", timeout=0.2
            ),
        ):
            for path in left:
                path.unlink(missing_ok=True)


def _bytes_in(folder: Path) -> int:
    """Return how much a folder of downloads holds by now; files may come and go meanwhile."""
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total


def list_files(repo_id: str, revision: str | None, token: str | None = None) -> Listing:
    """Find out which commit a revision means and what its files must hash to.

    Raises:
        WeightsError: The Hub does not tell, and has not before.
    """
    from huggingface_hub import HfApi, constants

    known = Memory(repo_id)
    if re.fullmatch(r"[0-9a-f]{40}", revision or "") or constants.HF_HUB_OFFLINE:
        remembered = known.read(revision, anywhere=bool(constants.HF_HUB_OFFLINE))
        if remembered is not None:
            return remembered
    api = HfApi(token=token)
    try:
        wait = patience()
        info = within(
            lambda: _retry(lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=wait))
        )
        files, long = digests_of_listing(info.siblings or ()), too_long(info.siblings or ())
    except hub_failures() as error:
        remembered = known.read(revision, anywhere=True) if unreachable(error) else None
        if remembered is None:
            raise explain(error, repo_id, revision, "read") from None
        logger.warning("the Hub cannot be reached; %s at %s is taken from the cache", repo_id, remembered.commit)
        return remembered
    if not isinstance(info.sha, str) or not re.fullmatch(r"[0-9a-f]{40}", info.sha):
        raise WeightsError(f"{PREFIX}{repo_id}: the Hub gave no commit for {revision or 'the default branch'}")
    return Listing(info.sha, files, long)


def digests_of_listing(siblings: Iterable[Any]) -> dict[str, Digest]:
    """Read the digest of each file: sha256 where it is in git-lfs, git's own id elsewhere."""
    found = {}
    for file in siblings:
        if file.lfs is not None:
            found[file.rfilename] = Digest("sha256", file.lfs.sha256)
        elif file.blob_id is not None:
            found[file.rfilename] = Digest("git", file.blob_id)
    return found


def too_long(siblings: Iterable[Any]) -> tuple[str, ...]:
    """Return the configs that are longer than any that would be read."""
    return tuple(file.rfilename for file in siblings if file.rfilename == CONFIG_FILE and (file.size or 0) > MAX_CONFIG)


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


def call_hub(
    call: Callable[[], T],
    repo_id: str,
    revision: str | None,
    doing: Literal["read", "write"] = "read",
    progress: Callable[[], int] | None = None,
) -> T:
    """Call the client; reading is tried three times, as long as bytes come, writing once.

    Args:
        call: What to do.
        repo_id: Which repository it is about, for the error.
        revision: Which revision.
        doing: What it does there.
        progress: Bytes that came so far, for reading.

    Raises:
        WeightsError: It failed; the text says why and what to do.
    """
    try:
        return within(lambda: _retry(call), progress) if doing == "read" else call()
    except hub_failures() as error:
        raise explain(error, repo_id, revision, doing) from (error if doing == "read" else None)
