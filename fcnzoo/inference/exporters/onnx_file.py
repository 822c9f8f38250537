"""Graphs as ONNX files."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fcnzoo.errors import ExportError
from fcnzoo.inference.exporters.about import About
from fcnzoo.inference.exporters.check import Run

if TYPE_CHECKING:
    from onnx import ModelProto

AXES = ("batch", "height", "width")
"""What the open axes of the image are called."""

LIMIT = 2**31 - 1
"""Bytes of the largest message of Protocol Buffers, of which an ONNX file is one."""


def need_onnx() -> None:
    """Import what ONNX files need.

    Raises:
        ImportError: It is not installed; the text says how it is.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"writing ONNX files needs {error.name}: pip install 'fcnzoo[export]'") from error


def to_proto(program: torch.export.ExportedProgram, outputs: tuple[str, ...], opset: int) -> ModelProto:
    """Turn a traced graph into ONNX.

    Raises:
        ExportError: PyTorch has no ONNX for an operation.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about itself
        try:
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["image"],
                output_names=list(outputs),
                opset_version=opset,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # its own errors have many types
            first: BaseException = error
            while first.__cause__ is not None:  # what went wrong; what is wrapped around it is advice
                first = first.__cause__
            reason = next((line for line in str(first).splitlines() if line.strip()), "")
            raise ExportError(
                f"PyTorch {torch.__version__} cannot write this network as ONNX: {type(first).__name__}: {reason}"
            ) from error
    proto = made.model_proto
    _name_axes(proto)
    return proto


def _name_axes(proto: ModelProto) -> None:
    """Give the open axes their names in place of PyTorch's symbols."""
    image = proto.graph.input[0].type.tensor_type.shape.dim
    names = {image[i].dim_param: name for i, name in enumerate(AXES) if image[i].dim_param}
    pattern = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names) or "(?!)")
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = pattern.sub(lambda found: names[found[0]], axis.dim_param)


def finish(proto: ModelProto, outputs: tuple[str, ...], about: About) -> bytes:
    """Return the file: with only these outputs, and what it says about itself."""
    import onnx

    for value in list(proto.graph.output):
        if value.name not in outputs:
            proto.graph.output.remove(value)
    onnx.helper.set_model_props(proto, about.texts())
    proto.producer_name, proto.producer_version = "fcnzoo", about.fcnzoo
    proto.graph.name = "fcnzoo"
    proto.doc_string = f"{about.input} -> {', '.join(about.outputs.values())}"
    return proto.SerializeToString()


def runner(file: bytes) -> Run:
    """Return a function that runs an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        found: Any = session.run(None, {"image": images})
        return dict(zip(names, found, strict=True))

    return run
