"""Zeros in weights: magnitude pruning without a change of shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.editing import constant_of, require_constant
from irtools.operators import weight_port

__all__ = ["Prunable", "blocked_mask", "prunable_weights", "smallest_mask", "write_masked"]


@dataclass(frozen=True)
class Prunable:
    """A weight of one or more MatMul, Gemm or Conv nodes.

    Attributes:
        value: The initializer or Constant.
        node: Its first use.
        axis: Axis of the inputs that are summed up, along which N:M blocks lie.
        name: Module name.
    """

    value: ir.Value
    node: ir.Node
    axis: int
    name: str


def prunable_weights(model: ir.Model) -> tuple[Prunable, ...]:
    """List the float weights of MatMul, Gemm and Conv in the main graph, each tensor once."""
    found: dict[ir.Value, Prunable] = {}
    for node in model.graph:
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.domain != "":
            continue
        value = node.inputs[1] if len(node.inputs) > 1 else None
        tensor = constant_of(value)
        if value is None or tensor is None or value in found or len(tensor.shape) < 2:
            continue
        if (
            tensor.dtype.is_floating_point()
            and np.isfinite(tensor.numpy().astype(np.float32)).all()
        ):
            found[value] = Prunable(
                value, node, _input_axis(node, len(tensor.shape)), module_name(node)
            )
    return tuple(found.values())


def _input_axis(node: ir.Node, rank: int) -> int:
    port = weight_port(node)
    assert port is not None and port.in_axis is not None
    return port.in_axis % rank


def smallest_mask(array: np.ndarray, count: int) -> np.ndarray:
    """Return a boolean mask of the `count` entries of least magnitude; ties by position."""
    mask = np.zeros(array.size, dtype=bool)
    order = np.argsort(np.abs(array.astype(np.float32)).reshape(-1), kind="stable")
    mask[order[:count]] = True
    return mask.reshape(array.shape)


def blocked_mask(array: np.ndarray, axis: int, zeros: int, block: int) -> np.ndarray | None:
    """Return the mask of the `zeros` least entries in each block along an axis.

    None where the axis is not a multiple of the block.
    """
    moved = np.moveaxis(np.abs(array.astype(np.float32)), axis, -1)
    if moved.shape[-1] % block:
        return None
    blocks = moved.reshape(*moved.shape[:-1], -1, block)
    order = np.argsort(blocks, axis=-1, kind="stable")
    mask = np.zeros(blocks.shape, dtype=bool)
    np.put_along_axis(mask, order[..., :zeros], True, axis=-1)
    return np.moveaxis(mask.reshape(moved.shape), -1, axis)


def write_masked(model: ir.Model, masks: Mapping[ir.Value, np.ndarray]) -> int:
    """Set masked entries to zero in new tensors, and return how many were not zero before."""
    changed = 0
    for value, mask in masks.items():
        tensor = require_constant(value)
        array = tensor.numpy()
        fresh = int(np.count_nonzero(array[mask]))
        if not fresh:
            continue
        changed += fresh
        _replace(model.graph, value, ir.tensor(np.where(mask, array.dtype.type(0), array)))
    return changed


def _replace(graph: ir.Graph, value: ir.Value, tensor: ir.TensorProtocol) -> None:
    tensor.name = value.name
    if value.producer() is None:
        value.const_value = tensor
        return
    node = value.producer()
    assert node is not None
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)
