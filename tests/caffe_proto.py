"""Caffe's messages for the `protobuf` library, made from the public `caffe.proto` (the fields that matter)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from torch import Tensor

KIND = descriptor_pb2.FieldDescriptorProto
MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "BlobShape": [("dim", 1, "int64", True)],
    "BlobProto": [
        ("num", 1, "int32", False),
        ("channels", 2, "int32", False),
        ("height", 3, "int32", False),
        ("width", 4, "int32", False),
        ("data", 5, "float", True),
        ("diff", 6, "float", True),
        ("shape", 7, "BlobShape", False),
        ("double_data", 8, "double", True),
    ],
    "ParamSpec": [("name", 1, "string", False), ("lr_mult", 3, "float", False), ("decay_mult", 4, "float", False)],
    "ConvolutionParameter": [("num_output", 1, "uint32", False), ("pad", 3, "uint32", True)],
    "LayerParameter": [
        ("name", 1, "string", False),
        ("type", 2, "string", False),
        ("bottom", 3, "string", True),
        ("top", 4, "string", True),
        ("loss_weight", 5, "float", True),
        ("param", 6, "ParamSpec", True),
        ("blobs", 7, "BlobProto", True),
        ("phase", 10, "int32", False),
        ("convolution_param", 106, "ConvolutionParameter", False),
    ],
    "V1LayerParameter": [
        ("bottom", 2, "string", True),
        ("top", 3, "string", True),
        ("name", 4, "string", False),
        ("type", 5, "int32", False),
        ("blobs", 6, "BlobProto", True),
        ("blobs_lr", 7, "float", True),
        ("weight_decay", 8, "float", True),
    ],
    "NetParameter": [
        ("name", 1, "string", False),
        ("layers", 2, "V1LayerParameter", True),
        ("input", 3, "string", True),
        ("input_dim", 4, "int32", True),
        ("force_backward", 5, "bool", False),
        ("layer", 100, "LayerParameter", True),
    ],
}
"""Field name, number, type, and whether it is repeated."""


@functools.cache
def net_class(*, packed: bool = True) -> Any:
    """The class of NetParameter; with or without `[packed = true]` on numbers."""
    file = descriptor_pb2.FileDescriptorProto(name=f"caffe{packed}.proto", package="caffe", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, repeated in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = KIND.LABEL_REPEATED if repeated else KIND.LABEL_OPTIONAL
            if kind in MESSAGES:
                field.type, field.type_name = KIND.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(KIND, f"TYPE_{kind.upper()}")
                if (name, field_name) in {("BlobShape", "dim"), ("BlobProto", "data"), ("BlobProto", "diff")}:
                    field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def write_net(state: Mapping[str, Tensor], *, old: bool = False, packed: bool = True) -> bytes:
    """Serialize weights called `<layer>.weight`, `<layer>.bias` as Caffe does.

    Args:
        state: Weights, those of one layer next to each other.
        old: V1 layers, and four dimensions for every blob.
        packed: Numbers packed, as `caffe.proto` says.
    """
    net = net_class(packed=packed)(name="FCN")
    if old:
        net.input.append("data")
        net.input_dim.extend([1, 3, 500, 500])
        net.layers.add(name="data", type=5).top.append("data")
    else:
        net.layer.add(name="data", type="Python").top.append("data")
    layers: dict[str, Any] = {}
    for key, tensor in state.items():
        name = key.rpartition(".")[0]
        if name not in layers:
            layers[name] = net.layers.add(name=name, type=4) if old else net.layer.add(name=name, type="Convolution")
            layers[name].bottom.append("below")
            if old:
                layers[name].blobs_lr.extend([1, 2])
            else:
                layers[name].param.add(lr_mult=1, decay_mult=1)
                layers[name].convolution_param.pad.append(100)
        blob = layers[name].blobs.add()
        blob.data.extend(tensor.flatten().tolist())
        if old:
            blob.num, blob.channels, blob.height, blob.width = legacy_shape(tensor)
        else:
            blob.shape.dim.extend(tensor.shape)
    return net.SerializeToString()


def legacy_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape with ones before it, to four dimensions."""
    return tuple(torch.Size((1,) * (4 - tensor.ndim)) + tensor.shape)
