"""Nodes that multiply by, or look up in, a constant tensor of the main graph.

MatMul   X [.., K] @ W [K, N]          channel axis 1 (0 after a Transpose of W [N, K])
Gemm     X [M, K] @ W [K, N] + b       channel axis 1 (0 with transB)
Conv     X [B, I, ..] * W [O, I/g, ..] channel axis 0
Gather   rows of W [V, H], H > 1       row axis 0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.editing import constant_of
from irtools.passes.quantization.sites.quantized import is_outlier_product

__all__ = ["Bias", "Use", "Weight", "as_use", "behind_transpose", "is_transpose"]

UseKind: TypeAlias = Literal["matmul", "gemm", "conv", "gather"]


@dataclass(frozen=True, eq=False)
class Bias:
    """A constant added to every output channel.

    Attributes:
        node: The node that reads it: the Add after a MatMul, or the Gemm or Conv itself.
        index: Which input of `node` it is.
        array: float32 [N].
    """

    node: ir.Node
    index: int
    array: np.ndarray


@dataclass(frozen=True, eq=False)
class Use:
    """One node that reads a weight.

    Attributes:
        node: The MatMul, Gemm, Conv or Gather.
        axis: Channel axis of the weight as it is stored.
        transpose: The Transpose between the weight and the node, if there is one.
    """

    node: ir.Node
    kind: UseKind
    axis: int
    transpose: ir.Node | None = None
    bias: Bias | None = None

    @property
    def activation(self) -> ir.Value:
        """The tensor that is multiplied; the indices of a Gather."""
        value = self.node.inputs[1 if self.kind == "gather" else 0]
        assert value is not None
        return value

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def weight(self) -> ir.Value:
        """The weight as it is stored, in front of the Transpose."""
        holder = self.transpose or self.node
        value = holder.inputs[0 if self.transpose or self.kind == "gather" else 1]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class Weight:
    """A constant float32 tensor, and every node that reads it."""

    value: ir.Value
    tensor: ir.TensorProtocol
    uses: tuple[Use, ...]

    @property
    def name(self) -> str:
        return self.value.name or ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod([int(d) for d in self.tensor.shape.numpy()]))

    def array(self) -> np.ndarray:
        """The values, as stored. Shared with the caller's model: never written into."""
        return self.tensor.numpy()


def as_use(node: ir.Node) -> Use | None:
    if node.domain != "" or is_outlier_product(node):
        return None
    match node.op_type:
        case "MatMul":
            return _matmul_use(node)
        case "Gemm":
            return _gemm_use(node)
        case "Conv" if _rank(node.inputs[1]) >= 3:
            bias = _own_bias(node)
            absent = len(node.inputs) < 3 or node.inputs[2] is None
            return Use(node, "conv", 0, None, bias) if bias is not None or absent else None
        case "Gather" if node.attributes.get_int("axis", 0) == 0 and _is_table(node.inputs[0]):
            return Use(node, "gather", 0)
    return None


def _matmul_use(node: ir.Node) -> Use | None:
    stored, transpose = behind_transpose(node.inputs[1])
    if _rank(stored) != 2 or constant_of(node.inputs[0]) is not None:
        return None
    return Use(node, "matmul", 0 if transpose else 1, transpose, _added_bias(node))


def _gemm_use(node: ir.Node) -> Use | None:
    if _rank(node.inputs[1]) != 2 or constant_of(node.inputs[0]) is not None:
        return None
    attributes = node.attributes
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = _own_bias(node)
    plain = (
        attributes.get_int("transA", 0) == 0
        and attributes.get_float("alpha", 1.0) == 1.0
        and (not has_bias or (attributes.get_float("beta", 1.0) == 1.0 and bias is not None))
    )
    axis = 0 if attributes.get_int("transB", 0) else 1
    return Use(node, "gemm", axis, None, bias) if plain else None


def _own_bias(node: ir.Node) -> Bias | None:
    """The bias input of a Gemm or Conv, where it is one constant number per output channel."""
    if len(node.inputs) < 3:
        return None
    weight = constant_of(node.inputs[1])
    if weight is None:
        return None
    by_row = node.op_type == "Conv" or node.attributes.get_int("transB", 0) == 1
    channels = int(weight.shape.numpy()[0 if by_row else 1])
    return _bias(node, 2, channels)


def _added_bias(node: ir.Node) -> Bias | None:
    """The constant of an Add that is the only reader of a MatMul."""
    output = node.outputs[0]
    readers = tuple(output.uses())
    stored, transpose = behind_transpose(node.inputs[1])
    weight = constant_of(stored)
    if output.is_graph_output() or len(readers) != 1 or weight is None:
        return None
    add, index = readers[0].node, readers[0].idx
    if add.op_type != "Add" or add.domain != "" or add.graph is not node.graph:
        return None
    channels = int(weight.shape.numpy()[0 if transpose else 1])
    return _bias(add, 1 - index, channels)


def _bias(node: ir.Node, index: int, channels: int) -> Bias | None:
    tensor = constant_of(node.inputs[index])
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    shape = tuple(tensor.shape.numpy())
    if shape != (channels,) and not (node.op_type == "Gemm" and shape == (1, channels)):
        return None
    array = tensor.numpy().reshape(channels)
    return Bias(node, index, array) if np.isfinite(array).all() else None


def behind_transpose(value: ir.Value | None) -> tuple[ir.Value | None, ir.Node | None]:
    node = value.producer() if value is not None else None
    if node is None or not is_transpose(node):
        return value, None
    perm = node.attributes.get_ints("perm", None)
    return (node.inputs[0], node) if perm is None or tuple(perm) == (1, 0) else (value, None)


def is_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.domain == ""


def _is_table(value: ir.Value | None) -> bool:
    """Whether a row has more than one number: else its scale is as large as the row itself, as in
    the table of row scales that a quantized embedding has.
    """
    tensor = constant_of(value)
    return tensor is not None and len(tensor.shape) == 2 and tensor.shape[1] != 1


def _rank(value: ir.Value | None) -> int:
    tensor = constant_of(value)
    return -1 if tensor is None else len(tensor.shape)
