"""Pictures in: every kind of source, mode and damage that `load_image` meets."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fcnzoo.images.load import IMAGE_SUFFIXES, MAX_PIXELS, load_image


def photo(height: int = 23, width: int = 31, channels: int = 3) -> np.ndarray:
    """Return a random picture (H, W, C)."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def assert_same(picture: Image.Image, expected: np.ndarray) -> None:
    """Check that a picture is RGB and holds exactly the expected bytes."""
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), expected)


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    """Check that an error is one line and says each of `parts`."""
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm"])
@pytest.mark.parametrize("kind", [str, Path])
def test_lossless_files_give_their_pixels(tmp_path: Path, suffix: str, kind: type) -> None:
    """A file of a lossless format comes back to the byte, from a text or a Path."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo()).save(path)
    assert_same(load_image(kind(path)), photo())


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix != ".pgm"])
def test_every_listed_suffix_is_readable(tmp_path: Path, suffix: str) -> None:
    """Each suffix by which folders are searched is a format that Pillow reads."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo()).save(path)
    assert load_image(path).size == (31, 23)


def test_an_upright_rgb_image_is_not_copied() -> None:
    """A PIL image that needs nothing is returned as it is."""
    image = Image.fromarray(photo())
    assert load_image(image) is image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("opened", [False, True])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, opened: bool) -> None:
    """All eight EXIF orientations come out as the camera was held, by the definition of the tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path, exif=exif)
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, 1),
    }[orientation](photo())
    with Image.open(path) as image:
        assert_same(load_image(image if opened else path), turned)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_impossible_orientations_change_nothing(tmp_path: Path, value: int) -> None:
    """An orientation outside 1…8 is no orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path, exif=exif)
    assert_same(load_image(path), photo())


@pytest.mark.filterwarnings("ignore:.*EXIF.*:UserWarning")  # Pillow's own
def test_a_damaged_exif_block_does_not_lose_the_picture(tmp_path: Path) -> None:
    """Garbage instead of EXIF data is passed over."""
    path = tmp_path / "a.jpg"
    image = Image.fromarray(photo())
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"):
        image.save(path, exif=exif)
        assert load_image(path).size == (31, 23)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode: str) -> None:
    """Modes that Pillow converts are converted by it."""
    image = Image.fromarray(photo())
    image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    assert_same(load_image(image), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped() -> None:
    """Colors under transparent pixels are taken as they are, as `convert("RGB")` does."""
    rgba = np.dstack([photo(), np.zeros((23, 31), np.uint8)])
    assert_same(load_image(Image.fromarray(rgba)), photo())
    assert_same(load_image(rgba), photo())


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_16_bit_gray_is_scaled(tmp_path: Path, suffix: str) -> None:
    """16-bit gray files become round(value / 257), all 65,536 values checked in exact arithmetic."""
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pgm":
        path.write_bytes(b"P5 256 256 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    expected = np.array([round(v / 257) for v in range(65536)], dtype=np.uint8).reshape(256, 256)
    assert_same(load_image(path), np.repeat(expected[:, :, None], 3, 2))


def test_32_bit_pictures_are_refused(tmp_path: Path) -> None:
    """32-bit integers and floats have no agreed range: the error says so and names the file."""
    path = tmp_path / "depth.tiff"
    for array, what in ((np.ones((4, 5), np.int32), "integers"), (np.ones((4, 5), np.float32), "floats")):
        Image.fromarray(array).save(path)
        with pytest.raises(ValueError) as error:
            load_image(path)
        one_line(error, str(path), what, "0…255")


def test_unconvertible_mode_is_refused() -> None:
    """A mode that Pillow cannot convert (gray with premultiplied alpha) is refused by name."""
    with pytest.raises(ValueError) as error:
        load_image(Image.new("La", (3, 3)))
    one_line(error, "'La'")


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    """Of several frames the first is taken."""
    frames = [Image.new("L", (8, 6), value) for value in (200, 10)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert_same(load_image(tmp_path / "a.gif"), np.full((6, 8, 3), 200, np.uint8))


def test_arrays_of_every_shape() -> None:
    """(H, W), (H, W, 1) are gray; (H, W, 3) is taken as it is; (H, W, 4) without its alpha."""
    gray = photo(channels=1)
    assert_same(load_image(gray[:, :, 0]), np.repeat(gray, 3, 2))
    assert_same(load_image(gray), np.repeat(gray, 3, 2))
    assert_same(load_image(photo()), photo())
    assert_same(load_image(photo(channels=4)), photo(channels=4)[:, :, :3])
    assert_same(load_image(photo()[::-1, ::2]), photo()[::-1, ::2])


def test_tensors_are_channels_first() -> None:
    """A tensor (C, H, W) gives the same picture as the array (H, W, C), contiguous or not."""
    for channels in (1, 3, 4):
        array = photo(channels=channels)
        expected = np.repeat(array, 3, 2) if channels == 1 else array[:, :, :3]
        assert_same(load_image(torch.from_numpy(array).permute(2, 0, 1)), expected)
        assert_same(load_image(torch.from_numpy(array).permute(2, 0, 1).contiguous()), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16, bool])
def test_arrays_of_other_dtypes_are_refused(dtype: type) -> None:
    """Only uint8 has an agreed range; the error says how to get there."""
    with pytest.raises(TypeError) as error:
        load_image(photo().astype(dtype))
    one_line(error, "uint8", np.dtype(dtype).name, "* 255")
    with pytest.raises(TypeError) as error:
        load_image(torch.from_numpy(photo().astype(dtype)))
    one_line(error, "uint8", "* 255")


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((4,), "(H, W)"),
        ((2, 8, 9, 3), "one by one"),
        ((8, 9, 2), "2"),
        ((8, 9, 5), "5"),
        ((3, 8, 9), "permute"),
        ((0, 9, 3), "pixels"),
        ((), "(H, W)"),
    ],
)
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...], part: str) -> None:
    """A batch, a vector, odd channel counts, channels first and nothing at all are told apart."""
    with pytest.raises(ValueError) as error:
        load_image(np.zeros(shape, np.uint8))
    one_line(error, part, str(shape))


@pytest.mark.parametrize("shape", [(9,), (8, 9), (2, 3, 8, 9), (8, 9, 3), (3, 0, 9)])
def test_tensors_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Tensors must be (C, H, W) with C of 1, 3 or 4."""
    with pytest.raises(ValueError):
        load_image(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("source", [None, 3, b"\x89PNG", [1, 2], io.BytesIO()])
def test_other_types_are_refused(source: object) -> None:
    """What is no image source is a TypeError that lists what is."""
    with pytest.raises(TypeError) as error:
        load_image(source)  # pyright: ignore[reportArgumentType]
    one_line(error, "path", type(source).__name__)


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is a FileNotFoundError that names it."""
    with pytest.raises(FileNotFoundError) as error:
        load_image(tmp_path / "none.png")
    one_line(error, "none.png", "no such file")


@pytest.mark.parametrize("source", ["", ".", Path("/")])
def test_folder(source: str | Path) -> None:
    """A folder is an IsADirectoryError."""
    with pytest.raises(IsADirectoryError) as error:
        load_image(source)
    one_line(error, "folder")


def test_impossible_name() -> None:
    """A null byte in a name is a ValueError, a name that is too long an OSError."""
    with pytest.raises(ValueError):
        load_image("a\0b.png")
    with pytest.raises(OSError):
        load_image("a" * 5000 + ".png")


def test_empty_file_and_text_file(tmp_path: Path) -> None:
    """An empty file and a text named .png are told apart, and named."""
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        load_image(path)
    one_line(error, str(path), "empty")
    path.write_text("this is a text\n" * 30)
    with pytest.raises(ValueError) as error:
        load_image(path)
    one_line(error, str(path), "not an image")


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")  # Pillow's own, for TIFF
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".bmp"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    """Half a file is a one-line ValueError that names it."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo(150, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError) as error:
        load_image(path)
    one_line(error, str(path))


def test_truncated_file_that_pillow_opened(tmp_path: Path) -> None:
    """A PIL image whose data cannot be decoded is refused by the name of its file."""
    path = tmp_path / "a.jpg"
    Image.fromarray(photo(150, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Image.open(path) as image, pytest.raises(ValueError) as error:
        load_image(image)
    one_line(error, str(path), "damaged")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, for TIFF and EXIF
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".bmp"])
def test_flipped_bytes_give_a_picture_or_one_line(tmp_path: Path, suffix: str) -> None:
    """Whatever a damaged file makes Pillow raise, the caller sees ValueError or OSError and the file's name."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(photo(20, 30)).save(path)
    good = path.read_bytes()
    rng = random.Random(suffix)
    for _ in range(60):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 3, 20))):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        path.write_bytes(bad)
        text = str(path)
        try:
            load_image(path, max_pixels=10**6)
        except (ValueError, OSError) as error:
            text = str(error)
        assert str(path) in text
        assert "\n" not in text


def test_huge_header_is_refused_before_decoding(tmp_path: Path) -> None:
    """A 20,000 × 20,000 header is refused by the size it claims, with the limit and the way around."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(20_000, 20_000))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError) as error:
        load_image(path)
    one_line(error, str(path), "20000 × 20000", f"{MAX_PIXELS:,}", "max_pixels=400000000")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert limit is None or limit == MAX_PIXELS


def test_max_pixels_is_a_limit_of_ours(tmp_path: Path) -> None:
    """The limit can be lowered below and raised above Pillow's own."""
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    assert load_image(path, max_pixels=23 * 31).size == (31, 23)
    with pytest.raises(ValueError) as error:
        load_image(path, max_pixels=23 * 31 - 1)
    one_line(error, str(path), "712")


def test_max_pixels_above_the_limit_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that Pillow alone would refuse is decoded when max_pixels allows it."""
    path = tmp_path / "a.png"
    Image.fromarray(photo()).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert_same(load_image(path), photo())
    assert Image.MAX_IMAGE_PIXELS == 100


def test_caller_keeps_the_image(tmp_path: Path) -> None:
    """A PIL image that is given is neither turned nor closed."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert_same(load_image(image), np.asarray(ImageOps.exif_transpose(image)))
        assert image.size == (31, 23)
        assert image.getpixel((0, 0)) == tuple(photo()[0, 0])


def test_postscript_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under the name of a picture is refused, and no other program is started for it."""

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(ValueError) as error:
        load_image(path)
    one_line(error, str(path), "not an image")
