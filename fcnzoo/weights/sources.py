"""Where the weights of a name are: the wheel, a mirror, the Hub, or the authors' own file.

They are asked in this order, and what they give is compared with its digest. The last one's file is
converted when it is asked for, and kept in the cache as safetensors.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fcnzoo.config.spec import ModelSpec, Publication, Weights
from fcnzoo.errors import FCNZooError, WeightsError
from fcnzoo.files.digests import Digest, cache_folder, wrong_digest
from fcnzoo.files.download import download, download_from_drive, without_password
from fcnzoo.files.staging import replaced_folder
from fcnzoo.weights.bundle import DIGESTS_FILE, NEEDED, check_digests, locked, read_digests, write_digests
from fcnzoo.weights.folder import WEIGHTS_FILE

if TYPE_CHECKING:
    from fcnzoo.model.fcn import FCN

MIRROR = "FCNZOO_MIRROR"
"""Environment variable: a folder, or an http(s) address, that holds what `fcnzoo mirror` wrote."""

logger = logging.getLogger(__name__)


def find(spec: ModelSpec, weights: Weights, *, original: Path | None = None) -> Path:
    """Return a folder with the weights of a model, fetched and converted if need be, and verified.

    Args:
        spec: The model.
        weights: Which of its weights.
        original: The authors' file, where the caller has it; no other source is then asked.

    Returns:
        A folder with `model.safetensors` and `config.json`, for `fcnzoo.load`. Do not write into it.

    Raises:
        WeightsError: No source has them; the text gives what each one said.
        ImportError: They are on Google Drive, and `gdown` is not installed.
    """
    if original is not None:
        return _converted(spec, weights, original)
    if weights.packaged is not None:
        return packaged_folder(weights)
    reasons = []
    for source in (_mirrored, _on_hub, _published):
        try:
            folder = source(spec, weights)
        except FCNZooError as error:
            if source is _mirrored:
                raise  # whoever names a mirror does not want another source to be taken in silence
            reasons.append(str(error))
            continue
        if folder is not None:
            return folder
    mirror = os.environ.get(MIRROR)
    missing = f"the mirror {without_password(mirror)} does not have them" if mirror else f"{MIRROR} is not set"
    known = "; ".join([missing, *reasons])
    raise WeightsError(f"the weights {bundle_name(spec, weights)} cannot be had: {known}")


def bundle_name(spec: ModelSpec, weights: Weights) -> str:
    """Return what the folder of some weights is called in a mirror: the model's name with its tag."""
    return f"{spec.name}.{weights.tag}"


def _mirrored(spec: ModelSpec, weights: Weights) -> Path | None:
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return None
    name = bundle_name(spec, weights)
    if mirror.startswith(("http://", "https://")):
        return _fetch_bundle(f"{mirror.rstrip('/')}/{name}", name, weights)
    root = _expanded(mirror)
    if not root.is_dir():
        raise WeightsError(
            f"{MIRROR}={without_password(mirror)} is no folder; give a folder or an http(s) address, or unset it"
        )
    folder = root / name
    if not folder.is_dir():
        return None
    check_digests(folder, weights.sha256)
    return folder


def _expanded(mirror: str) -> Path:
    try:
        return Path(mirror).expanduser()
    except RuntimeError:
        raise WeightsError(f"{MIRROR}={mirror}: there is no such user; give a folder") from None


def _fetch_bundle(url: str, name: str, weights: Weights) -> Path | None:
    """Fetch a bundle from a mirror's address into the cache; `None` if it is not there."""
    folder = cache_folder() / "mirror" / f"{name}-{_short_hash(url)}"

    def make(temporary: Path) -> None:
        download(f"{url}/{DIGESTS_FILE}", temporary / DIGESTS_FILE)
        known = read_digests(temporary, f"{without_password(url)}/{DIGESTS_FILE}")
        for file in NEEDED:
            pin = weights.sha256 if file == WEIGHTS_FILE else None
            download(f"{url}/{file}", temporary / file, Digest("sha256", pin or known[file]))

    try:
        return _cached(folder, weights.sha256, make)
    except WeightsError as error:
        if str(error).startswith(f"{without_password(url)}/{DIGESTS_FILE}: the server answered 404"):
            return None
        raise


def _cached(folder: Path, pin: str | None, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache that is whole; if there is none, one process makes it and others wait.

    Args:
        folder: The folder.
        pin: See `bundle.check_digests`.
        make: Writes its files into the folder that it is given.
    """
    if _good(folder, pin):
        return folder
    with locked(folder):
        if not _good(folder, pin):
            with replaced_folder(folder) as temporary:
                make(temporary)
            check_digests(folder, pin)
    return folder


def _on_hub(_: ModelSpec, weights: Weights) -> Path | None:
    if weights.hub is None:
        return None
    from fcnzoo.weights.hub import pull

    return pull(f"hf-hub:{weights.hub}@{weights.revision}", sha256=weights.sha256)


def _published(spec: ModelSpec, weights: Weights) -> Path | None:
    return None if weights.published is None else _converted(spec, weights)


def _converted(spec: ModelSpec, weights: Weights, original: Path | None = None) -> Path:
    """Return the authors' weights in our form, from the cache or converted now."""
    published = weights.published
    if published is None:
        raise WeightsError(f"{bundle_name(spec, weights)} has no file of other authors that could be converted")
    from fcnzoo.weights.converters.receipt import RULES_VERSION

    config = weights.config or spec.config
    facts = f"{RULES_VERSION}{published.to_json()}{config.to_json()}"
    folder = cache_folder() / "converted" / f"{bundle_name(spec, weights)}-{_short_hash(facts)}"

    def make(temporary: Path) -> None:
        # Apart from other models' that the same file holds: it is deleted below.
        downloads = cache_folder() / "downloads" / folder.name
        file = fetch_published(published, downloads) if original is None else _checked(original, published)
        save_converted(convert_published(spec, weights, file), weights, temporary)
        write_digests(temporary)
        if original is None:
            # Ours says the same; the digest and the address of what we fetched are in its provenance.
            file.unlink(missing_ok=True)

    if original is None:
        return _cached(folder, None, make)
    with locked(folder), replaced_folder(folder) as temporary:
        make(temporary)
    check_digests(folder)
    return folder


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _checked(original: Path, published: Publication) -> Path:
    """Compare a file that the caller has with the digest that its publisher gives."""
    digest = _digest(published)
    found = None if digest is None else wrong_digest(original, digest)
    if found is not None:
        raise WeightsError(f"{original}: its digest is {found}, not {digest}, which {published.address} has")
    return original


def _good(folder: Path, pin: str | None = None) -> bool:
    """Whether a folder of the cache is there and whole; one that is damaged is made again."""
    if not folder.is_dir():
        return False
    try:
        check_digests(folder, pin)
    except WeightsError as error:
        logger.warning("%s; fetching it again", error)
        return False
    return True


def fetch_published(published: Publication, folder: Path) -> Path:
    """Download the authors' file into a folder and verify it; one that is there and right is taken.

    Raises:
        WeightsError: It cannot be had, or is not what the registry says.
        ImportError: It is on Google Drive, and `gdown` is not installed.
    """
    digest = _digest(published)
    path = folder / published.file_name
    if path.is_file() and (digest is None or wrong_digest(path, digest) is None):
        return path
    if digest is None:
        logger.warning("%s: its publisher gives no digest; nothing but the address vouches for it", published.address)
    if published.drive is not None:
        return download_from_drive(published.drive, path, digest)
    return download(published.address, path, digest)


def _digest(published: Publication) -> Digest | None:
    if published.sha256 is not None:
        return Digest("sha256", published.sha256)
    return None if published.md5 is None else Digest("md5", published.md5)


def convert_published(spec: ModelSpec, weights: Weights, original: Path) -> FCN:
    """Convert the authors' file into the network the registry says it is, labels and preprocessing included.

    Raises:
        ConversionError: The file does not hold what its converter expects.
        WeightsError: It holds another network than the registry says.
    """
    from fcnzoo.weights.converters.convert import convert

    if weights.published is None:
        raise WeightsError(f"the weights {bundle_name(spec, weights)} were not published by others")
    config = weights.config or spec.config
    model = convert(weights.published.converter, original, model=spec.name, num_classes=config.num_classes)
    for part in ("backbone", "head", "aux_head", "num_classes"):
        ours, wanted = getattr(model.config, part), getattr(config, part)
        if ours != wanted:
            raise WeightsError(f"{original}: its {part} is {ours}, the registry says {wanted}")
    model.config = config if config.preprocess else config.replace(preprocess=model.preprocess)
    model.provenance = {**model.provenance, "address": weights.published.address}
    return model


def save_converted(model: FCN, weights: Weights, folder: Path) -> None:
    """Save a converted network with what the registry knows of it."""
    from fcnzoo.weights.save import save

    save(model, folder, metrics=weights.metrics, datasets=(weights.dataset,), license=weights.license)


def packaged_folder(weights: Weights) -> Path:
    """Return the folder of weights that are shipped in a wheel, fcnzoo's or a plug-in's, after comparing their digest.

    Raises:
        WeightsError: They are not shipped, or damaged.
    """
    if weights.packaged is None:
        raise WeightsError(f"the weights {weights.tag!r} are not shipped in a package")
    path = Path(__file__).parents[1] / weights.packaged / WEIGHTS_FILE  # an absolute path, of a plug-in, stays as it is
    if not path.is_file():
        raise WeightsError(f"{path} is missing; reinstall the package that brings it")
    digest = wrong_digest(path, Digest("sha256", weights.sha256 or ""))
    if digest is not None:
        raise WeightsError(
            f"{path}: sha256 is {digest}, the registry says {weights.sha256}; reinstall the package that brings it"
        )
    return path.parent
