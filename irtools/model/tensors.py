"""Checking tensors as a file holds them: sizes, types, and that the data is all there."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from irtools.errors import ModelError
from irtools.model.verifier import MAX_SIZE
from irtools.words import counted

__all__ = ["check_data", "num_bytes"]

_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MAX_RANK = 64

_WIDE: Mapping[ir.DataType, str] = {
    ir.DataType.FLOAT: "float_data",
    ir.DataType.COMPLEX64: "float_data",
    ir.DataType.DOUBLE: "double_data",
    ir.DataType.COMPLEX128: "double_data",
    ir.DataType.INT64: "int64_data",
    ir.DataType.UINT32: "uint64_data",
    ir.DataType.UINT64: "uint64_data",
    ir.DataType.STRING: "string_data",
}
"""Field that holds a type's elements one by one; `int32_data` for all others (onnx.proto3)."""


def num_bytes(tensor: onnx.TensorProto, where: str) -> int:
    """Return how many bytes a tensor's type and sizes call for; 0 for strings.

    Raises:
        ModelError: The type is unknown or a size is out of range.
    """
    dtype = _dtype(tensor, where)
    sizes = list(tensor.dims)
    if len(sizes) > _MAX_RANK:
        raise ModelError(f"{where} has {len(sizes)} dimensions, expected at most {_MAX_RANK}")
    for size in sizes:
        if not 0 <= size <= MAX_SIZE:
            raise ModelError(f"{where} has a dimension of {size}, expected 0 to 2^40")
    if dtype == ir.DataType.STRING:
        return 0
    return int(math.prod(sizes) * dtype.bitwidth + 7) // 8


def check_data(tensor: onnx.TensorProto, where: str, raw_length: int | None = None) -> None:
    """Check that a tensor holds exactly the data that its type and sizes call for.

    Args:
        tensor: A tensor with its data inside.
        where: What to call it in a message.
        raw_length: Bytes of its `raw_data`, where those were left in the file.

    Raises:
        ModelError: Data is missing, too much, doubled or in the wrong field.
    """
    wanted = num_bytes(tensor, where)
    dtype, count = _dtype(tensor, where), math.prod(tensor.dims)
    if tensor.HasField("segment"):
        raise ModelError(f"{where} is one segment of a tensor, which ONNX never completed")
    used = [name for name in _TYPED if len(getattr(tensor, name))]
    has_raw = tensor.HasField("raw_data") and (len(tensor.raw_data) or raw_length or not used)
    if len(used) + bool(has_raw) > 1:
        fields = " and ".join([*used, *(["raw_data"] if has_raw else [])])
        raise ModelError(f"{where} has data in {fields}, expected exactly one of them")
    if has_raw:
        if dtype == ir.DataType.STRING:
            raise ModelError(f"{where} holds strings as raw bytes, expected string_data")
        found = len(tensor.raw_data) if raw_length is None else raw_length
        if found != wanted:
            raise ModelError(
                f"{where} of type {dtype.name} and shape {list(tensor.dims)} has {found} bytes of "
                f"data, expected {wanted}"
            )
        return
    field = _WIDE.get(dtype, "int32_data")
    if used and used[0] != field:
        raise ModelError(f"{where} of type {dtype.name} has its data in {used[0]}, not {field}")
    expected = _num_entries(dtype, count)
    if len(getattr(tensor, field)) != expected:
        raise ModelError(
            f"{where} of type {dtype.name} and shape {list(tensor.dims)} has "
            f"{counted(len(getattr(tensor, field)), 'value')} in {field}, expected {expected}"
        )


def _num_entries(dtype: ir.DataType, count: int) -> int:
    """Entries of the typed field: complex numbers take two, packed ones share one."""
    if dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        return 2 * count
    if dtype != ir.DataType.STRING and dtype.bitwidth in (2, 4):
        return (count * dtype.bitwidth + 7) // 8
    return count


def _dtype(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        dtype = ir.DataType.UNDEFINED
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{where} has the element type {tensor.data_type}, which is unknown")
    return dtype
