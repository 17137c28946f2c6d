"""What a model consists of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.model import Interface, Model, iter_graphs, iter_nodes
from irtools.model.interface import dtype_text

__all__ = ["HotSpot", "Inspection", "SharedWeight", "inspect_model"]

_QUANTIZED_OPS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
_INTEGER_WEIGHTS = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4}
)
_FLOAT_WEIGHTS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)


@dataclass(frozen=True)
class SharedWeight:
    """A weight that several nodes read."""

    name: str
    shape: tuple[int, ...]
    bytes: int
    uses: int


@dataclass(frozen=True)
class HotSpot:
    """A node that takes many multiplications.

    Attributes:
        flops: Floating-point operations at the sizes asked for; a multiply-add counts as two.
        share: Part of the model's.
    """

    node: str
    op: str
    flops: int
    share: float


@dataclass(frozen=True)
class Inspection:
    """What a model consists of.

    Attributes:
        bytes_by_dtype: Bytes of weights by element type; a shared tensor counts once.
        quantized_share: Part of the weight elements of matrices and filters that are integers of
            at most 8 bits.
        quantized_nodes: Nodes that quantize, dequantize, or compute in integers.
        flops: Of MatMul, Gemm and Conv at the sizes asked for; None where shapes are unknown.
        unknown_ops: Operators that no standard defines, as domain::operator.
    """

    source: str
    sha256: str
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    interface: Interface
    ops: Mapping[str, int]
    parameters: int
    weight_bytes: int
    bytes_by_dtype: Mapping[str, int]
    shared: tuple[SharedWeight, ...]
    quantized_share: float
    quantized_nodes: int
    sizes: Mapping[str, int]
    flops: int | None
    hot_spots: tuple[HotSpot, ...]
    unknown_ops: tuple[str, ...]


def inspect_model(
    model: Model, *, batch: int = 1, sequence: int = 128, top: int = 10
) -> Inspection:
    """Describe a model.

    Args:
        model: The model.
        batch: Size of dynamic first axes, for counting operations.
        sequence: Size of all other dynamic axes.
        top: Number of hot spots.
    """
    sizes = _sizes(model, batch, sequence)
    flops = dict(_flops(model, sizes))
    total = sum(flops.values())
    spots = sorted(flops.items(), key=lambda item: -item[1])[:top]
    return Inspection(
        source=str(model.source or "memory"),
        sha256=model.fingerprint(),
        ir_version=model.ir.ir_version,
        opsets={domain or "ai.onnx": v for domain, v in model.ir.opset_imports.items()},
        producer=" ".join(filter(None, (model.ir.producer_name, model.ir.producer_version))),
        interface=model.interface,
        ops=dict(Counter(_op(node) for node in iter_nodes(model.ir)).most_common()),
        parameters=model.num_parameters,
        weight_bytes=model.weight_bytes,
        bytes_by_dtype=_bytes_by_dtype(model),
        shared=tuple(_shared(model)),
        quantized_share=_quantized_share(model),
        quantized_nodes=sum(_is_quantized(node) for node in iter_nodes(model.ir)),
        sizes=sizes,
        flops=total or None,
        hot_spots=tuple(
            HotSpot(module_name(node), _op(node), count, count / total) for node, count in spots
        ),
        unknown_ops=tuple(f"{domain}::{op}" for domain, op in model.unknown_ops()),
    )


def _op(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _is_quantized(node: ir.Node) -> bool:
    return node.op_type in _QUANTIZED_OPS or node.op_type in ("QuantizeLinear", "DequantizeLinear")


def _tensors(model: Model) -> Iterator[ir.TensorProtocol]:
    """Yield initializers and constants, each tensor once."""
    seen: set[int] = set()
    for graph in iter_graphs(model.ir):
        found = [value.const_value for value in graph.initializers.values()]
        found += [
            node.attributes["value"].as_tensor()
            for node in graph
            if node.op_type == "Constant" and "value" in node.attributes
        ]
        for tensor in found:
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor


def _bytes_by_dtype(model: Model) -> dict[str, int]:
    total: Counter[str] = Counter()
    for tensor in _tensors(model):
        total[dtype_text(tensor.dtype)] += tensor.nbytes
    return dict(total.most_common())


def _quantized_share(model: Model) -> float:
    integers = floats = 0
    for tensor in _tensors(model):
        if len(tensor.shape) >= 2:
            integers += tensor.size if tensor.dtype in _INTEGER_WEIGHTS else 0
            floats += tensor.size if tensor.dtype in _FLOAT_WEIGHTS else 0
    return integers / (integers + floats) if integers else 0.0


def _shared(model: Model) -> Iterator[SharedWeight]:
    """Yield weights of matrices that several nodes read, the largest first."""
    found = [
        SharedWeight(name, tuple(tensor.shape.numpy()), tensor.nbytes, len(value.uses()))
        for graph in iter_graphs(model.ir)
        for name, value in graph.initializers.items()
        if (tensor := value.const_value) is not None
        and len(tensor.shape) >= 2
        and len(value.uses()) > 1
    ]
    yield from sorted(found, key=lambda weight: -weight.bytes)


def _sizes(model: Model, batch: int, sequence: int) -> dict[str, int]:
    """Choose a size for every named dynamic axis of the inputs."""
    sizes: dict[str, int] = {}
    for info in model.interface.inputs:
        for axis, dim in enumerate(info.shape or ()):
            if isinstance(dim, str):
                sizes.setdefault(dim, batch if axis == 0 else sequence)
    return sizes


def _flops(model: Model, sizes: Mapping[str, int]) -> Iterator[tuple[ir.Node, int]]:
    copy = model.clone()
    for value in copy.ir.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([_bound(dim, sizes) for dim in value.shape])
    shapes = SymbolicShapes.of(copy.ir)
    for node in copy.ir.graph:
        count = _count(node, shapes)
        if count:
            yield node, count


def _bound(dim: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    return sizes[dim.value]


def _count(node: ir.Node, shapes: SymbolicShapes) -> int | None:
    """Return 2 x outputs x length of the sums, or None for other operators and unknown shapes."""
    depth = _depth(node, shapes)
    out = _known(shapes.shape(node.outputs[0]))
    return None if depth is None or out is None else 2 * depth * math.prod(out)


def _depth(node: ir.Node, shapes: SymbolicShapes) -> int | None:
    """Return how many products are summed for each element of the output."""
    match node.op_type:
        case "MatMul" | "Gemm" | "FusedMatMul" | "MatMulInteger":
            transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", None) == 1
            left = shapes.shape(node.inputs[0])
            depth = None if not left else left[0 if transposed else -1]
            return depth if isinstance(depth, int) else None
        case "Conv":
            weight = _known(shapes.shape(node.inputs[1]))
            return None if weight is None else math.prod(weight[1:])
        case _:
            return None


def _known(shape: Shape | None) -> list[int] | None:
    sizes = [size for size in shape or () if isinstance(size, int)]
    return sizes if shape is not None and len(sizes) == len(shape) else None
