"""What the Hub said about a repository, kept for when it cannot be asked."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from fcnzoo.files.atomic import atomic
from fcnzoo.files.digests import Digest, cache_folder
from fcnzoo.files.reading import read_bytes, read_text
from fcnzoo.files.records import read_json

logger = logging.getLogger(__name__)


class Listing(NamedTuple):
    """What a repository holds at one commit."""

    commit: str
    files: dict[str, Digest]
    too_long: tuple[str, ...] = ()


class Memory:
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
                commit = read_text(folder / self._ref(revision).relative_to(self.folder))
                files = read_json(read_bytes(folder / f"{commit}.json"))
                return Listing(commit, {name: Digest(*digest) for name, digest in files.items()})
            except (OSError, ValueError, TypeError, AttributeError):
                continue
        return None

    def write(self, revision: str | None, listing: Listing, *, move: bool) -> None:
        """Keep what a commit holds, and, with `move`, that a revision means it now."""
        try:
            with atomic(self.folder / f"{listing.commit}.json", "w") as file:
                json.dump(listing.files, file)
            for name in {revision, listing.commit} if move else {listing.commit}:
                with atomic(self._ref(name), "w") as file:
                    file.write(listing.commit)
        except OSError as error:
            logger.warning("%s cannot be written (%s): loading offline will not work", self.folder, error)


def _age(folder: Path) -> float:
    return -folder.stat().st_mtime
