"""Fetching files over http(s) and from Google Drive, whole and checked or not at all."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from fcnzoo.errors import WeightsError
from fcnzoo.files.atomic import atomic
from fcnzoo.files.deadlines import patience, within
from fcnzoo.files.digests import Digest
from fcnzoo.version import __version__

PAUSES = (0.5, 2.0)
"""Seconds to wait before the second and the third try."""
MOST = {".json": 8 * 2**20}
"""Bytes that a file with such a name may have at most."""

logger = logging.getLogger(__name__)


def download(url: str, path: Path, digest: Digest | None = None) -> Path:
    """Fetch a file; a broken connection, a busy server and a wrong digest are tried again.

    Args:
        url: http or https.
        path: Where to put it.
        digest: What it must hash to; `None`: nobody said.

    Returns:
        `path`.

    Raises:
        WeightsError: It cannot be had, or is not what it should be; nothing is left at `path`.
    """
    reason, shown = "", without_password(url)
    for pause in (*PAUSES, None):
        stream = _Stream(url, path)
        try:
            within(stream.fetch, lambda: stream.count)  # noqa: B023 - called before the next round
        except TimeoutError as error:  # a server that is silent once is so again
            stream.given_up = True
            reason = str(error)
            break
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"the server answered {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except (ValueError, http.client.InvalidURL) as error:
            reason = f"not an address, or not what is wanted ({error})"
            break
        except (OSError, http.client.HTTPException) as error:
            reason = f"{getattr(error, 'reason', error)}"
        else:
            found = None if digest is None else digest.mismatch(path)
            if digest is None or found is None:
                return path
            path.unlink(missing_ok=True)
            reason = f"its {digest.kind} is {found}, it should be {digest.value}: the file is damaged or another one"
        if pause is not None:
            logger.info("%s: %s; trying again in %s s", shown, reason, pause)
            time.sleep(pause)
    raise WeightsError(f"{shown}: {reason}")


def without_password(url: str) -> str:
    """Return an address as it can be printed."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", url)


class _Stream:
    """One request, and how many bytes it has brought."""

    def __init__(self, url: str, path: Path) -> None:
        self.url, self.path, self.count, self.given_up = url, path, 0, False

    def fetch(self) -> None:
        """Write what the server sends to `path`, once it is all there."""
        from huggingface_hub.utils import tqdm

        request = urllib.request.Request(self.url, headers={"User-Agent": f"fcnzoo/{__version__}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=patience()) as answer, atomic(self.path) as file:  # noqa: S310
            length = answer.headers.get("Content-Length", "")
            size = int(length) if length.isdecimal() else None
            most = MOST.get(self.path.suffix)
            # `None`: no bar where nobody looks, as in a log file.
            with tqdm(total=size, desc=self.path.name, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                while block := answer.read1(2**18):
                    self.count += len(block)
                    if self.given_up:
                        raise ConnectionError("given up")
                    if most is not None and max(self.count, size or 0) > most:
                        raise ValueError(f"{max(self.count, size or 0):,} bytes, at most {most:,} are wanted")
                    file.write(block)
                    bar.update(len(block))
            if size is not None and self.count != size:
                raise ConnectionError(f"the connection broke after {self.count:,} of {size:,} bytes")


def download_from_drive(file_id: str, path: Path, digest: Digest | None = None) -> Path:
    """Fetch a file from Google Drive, which asks questions about large files that only `gdown` can answer.

    Args:
        file_id: As in the address of the file.
        path: Where to put it.
        digest: What it must hash to.

    Returns:
        `path`.

    Raises:
        ImportError: `gdown` is not installed.
        WeightsError: Drive does not give it, or it is not what it should be; nothing is left at `path`.
    """
    address = f"https://drive.google.com/uc?id={file_id}"
    try:
        import gdown  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            f"{address} is on Google Drive, which needs the package gdown: `pip install gdown`, "
            "or fetch it in a browser and give it to `fcnzoo convert`"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        if gdown.download(id=file_id, output=str(temporary), quiet=True) is None or not temporary.is_file():
            raise WeightsError(f"{address}: Google Drive did not give it (too many downloads today?); try again later")
        found = None if digest is None else digest.mismatch(temporary)
        if digest is not None and found is not None:
            raise WeightsError(f"{address}: its {digest.kind} is {found}, it should be {digest.value}")
        temporary.replace(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"{address}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def not_the_file(start: bytes) -> str | None:
    """Say what came in place of a file, by its first bytes: a web page, or a git-lfs pointer."""
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page: the download answered with an error page or a login"
    if text.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file itself; run `git lfs pull` where it lies"
    return None
