"""Where a model multiplies by, or looks up in, a constant tensor that could be int8.

    MatMul   X [.., K] @ W [K, N]          channel axis 1 (0 after a Transpose of W [N, K])
    Gemm     X [M, K] @ W [K, N] + b       channel axis 1 (0 with transB)
    Conv     X [B, I, ..] * W [O, I/g, ..] channel axis 0
    Gather   rows of W [V, H], H > 1       row axis 0

Reads the model and never writes. Scope: the main graph; what is in subgraphs and local
functions is left alone and counted. `slots` has what can be stored in 8 bits, anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.editing import constant_of, require_constant
from irtools.model import iter_graphs

__all__ = [
    "QUANTIZED_OPS",
    "Bias",
    "Sites",
    "Use",
    "Weight",
    "find_sites",
    "is_expansion",
    "is_outlier_product",
]

UseKind: TypeAlias = Literal["matmul", "gemm", "conv", "gather"]

# Operators that multiply by a constant in a form that is left in floating point.
_OTHER_GEMMS = frozenset({"ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "DeformConv"})

QUANTIZED_OPS = frozenset(
    {
        "MatMulInteger",
        "ConvInteger",
        "QLinearMatMul",
        "QLinearConv",
        "MatMulIntegerToFloat",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulNBits",
        "QGemm",
        "GatherBlockQuantized",
    }
)

# Operator to the inputs that may be 8-bit weights expanded in front of it.
_EXPANDED_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "Einsum": (0, 1),
    "GRU": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1),
    "LSTM": (1, 2),
    "MatMul": (0, 1),
    "RNN": (1, 2),
}


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


@dataclass(frozen=True)
class Sites:
    """What could be quantized, in graph order, and what could not.

    Attributes:
        skipped: Statistic name to count.
        names: Statistic name to the first few names after the count.
    """

    weights: tuple[Weight, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_sites(model: ir.Model) -> Sites:
    """Find every constant tensor whose readers can all take it as int8."""
    finder = _Finder()
    for node in model.graph:
        finder.visit(node)
    for graph in iter_graphs(model):
        if graph is not model.graph:
            for node in graph:
                if _as_use(node) is not None:
                    finder.skip("num-skipped-subgraph", _label(node))
    return Sites(
        tuple(finder.weights),
        dict(finder.skipped),
        {reason: tuple(names[:5]) for reason, names in finder.names.items()},
    )


class _Finder:
    def __init__(self) -> None:
        self.weights: list[Weight] = []
        self.skipped: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        self._seen: set[ir.Value] = set()

    def skip(self, reason: str, name: str | None) -> None:
        self.skipped[reason] += 1
        self.names.setdefault(reason, []).append(name or "?")

    def visit(self, node: ir.Node) -> None:
        reason = _refusal(node)
        if reason is not None:
            self.skip(reason, _label(node))
        use = _as_use(node)
        value = use.weight if use is not None else None
        if value is None or value in self._seen:
            return
        self._seen.add(value)
        tensor = require_constant(value)
        if tensor.dtype != ir.DataType.FLOAT:
            # Integer tables are read by Gathers of shape arithmetic: nothing to count.
            if tensor.dtype.is_floating_point():
                self.skip("num-skipped-dtype", value.name)
            return
        uses = _all_uses(value)
        if uses is None:
            self.skip("num-skipped-shared", value.name)
        else:
            self.weights.append(Weight(value, tensor, uses))


def _all_uses(value: ir.Value) -> tuple[Use, ...] | None:
    """Return every use of a weight, or None where another node needs it as it is."""
    uses = []
    for node in _readers(value):
        use = _as_use(node) if node.graph is not None and node.graph is value.graph else None
        if use is None or use.weight is not value:
            return None
        uses.append(use)
    return None if value.is_graph_output() else tuple(uses)


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Yield who reads a weight, looking through Transposes of it."""
    for node, _ in value.uses():
        if _is_transpose(node) and not node.outputs[0].is_graph_output():
            yield from (reader for reader, _ in node.outputs[0].uses())
        else:
            yield node


def _label(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or node.op_type


def _refusal(node: ir.Node) -> str | None:
    """Why a node that multiplies by a constant is not a site, or None."""
    if node.op_type in QUANTIZED_OPS or _reads_dequantized(node) or is_outlier_product(node):
        return "num-already-quantized"
    if node.op_type in _OTHER_GEMMS and any(constant_of(v) is not None for v in node.inputs[1:]):
        return "num-skipped-operator"
    if node.op_type in ("MatMul", "Gemm", "Conv") and _as_use(node) is None:
        stored = [_behind_transpose(v)[0] for v in node.inputs[:2]]
        return "num-skipped-operator" if any(constant_of(v) is not None for v in stored) else None
    return None


def _reads_dequantized(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type not in _EXPANDED_INPUTS:
        return False
    found = [_behind_transpose(v)[0] for i, v in enumerate(node.inputs) if _may_expand(node, i)]
    tensor = constant_of(found[0]) if node.op_type == "Gather" else None
    if tensor is not None:
        return tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)
    return any(is_expansion(value) for value in found)


def _may_expand(node: ir.Node, index: int) -> bool:
    return index in _EXPANDED_INPUTS[node.op_type]


def is_expansion(value: ir.Value | None) -> bool:
    """Whether a value is a constant of 8 bits times a scale: a DequantizeLinear, or Cast and Mul.

    The Mul may be followed by a Cast to the type of the model.
    """
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Cast":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None or node.domain != "":
        return False
    if node.op_type == "DequantizeLinear":
        return constant_of(node.inputs[0]) is not None
    if node.op_type != "Mul" or node.inputs[0] is None:
        return False
    value = node.inputs[0]
    while value is not None and (cast := value.producer()) is not None and cast.op_type == "Cast":
        value = cast.inputs[0]
    tensor = constant_of(value) if value is not node.inputs[0] else None
    return tensor is not None and tensor.dtype in (ir.DataType.INT8, ir.DataType.UINT8)


def is_outlier_product(node: ir.Node) -> bool:
    """Whether picked channels are multiplied next to a quantization of all of them."""
    picked = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if node.op_type != "MatMul" or picked is None or picked.op_type != "Gather":
        return False
    whole, places = picked.inputs[:2]
    readers = whole.consumers() if whole is not None else ()
    return constant_of(places) is not None and any(
        reader.op_type == "QuantizeLinear" for reader in readers
    )


def _as_use(node: ir.Node) -> Use | None:
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
    stored, transpose = _behind_transpose(node.inputs[1])
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
    stored, transpose = _behind_transpose(node.inputs[1])
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


def _behind_transpose(value: ir.Value | None) -> tuple[ir.Value | None, ir.Node | None]:
    node = value.producer() if value is not None else None
    if node is None or not _is_transpose(node):
        return value, None
    perm = node.attributes.get_ints("perm", None)
    return (node.inputs[0], node) if perm is None or tuple(perm) == (1, 0) else (value, None)


def _is_transpose(node: ir.Node) -> bool:
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
