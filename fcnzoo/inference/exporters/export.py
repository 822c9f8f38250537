"""Networks as one file that takes a picture and gives labels: ONNX, or PyTorch's `.pt2`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

import torch

from fcnzoo.errors import ExportError
from fcnzoo.files.atomic import atomic
from fcnzoo.inference.exporters.about import About, make_about
from fcnzoo.inference.exporters.check import SIZES, compare_graph
from fcnzoo.inference.exporters.graph import OUTPUTS, Output, PictureGraph, traceable
from fcnzoo.inference.optimize import OptimizedFCN
from fcnzoo.model.evaluating import uncompiled
from fcnzoo.model.fcn import FCN
from fcnzoo.weights.factory import resolve_model

__all__ = ["About", "Format", "Output", "export"]

logger = logging.getLogger("fcnzoo")

Format = Literal["onnx", "pt2"]
"""`"onnx"`: for onnxruntime and whatever reads ONNX; `"pt2"`: for `torch.export.load`, without fcnzoo or timm."""

DTYPES = {"float32": torch.float32, "float16": torch.float16}

EXAMPLE = (3, 1237, 2011)
"""(B, H, W) that a graph is traced on (no numbers are computed). Nothing special to any network, and large enough for
several windows at stride 32: PyTorch takes whatever is 1 while tracing for a constant."""

OPSET = 18
"""Of ONNX: the one PyTorch writes without converting, read by onnxruntime since 1.14."""


def export(
    model: FCN | str | Path,
    file: str | Path,
    to: Format | None = None,
    *,
    outputs: Iterable[Output] = ("labels",),
    dtype: Literal["float32", "float16"] = "float32",
    opset: int = OPSET,
    license: str | None = None,
    check_sizes: Sequence[tuple[int, int, int]] = SIZES,
) -> Path:
    """Write a network as one file that takes pictures and gives labels.

    The graph holds everything: preprocessing, network, upsampling, the choice of the class. Its input `image` is
    (B, H, W, C), uint8, RGB, as Pillow, NumPy and OpenCV (after BGR → RGB) hold pictures; batch, height and width are
    open. It gives what `Predictor` gives, also where preprocessing resizes (Pillow's filters are in the graph). Names
    and colors of the classes, the license, where the weights come from and the network's configuration are in the
    file; see `About`.

    Before anything is written the graph is run, ONNX by onnxruntime, on made-up pictures of `check_sizes`, and compared
    with `Predictor`: labels must be equal wherever the two highest scores are not the same but for rounding.

    Args:
        model: The network; or what `Predictor` takes: the name of a zoo model, or a folder. What `torch.compile` made
            of one is exported as it was before; one of another dtype, made float32.
        file: To write; replaced when the new one is whole and checked.
        to: `"onnx"` or `"pt2"`; by default what the file's suffix says.
        outputs: What the graph gives, in this order: `"labels"` (B, H, W), uint8 up to 256 classes, else int16;
            `"logits"` (B, K, H, W), float32; `"scores"` (B, K, h, w), float32, of the head's resolution.
        dtype: In which the network computes; `"float16"` halves the file. Preprocessing and upsampling stay float32.
        opset: Of ONNX, 18 or later.
        license: Of the weights; by default what the zoo or the folder says, if one was named.
        check_sizes: (B, H, W) of the pictures to compare on.

    Returns:
        The file.

    Raises:
        ExportError: The network cannot be traced with open sizes, the format lacks an operation, or the graph does not
            give what the network gives; nothing is written.
        ImportError: ONNX needs packages that are not there: `pip install "fcnzoo[export]"`.
        ValueError: An argument is impossible, or the file would be larger than ONNX allows.
        TypeError: `model` is none, or an optimized one.
        OSError: The file cannot be written.
    """
    file = Path(file)
    to = _format(file, to)
    wanted = _outputs(outputs)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")
    if opset < OPSET:
        raise ValueError(f"opset must be {OPSET} or later, got {opset}")
    network = uncompiled(resolve_model(model))
    if isinstance(network, OptimizedFCN) or not isinstance(network, FCN):
        raise TypeError(f"model must be an FCN as create or load return it, got {type(network).__name__}")
    if network.dtype != torch.float32:  # else the comparison would be with scores that are rounded to its own dtype
        network = copy.deepcopy(network).float()
    about = make_about(network.config, wanted, dtype, license or _license(model), network.provenance)
    write = _onnx if to == "onnx" else _program
    content, difference = write(network, wanted, dtype, about, opset, check_sizes)
    with atomic(file) as target:
        target.write(content)
    scores = "" if difference is None else f"; its scores differ from the network's by {difference:.1e}, relatively"
    logger.info("%s: %.1f MB, labels as the network's%s", file, len(content) / 1e6, scores)
    return file


Written = tuple[bytes, float | None]
"""A file's content, and the largest relative difference of its scores, if it gives any."""


def _onnx(
    model: FCN, outputs: tuple[Output, ...], dtype: str, about: About, opset: int, sizes: Sequence[tuple[int, int, int]]
) -> Written:
    from fcnzoo.inference.exporters.onnx_file import LIMIT, finish, need_onnx, runner, to_proto

    need_onnx()
    small = DTYPES[dtype].itemsize
    size = sum(one.numel() * (small if one.is_floating_point() else one.itemsize) for one in model.parameters())
    if size > LIMIT:
        raise ValueError(
            f"the weights have {size / 1e9:.1f} GB, and an ONNX file at most {LIMIT / 1e9:.1f}; "
            f"use to='pt2'{', or dtype=float16' if dtype == 'float32' else ''}"
        )
    # Logits are an output while the graph is checked: labels alone would not show how near a network is to them.
    checked = outputs if "logits" in outputs else (*outputs, "logits")
    proto = to_proto(_trace(model, cast("tuple[Output, ...]", checked), dtype), checked, opset)
    difference = compare_graph(runner(proto.SerializeToString()), model, dtype, sizes)
    content = finish(proto, outputs, about)
    compare_graph(runner(content), model, dtype, sizes[:1])
    return content, difference


def _program(
    model: FCN, outputs: tuple[Output, ...], dtype: str, about: About, _: int, sizes: Sequence[tuple[int, int, int]]
) -> Written:
    from fcnzoo.inference.exporters.program_file import forget_example, runner, to_file

    program = _trace(model, outputs, dtype)
    forget_example(program)
    content = to_file(program, about)
    return content, compare_graph(runner(content, outputs), model, dtype, sizes)


def _trace(model: FCN, outputs: tuple[Output, ...], dtype: str) -> torch.export.ExportedProgram:
    """Trace a network with open sizes.

    Raises:
        ExportError: A part of it asks for numbers.
    """
    graph = PictureGraph(traceable(model, DTYPES[dtype]), outputs).eval()
    image = torch.zeros(*EXAMPLE, model.config.backbone.in_channels, dtype=torch.uint8)
    axes = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(graph, (image,), dynamic_shapes={"image": axes}, strict=False)
    except Exception as error:  # torch.export's errors have many types
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{model.config.backbone.name} cannot be traced for images of any size by PyTorch {torch.__version__}: "
            f"{reason}"
        ) from error


def _format(file: Path, to: str | None) -> Format:
    known = {".onnx": "onnx", ".pt2": "pt2"}
    found = to or known.get(file.suffix)
    if found not in known.values():
        raise ValueError(f"to must be 'onnx' or 'pt2', or the file end in one of them; got to={to!r}, {file.name!r}")
    return cast("Format", found)


def _outputs(outputs: Iterable[Output]) -> tuple[Output, ...]:
    wanted = (outputs,) if isinstance(outputs, str) else tuple(outputs)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(OUTPUTS):
        raise ValueError(f"outputs must be one or more of {', '.join(OUTPUTS)}, each once; got {wanted}")
    return cast("tuple[Output, ...]", wanted)


def _license(model: FCN | str | Path) -> str | None:
    """Return what the registry, or a folder, says about the weights."""
    from fcnzoo.weights.factory import is_folder, pretrained_weights
    from fcnzoo.weights.folder import read_record

    if isinstance(model, Path) or (isinstance(model, str) and is_folder(model)):
        return read_record(model).license
    if isinstance(model, str) and not model.startswith("hf-hub:"):
        return pretrained_weights(model)[1].license
    return None
