"""PyTorch files read without running anything that they name.

A `.pth` file is a pickle beside the bytes of tensors. Here the pickle is read by an allow-list: what describes tensors
is known, every other name becomes an inert stand-in, which is made, filled and kept, and does nothing. So checkpoints
with options, loggers or whole modules beside (or around) the weights can be read, where `torch.load` either refuses
the file or runs its code.

Source of the layouts: `torch/serialization.py` (`_legacy_load`, `_load`), `torch/_utils.py` (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from fcnzoo.files.reading import open_file

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What the pickle before the others holds in files of PyTorch up to 1.5 (`torch/serialization.py`, MAGIC_NUMBER)."""

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}
"""What the names of storage classes, in `torch` or `torch.storage`, say of their elements."""


class StandIn:
    """What stands for everything that is not on the allow-list: keeps what it is given, does nothing.

    Attributes:
        origin: What the file calls it.
        state: What the file fills it with, if anything.
    """

    origin = ""
    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Pass over the arguments."""

    def __call__(self, *args: Any, **kwargs: Any) -> StandIn:  # noqa: ARG002 - whatever the file says
        """Do nothing."""
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Pass over an entry."""

    def append(self, value: Any) -> None:
        """Pass over an element, as `extend` and `add` do."""

    extend = add = append


class _Storage:
    """The bytes of a storage: read when a tensor first wants them, or, in old files, at the end of the file."""

    def __init__(self, dtype: torch.dtype, numel: int, read: Callable[[int], bytearray] | None) -> None:
        self.dtype, self.numel, self.read = dtype, numel, read
        self.bytes: Tensor | None = None

    def tensor(self, dtype: torch.dtype) -> Tensor:
        """Return all of it, in one dimension."""
        if self.bytes is None and self.read is not None:
            size = self.numel * self.dtype.itemsize
            self.bytes = _from_buffer(self.read(size))
        if self.bytes is None:
            raise ValueError("a tensor is used before its numbers are there")
        return self.bytes.view(dtype)


def _from_buffer(data: bytearray) -> Tensor:
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


class _View:
    """A tensor of an old file, whose numbers come after the pickle."""

    def __init__(self, storage: _Storage, place: tuple[Any, ...]) -> None:
        self.storage, self.place = storage, place


def _rebuild(storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *rest: Any) -> Any:
    # `_rebuild_tensor_v3` alone says the type; the last of its arguments but one or two.
    dtype = next((value for value in rest if isinstance(value, torch.dtype)), storage.dtype)
    place = (tuple(size), tuple(stride), offset, dtype)
    return _View(storage, place) if storage.read is None else _tensor(storage, place)


def _tensor(storage: _Storage, place: tuple[Any, ...]) -> Tensor:
    size, stride, offset, dtype = place
    return torch.as_strided(storage.tensor(dtype), size, stride, offset)  # which refuses what lies outside


def _first(data: Any, *rest: Any) -> Any:  # noqa: ARG001 - of a Parameter: requires_grad, hooks
    return data


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    **{(module, name): dtype for module in ("torch", "torch.storage") for name, dtype in DTYPES.items()},
    **{("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
}


class _Unpickler(pickle.Unpickler):
    """Reads a pickle of tensors; see the module."""

    def __init__(self, file: IO[bytes], storage: Callable[[str, torch.dtype, int], _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._stand_ins: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        """Return what a name stands for; nothing is imported."""
        known = _KNOWN.get((module.replace("__builtin__", "builtins"), name))
        if known is not None:
            return known
        origin = f"{module}.{name}"
        return self._stand_ins.setdefault(origin, type("StandIn", (StandIn,), {"origin": origin}))

    def persistent_load(self, pid: Any, /) -> Any:
        """Return a storage."""
        if pid[0] == "module":  # a class, with its source code, in old files
            return pid[1]
        kind, dtype, key, _, numel, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or (view and view[0] is not None):
            raise ValueError(f"it refers to a {kind} of an unknown kind")
        return self._storage(str(key), dtype, int(numel))


def read_archive(path: Path) -> Any:
    """Return what a PyTorch file holds: plain values, tensors on the CPU, and a `StandIn` for everything else.

    Raises:
        Exception: It is damaged; what a damaged pickle leads to can be of any kind.
        OSError: It cannot be read.
    """
    with open_file(path) as file:
        return _read_zip(file) if file.peek(4).startswith(b"PK\x03\x04") else _read_legacy(file)


def _read_zip(file: BufferedReader) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive, but holds no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in archive.namelist()):
            raise ValueError("it is a TorchScript program; save the state dict of the module instead")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder").decode() != sys.byteorder:
            raise ValueError("it was written on a machine of the other byte order")

        def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype, numel, lambda size: _record(archive, f"{root}data/{key}", size))
            return storages[key]

        storages: dict[str, _Storage] = {}
        _stored(archive, pickles[0])
        with archive.open(pickles[0]) as pickled:
            return _Unpickler(pickled, storage).load()


def _stored(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return an entry of an archive, which must be as long as the file makes it: PyTorch compresses nothing."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"its part {name} is compressed, which PyTorch never does")
    return info


def _record(archive: zipfile.ZipFile, name: str, size: int) -> bytearray:
    info = _stored(archive, name)
    if not 0 <= size <= info.file_size:
        raise ValueError(f"its part {name} has {info.file_size} bytes, {size} are wanted")
    with archive.open(info) as record:  # which compares the checksum
        return bytearray(record.read())[:size]


def _read_legacy(file: BufferedReader) -> Any:
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: torch.dtype, numel: int) -> _Storage:
        return storages.setdefault(key, _Storage(dtype, numel, None))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != LEGACY_MAGIC:
        raise ValueError("it does not begin as PyTorch's files do")
    load()  # the version of the protocol
    system = load()
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise ValueError("it was written on a machine of the other byte order")
    content = load()
    for key in load():
        if str(key) not in storages:
            raise ValueError("it holds numbers of no tensor")
        found = storages[str(key)]
        count = int.from_bytes(_exactly(file, 8), "little")
        if count != found.numel:
            raise ValueError(f"a storage has {count} numbers, {found.numel} are wanted")
        found.bytes = _from_buffer(_exactly(file, count * found.dtype.itemsize))
    return _filled(content, 0)


def _exactly(file: BufferedReader, size: int) -> bytearray:
    left = Path(file.name).stat().st_size - file.tell()
    if size > left:
        raise ValueError(f"it ends {size - left} bytes early")
    data = bytearray(size)
    file.readinto(data)
    return data


def _filled(value: Any, depth: int) -> Any:
    """Replace the views of an old file by tensors, now that their numbers have been read."""
    if depth > 100:
        raise ValueError("it is nested too deeply")
    if isinstance(value, _View):
        return _tensor(value.storage, value.place)
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _filled(item, depth + 1)
    elif isinstance(value, list | tuple):
        return type(value)(_filled(item, depth + 1) for item in value)
    elif isinstance(value, StandIn):
        value.state = _filled(value.state, depth + 1)
    return value


def module_tensors(value: StandIn, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the state dict of a whole module that was pickled: `torch.nn.Module.state_dict` without its code.

    Raises:
        ValueError: It is no module, or holds itself.
    """
    state = value.state
    if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict) or depth > 100:
        raise ValueError(f"holds a {value.origin}, which is no module")
    passing = state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        for name, tensor in dict(state.get(kind) or {}).items():
            if tensor is not None and not (isinstance(passing, set) and name in passing):
                yield f"{prefix}{name}", tensor
    for name, child in state["_modules"].items():
        if isinstance(child, StandIn):
            yield from module_tensors(child, f"{prefix}{name}.", depth + 1)
