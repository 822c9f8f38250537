"""Safetensors files, read strictly and mapped, written so that they can be mapped.

The form is an 8-byte little-endian length, a JSON header of that length, and the tensors' bytes without
gaps; source: the format section of https://github.com/huggingface/safetensors. The library's own reader is
not used here, because it maps the file shared with everybody who changes it, and tells errors of the file
from errors of the disk by their texts only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
from torch import Tensor

from fcnzoo.errors import WeightsError
from fcnzoo.files.download import not_the_file
from fcnzoo.files.reading import open_file
from fcnzoo.files.records import read_json

MAX_HEADER = 4 * 2**20
"""Longest header read, in bytes: room for 25,000 tensors."""

ALIGNMENT = 64
"""Where PyTorch's own tensors begin. Vector code takes other paths elsewhere, which changes last bits."""

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "U16": torch.uint16,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "F32": torch.float32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""Element types by their names in the header."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file.

    Attributes:
        dtype: Of its elements.
        shape: Its sizes.
        start: First byte, from the beginning of the file.
        size: Bytes.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class SafetensorsFile:
    """An open file whose header has been read and found sound; no tensor has been.

    Attributes:
        path: What errors call it.
        file: Open for reading.
        entries: The tensors by name, in the order of their bytes.
        metadata: Texts that the writer added.
    """

    path: Path
    file: BufferedReader
    entries: dict[str, Entry]
    metadata: dict[str, str]

    def sha256(self) -> str:
        """Return the digest of the whole file, in hexadecimal. Reads all of it."""
        self.file.seek(0)
        return hashlib.file_digest(self.file, "sha256").hexdigest()

    def read(self, names: set[str] | None = None, *, mapped: bool = False) -> dict[str, Tensor]:
        """Give tensors, by default all, on the CPU.

        Args:
            names: Which.
            mapped: Give tensors that are read from the file when they are first used. Changing them never
                changes the file, but changing the file in place changes them, and cutting it short kills
                the process. Tensors that do not lie at a multiple of 64 bytes are copied all the same, as
                is everything on Windows, where a mapped file cannot be replaced.

        Raises:
            WeightsError: The file has become shorter.
        """
        wanted = {name: entry for name, entry in self.entries.items() if names is None or name in names}
        view = None
        if mapped and os.name != "nt" and any(entry.size for entry in wanted.values()):
            with contextlib.suppress(OSError):  # some network and user-space file systems cannot map
                view = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)
        return {name: self._tensor(name, entry, view) for name, entry in wanted.items()}

    def tensor(self, name: str) -> Tensor:
        """Give a copy of one tensor, on the CPU.

        Raises:
            WeightsError: The file has become shorter.
        """
        return self._tensor(name, self.entries[name], None)

    def _tensor(self, name: str, entry: Entry, mapped: mmap.mmap | None) -> Tensor:
        if mapped is not None and entry.size and entry.start % ALIGNMENT == 0:
            if entry.start + entry.size > len(mapped):
                raise self._ended(name)
            count = math.prod(entry.shape)
            flat = torch.frombuffer(mapped, dtype=entry.dtype, count=count, offset=entry.start)
            return flat.reshape(entry.shape)
        tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
        self.file.seek(entry.start)
        if entry.size and self.file.readinto(_bytes(tensor)) != entry.size:
            raise self._ended(name)
        return tensor

    def _ended(self, name: str) -> WeightsError:
        return WeightsError(f"{self.path} ended inside {name}; it was cut short while it was being read")


@contextlib.contextmanager
def open_safetensors(path: str | Path, file: BufferedReader | None = None) -> Iterator[SafetensorsFile]:
    """Open a safetensors file and check its header: JSON, names, dtypes, shapes, and bytes without gap or overlap.

    Args:
        path: The file.
        file: The same, if it is open already; it is closed at the end.

    Raises:
        WeightsError: It is missing, or not a sound safetensors file; the text says what it is instead.
    """
    path = Path(path)
    try:
        opened = file or open_file(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None
    with opened:
        yield SafetensorsFile(path, opened, *_read_header(path, opened))


def _read_header(path: Path, file: BufferedReader) -> tuple[dict[str, Entry], dict[str, str]]:
    total = os.fstat(file.fileno()).st_size
    start = file.read(256)
    if len(start) < 8:
        _refuse(path, f"it has {len(start)} bytes only; copy or download it again")
    length = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{":
        _refuse(path, _guess(start) or "it does not begin with a length and a JSON header")
    if length > total - 8:
        _refuse(path, f"its header takes {length} bytes, the file has {total}: it is cut short")
    if length > MAX_HEADER:
        _refuse(path, f"its header takes {length} bytes; at most {MAX_HEADER} are read")
    file.seek(8)
    try:
        header = read_json(file.read(length))
    except ValueError as error:
        _refuse(path, f"its header is no valid JSON ({error})")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, "its __metadata__ must hold texts only")
    entries = {name: _entry(path, name, value, 8 + length) for name, value in header.items()}
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].size)))
    end = 8 + length
    for name, entry in entries.items():
        if entry.start != end:
            _refuse(path, f"{name} begins at byte {entry.start}, the one before it ends at {end}: overlap or gap")
        end += entry.size
    if end != total:
        _refuse(path, f"its tensors end at byte {end}, the file at {total}: it is cut short, or something was added")
    return entries, metadata


def _entry(path: Path, name: str, value: Any, origin: int) -> Entry:
    """Check one tensor's line of the header."""
    if len(name) > 512:
        _refuse(path, f"a tensor's name has {len(name)} letters")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"{name} must have dtype, shape and data_offsets, and nothing else")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        _refuse(path, f"{name} has the dtype {str(value['dtype'])[:40]!r}, which is none of {', '.join(DTYPES)}")
    shape, offsets = value["shape"], value["data_offsets"]
    if not _sizes(shape) or len(shape) > 16:
        _refuse(path, f"{name}: its shape must be up to 16 sizes of 0 or more, got {str(shape)[:80]}")
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"{name}: data_offsets must be a first byte and an end, got {str(offsets)[:80]}")
    size = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != size:
        _refuse(path, f"{name} takes {offsets[1] - offsets[0]} bytes, its shape {tuple(shape)} {size}")
    return Entry(dtype, tuple(shape), origin + offsets[0], size)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _guess(start: bytes) -> str | None:
    """Say what a file that is no safetensors file is."""
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return "it is a PyTorch checkpoint (a pickle), which can run code; fcnzoo.convert reads those it knows"
    return not_the_file(start)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise WeightsError(f"{path}: not a readable safetensors file: {reason}")


def write_safetensors(
    file: IO[bytes], tensors: Mapping[str, Tensor], metadata: Mapping[str, str], dtype: torch.dtype | None = None
) -> str:
    """Write tensors one by one, so that nearly all can be mapped.

    The header is filled with spaces, and tensors whose bytes are a multiple of 64 come first: each of them
    then begins at a multiple of 64 bytes. Within that, they are sorted by name: equal tensors give equal files.

    Args:
        file: Open for writing.
        tensors: On any device.
        metadata: Texts for the header.
        dtype: Floating-point tensors are stored in it; by default in their own.

    Returns:
        The sha256 of all that was written, in hexadecimal.

    Raises:
        WeightsError: A dtype cannot be stored.
    """
    sizes, dtypes = {}, {}
    for name, tensor in tensors.items():
        dtypes[name] = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        if dtypes[name] not in _NAMES:
            raise WeightsError(f"{name} is {dtypes[name]}, which safetensors files cannot hold")
        sizes[name] = tensor.numel() * dtypes[name].itemsize
    order = sorted(tensors, key=lambda name: (sizes[name] % ALIGNMENT != 0, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        offsets = [end, end := end + sizes[name]]
        header[name] = {"dtype": _NAMES[dtypes[name]], "shape": list(tensors[name].shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise WeightsError(f"names and metadata take {len(text)} bytes; at most {MAX_HEADER} fit a header")
    digest = hashlib.sha256()
    for part in (len(text).to_bytes(8, "little"), text):
        file.write(part)
        digest.update(part)
    for name in order:
        if sizes[name]:
            part = _bytes(tensors[name].detach().to("cpu", dtypes[name]).contiguous())
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file into memory.

    Raises:
        WeightsError: There is no such file, or it is not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give a local .safetensors file, or True for the provider's weights")
    with open_safetensors(path) as file:
        return file.read()
