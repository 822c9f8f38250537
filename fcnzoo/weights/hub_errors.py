"""What the Hub client raises, told in one sentence that says what to do."""

from __future__ import annotations

import errno

from fcnzoo.errors import WeightsError
from fcnzoo.files.download import without_password

DISK = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "EISDIR", "EEXIST", "EMFILE", "EIO")
    if hasattr(errno, name)
)
"""Error numbers of the disk, which no connection has."""

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def hub_failures() -> tuple[type[BaseException], ...]:
    """Return what a call of the client may raise: its HTTP library has changed twice in the range we support."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    odd = (KeyError, AttributeError, TypeError)  # what the client raises for answers that are not a Hub's
    return (OSError, ValueError, RuntimeError, *odd, EntryNotFoundError, HfHubHTTPError.__bases__[0])


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status behind an error, or `None` if no server answered."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def unreachable(error: BaseException) -> bool:
    """Whether the Hub did not answer, or answered that it cannot now (5xx, rate limit): not that it will not."""
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    refused = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
    if isinstance(error, HFValidationError) or refused or _of_the_disk(error):
        return False
    status = status_of(error)
    return status is None or status == 429 or status >= 500


def _of_the_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.filename is not None and error.errno in DISK


def explain(error: BaseException, repo_id: str, revision: str | None, doing: str) -> WeightsError:
    """Turn what the client raised into one error.

    Args:
        error: What it raised.
        repo_id: Which repository it was about.
        revision: Which revision; `None`: the default branch.
        doing: `"read"` or `"write"`.
    """
    reason = without_password(_reason(error, repo_id, doing))
    return WeightsError(f"hf-hub:{repo_id}{f'@{revision}' if revision else ''}: {reason[:1500]}")


def _reason(error: BaseException, repo_id: str, doing: str) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo_id}"
    status = status_of(error)
    if _of_the_disk(error):
        return f"the client's cache cannot be used ({error}); make room or give it another place with HF_HOME"
    if isinstance(error, errors.GatedRepoError):
        return f"gated; accept its terms on {page}, then {LOG_IN} with the account that did"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "there is no such repository, or it is private and you may not see it; "
            f"check the spelling, and for a private one {LOG_IN}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no such revision; branches, tags and commits are on {page}/commits/main"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return "it lacks model.safetensors or config.json; give a repository that fcnzoo.push_to_hub wrote"
    if isinstance(error, errors.HFValidationError):
        return f"not a repository's name (org/name): {error}"
    if status == 401:
        return f"the token was refused (401); {LOG_IN} with a valid one" if _has_token() else f"not logged in; {LOG_IN}"
    if status == 403:
        return f"the token may not {doing} it (403); {LOG_IN} with a token that has {doing} permission"
    if status == 429:
        return f"the Hub limits the rate of requests (429); wait some minutes and try again, or {LOG_IN} for more"
    if status is not None and status >= 500:
        return f"the Hub answered {status}, again and again; try later (https://status.huggingface.co tells more)"
    if status is not None:
        return f"the Hub answered {status}: {_first_line(error)}"
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE is set and this is not in the cache; "
            "unset it, load it once while online, or set FCNZOO_MIRROR"
        )
    if doing == "read":
        return (
            f"{constants.ENDPOINT} cannot be reached and this is not in the cache; check the connection, or set "
            f"FCNZOO_MIRROR to a folder that `fcnzoo mirror` wrote ({_first_line(error)})"
        )
    return f"{constants.ENDPOINT} cannot be reached; check the connection and try again ({_first_line(error)})"


def _has_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
