"""Sparse tensors, which `onnx_ir` cannot hold: written out dense when a model is read."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from irtools.errors import LimitError, ModelError
from irtools.model.tensors import check_data, num_bytes
from irtools.words import counted

__all__ = ["to_dense"]

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
