"""Sparse tensors, which `onnx_ir` cannot hold: dense while the model is in memory.

What was read as sparse is marked, and an initializer that still holds the same tensor is written
as sparse again where that takes fewer bytes. A tensor that a pass created is written dense.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from irtools.errors import LimitError, ModelError
from irtools.model.tensors import check_data, num_bytes
from irtools.words import counted

__all__ = ["is_marked_sparse", "mark_read_sparse", "sparsify", "take_sparse_mark", "to_dense"]

_MARK = "irtools.sparse"
"""Key in the metadata of a dense message, and in the `meta` of the tensor made of it."""

_MAX_BYTES = 256 * 2**20
"""Dense size up to which a sparse tensor is written out: a few bytes may claim terabytes."""


def to_dense(sparse: onnx.SparseTensorProto, where: str) -> onnx.TensorProto:
    """Return the dense form of a sparse tensor whose data is inside the message.

    Raises:
        ModelError: Sizes, indices and values do not fit.
        LimitError: The dense form has more than 256 MiB.
    """
    dense = onnx.TensorProto(name=sparse.values.name, data_type=sparse.values.data_type)
    dense.dims.extend(sparse.dims)
    size = num_bytes(dense, where)
    check_data(sparse.values, f"values of {where}")
    count = math.prod(sparse.values.dims)
    if len(sparse.values.dims) != 1 or sparse.values.data_type == onnx.TensorProto.STRING:
        raise ModelError(f"{where} has values of shape {list(sparse.values.dims)}, expected a list")
    if size > _MAX_BYTES:
        raise LimitError(f"{where} is {size} bytes when written out, the limit is {_MAX_BYTES}")
    values = ir.serde.deserialize_tensor(sparse.values).numpy()
    array = np.zeros(tuple(sparse.dims), values.dtype)
    positions = _positions(sparse, where, count, array.size)
    array.reshape(-1)[positions] = values
    # Assigning raw bytes keeps the element types that numpy does not name.
    dense.raw_data = ir.Tensor(array, ir.DataType(dense.data_type)).tobytes()
    return dense


def mark_read_sparse(dense: onnx.TensorProto) -> onnx.TensorProto:
    """Note in a message that it was sparse in the file."""
    dense.metadata_props.add(key=_MARK)
    return dense


def take_sparse_mark(tensor: ir.Tensor | ir.PackedTensor) -> None:
    """Move the note from what is written to the file to what is not."""
    if _MARK in tensor.metadata_props:
        del tensor.metadata_props[_MARK]
        tensor.meta[_MARK] = True


def is_marked_sparse(tensor: ir.TensorProtocol) -> bool:
    """Whether the tensor was sparse in the file that it was read from."""
    return isinstance(tensor, ir.Tensor) and bool(tensor.meta.get(_MARK))


def sparsify(graph: ir.Graph, message: onnx.GraphProto) -> None:
    """Write as sparse what was read so, is not an input as well, and takes fewer bytes that way."""
    if not any(
        value.const_value is not None and is_marked_sparse(value.const_value)
        for value in graph.initializers.values()
    ):
        return
    inputs = {info.name for info in message.input}
    kept = []
    for dense in message.initializer:
        tensor = graph.initializers[dense.name].const_value
        sparse = None
        if tensor is not None and is_marked_sparse(tensor) and dense.name not in inputs:
            sparse = _to_sparse(dense, tensor.numpy())
        if sparse is None:
            kept.append(dense)
        else:
            message.sparse_initializer.append(sparse)
    if len(kept) < len(message.initializer):
        del message.initializer[:]
        message.initializer.extend(kept)


def _to_sparse(
    dense: onnx.TensorProto, array: np.ndarray[Any, np.dtype[Any]]
) -> onnx.SparseTensorProto | None:
    """Return the sparse form of a message; None where it is not smaller."""
    words = np.ascontiguousarray(array).reshape(-1)
    # By bits: -0.0 is a value.
    used = words.view(np.uint8).reshape(words.size, words.itemsize).any(axis=1)
    places = np.flatnonzero(used).astype(np.int64)
    if not places.size or places.size * (8 + words.itemsize) >= array.nbytes:
        return None
    values = ir.Tensor(words[places], ir.DataType(dense.data_type), name=dense.name)
    sparse = onnx.SparseTensorProto(dims=dense.dims)
    sparse.values.CopyFrom(ir.serde.serialize_tensor(values))
    sparse.indices.CopyFrom(ir.serde.serialize_tensor(ir.Tensor(places)))
    return sparse


def _positions(
    sparse: onnx.SparseTensorProto, where: str, count: int, size: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the flat index of each value; indices come flat [n] or per axis [n, rank]."""
    check_data(sparse.indices, f"indices of {where}")
    if sparse.indices.data_type != onnx.TensorProto.INT64:
        raise ModelError(f"indices of {where} are not int64")
    shape = tuple(sparse.indices.dims)
    if shape not in ((count,), (count, len(sparse.dims))):
        raise ModelError(
            f"{where} has {counted(count, 'value')} but indices of shape {list(shape)}"
        )
    indices = ir.serde.deserialize_tensor(sparse.indices).numpy()
    limits = np.array([size] if len(shape) == 1 else list(sparse.dims), np.int64)
    table = indices.reshape(count, -1)
    if count and (np.any(table < 0) or np.any(table >= limits)):
        raise ModelError(f"{where} has an index out of range of its shape {list(sparse.dims)}")
    rank = len(shape)
    flat = indices if rank == 1 else np.ravel_multi_index(tuple(table.T), tuple(sparse.dims))
    if np.unique(flat).size != count:
        raise ModelError(f"{where} gives two values for one index")
    return np.asarray(flat, np.int64)
