"""Pictures in: whatever holds an 8-bit image becomes one RGB `PIL.Image`, or a clear error."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fcnzoo.files.reading import open_file, open_image

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = "str | Path | Image.Image | np.ndarray | torch.Tensor"
"""What `load_image` takes."""

MAX_PIXELS = 89_478_485
"""Largest width × height that is decoded unless the caller says otherwise: from where on Pillow itself
warns (its `MAX_IMAGE_PIXELS`); the decoded picture takes a quarter of a gigabyte."""

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes, in lower case, by which images are found in a folder; a file named outright may have any."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What pictures are decoded from, whatever their suffix. Pillow knows more, some of which start other programs
(PostScript: Ghostscript) or are no pictures (fonts, containers of anything)."""

_pillow_limit = threading.Lock()


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a picture as RGB, upright.

    - The EXIF orientation is applied: the picture stands as the camera was held.
    - Gray, 1-bit, palette, CMYK and YCbCr pictures are converted by Pillow. An alpha channel is
      dropped, as `convert("RGB")` does: the colors under transparent pixels are taken as they are.
    - 16-bit gray (a PNG, PGM or TIFF file, Pillow's modes `I;16…`) becomes `round(value / 257)`, so that
      65535 is 255. 32-bit and float pictures have no agreed range and are refused.
    - Of an animation or a multi-page file, the first frame is taken.
    - Arrays and tensors hold 8-bit values; floats are refused, since nothing says whether white is 1 or 255.

    Args:
        source: Path of a file; a `PIL.Image`; a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a
            uint8 tensor (C, H, W), C = 1, 3 or 4. An upright RGB `PIL.Image` is returned as it is.
        max_pixels: Largest width × height of a *file* that is decoded; the size is read from its
            header, before any memory is taken. Pictures already opened are not checked.

    Returns:
        A decoded `PIL.Image` of mode RGB.

    Raises:
        FileNotFoundError: There is no such file.
        IsADirectoryError: The path is a folder.
        OSError: The file cannot be read (permissions, disk).
        ValueError: The file is no image, is damaged or too large; the mode or shape cannot be converted.
        TypeError: `source` is none of the above, or its numbers are not uint8.
    """
    if isinstance(source, str | Path):
        refuse_url(source)
        return _from_file(Path(source), max_pixels)
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return _to_rgb(source, str(filename) if filename else "the PIL image")
    return Image.fromarray(_displayable(to_array(source))).convert("RGB")


def refuse_url(source: str | Path) -> None:
    """Raise `ValueError` for the address of something on the web, of which a path has swallowed a slash."""
    found = re.match(r"(https?|ftp|s3|gs|file|data):/*(.*)", str(source), re.IGNORECASE | re.DOTALL)
    if found and not Path(source).exists():
        address = f"{found[1]}://{found[2]}" if found[1].lower() != "data" else "a data: address"
        raise ValueError(
            f"{address[:200]} is no file; nothing is fetched from the web: download it, then give its path"
        )


def to_array(source: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return an image array (H, W) or (H, W, C), or a tensor (C, H, W), as a uint8 array (H, W, C).

    Nothing is copied if nothing needs to be.

    Raises:
        TypeError: It is neither an array nor a tensor, or not uint8.
        ValueError: It has another number of axes, or no pixels.
    """
    if _is_tensor(source):
        if str(source.dtype) != "torch.uint8":
            raise TypeError(_not_uint8("tensor", source.dtype, "(x * 255).round().to(torch.uint8)"))
        if source.ndim != 3:
            raise ValueError(
                f"an image tensor must be (C, H, W), got shape {tuple(source.shape)}{_batch_hint(source.ndim)}"
            )
        array = source.detach().permute(1, 2, 0).cpu().numpy()
    elif isinstance(source, np.ndarray):
        if source.dtype != np.uint8:
            raise TypeError(_not_uint8("array", source.dtype, "(x * 255).round().astype(np.uint8)"))
        if source.ndim not in (2, 3):
            raise ValueError(
                f"an image array must be (H, W) or (H, W, C), got shape {source.shape}{_batch_hint(source.ndim)}"
            )
        array = source[:, :, None] if source.ndim == 2 else source
    else:
        raise TypeError(
            "an image must be a path, a PIL image, a uint8 array (H, W, C) or a uint8 tensor (C, H, W), "
            f"got {type(source).__name__}"
        )
    if array.size == 0:
        raise ValueError(f"an image must have pixels, got shape {tuple(source.shape)}")
    return array


def _is_tensor(source: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a torch tensor, asked without importing torch: a tensor's owner has done that."""
    torch_module = sys.modules.get("torch")
    return torch_module is not None and isinstance(source, torch_module.Tensor)


def _not_uint8(what: str, dtype: object, scaling: str) -> str:
    return f"an image {what} must be uint8 (0…255), got {dtype}; if it holds 0…1, give {scaling}"


def _batch_hint(ndim: int) -> str:
    return "; give the images of a batch one by one, or as a list" if ndim == 4 else ""


def _displayable(array: np.ndarray) -> np.ndarray:
    """Return an array (H, W, C) in a form that `Image.fromarray` takes: gray, RGB or RGBA."""
    channels = array.shape[2]
    if channels not in (1, 3, 4):
        hint = "; arrays are (H, W, C), tensors (C, H, W): permute the axes" if array.shape[0] in (1, 3, 4) else ""
        raise ValueError(f"an image must have 1, 3 or 4 channels, got {channels} in (H, W, C) = {array.shape}{hint}")
    return np.ascontiguousarray(array[:, :, 0] if channels == 1 else array)


def _from_file(path: Path, max_pixels: int) -> Image.Image:
    """Open, check the size of, and decode a file; every failure is one line that names it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give an image file")
    try:
        file = open_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except OSError as error:
        raise OSError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # a null byte in the name
        raise ValueError(f"{str(path)!r} is no file name ({error})") from None
    with file:
        if not file.read(1):
            raise ValueError(f"{path}: the file is empty")
        file.seek(0)
        try:
            image = _open_header(file)
        except UnidentifiedImageError:
            raise ValueError(
                f"{path}: not an image, or of a format that Pillow {PIL.__version__} cannot read"
            ) from None
        except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
            raise _damaged(path, error) from error
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(
                f"{path}: {width} × {height} = {width * height:,} pixels is over the limit of {max_pixels:,}; "
                f"if you trust the file, give load_image(path, max_pixels={width * height}) of fcnzoo.images, or "
                "--max-pixels on the command line"
            )
        return _to_rgb(image, str(path))


def _open_header(file: IO[bytes]) -> Image.Image:
    """Read a file's header by Pillow, without Pillow's own limit on the size: ours is checked next."""
    try:
        return open_image(file, FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        with _no_pillow_limit():
            return open_image(file, FORMATS)


@contextlib.contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit, a global, for as long as reading one header takes."""
    with _pillow_limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decode, turn upright and convert; `name` is how errors call the picture."""
    file_format = image.format  # lost on conversion
    if image.width * image.height == 0:
        raise ValueError(f"{name}: an image must have pixels, got {image.width} × {image.height}")
    try:
        image.load()
        image = upright(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, EOFError, …
        raise _damaged(name, error) from error
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or (
        image.mode == "I" and file_format in ("PNG", "PPM")
    ):  # 16 bits in 32, older Pillow
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise ValueError(
            f"{name}: mode {image.mode!r} (32-bit {kind}) has no agreed range; scale it to 0…255 and give a uint8 array"
        )
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise ValueError(f"{name}: mode {image.mode!r} cannot be converted to RGB ({error})") from None


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1…8; 1 where there is none. An unreadable EXIF block says nothing."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged EXIF block does not damage the picture
        return 1
    return found if found in range(2, 9) else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of a picture once it is upright, from its header."""
    width, height = image.size
    tags = getattr(image, "tag_v2", None)
    if tags is not None and 256 in tags and 257 in tags:  # as a TIFF is stored: some versions of Pillow swap its sides
        width, height = int(tags[256]), int(tags[257])
    return (width, height) if orientation(image) >= 5 else (height, width)


def upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, if there is one."""
    return ImageOps.exif_transpose(image) if orientation(image) > 1 else image


def _damaged(name: object, error: Exception) -> ValueError:
    return ValueError(f"{name}: the image is damaged ({' '.join(str(error).split()) or type(error).__name__})")
