"""What a model consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.costs import count_flops
from irtools.analysis.decoder import find_decoder
from irtools.analysis.provenance import module_name
from irtools.model import Interface, Model, count_listed, dtype_text, iter_graphs, iter_nodes
from irtools.operators import find_op

__all__ = ["HotSpot", "Inspection", "SharedWeight", "inspect_model", "quantized_share"]

_QUANTIZE = ("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear")
_INTEGER_WEIGHTS = frozenset(
    {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4}
)
_FLOAT_WEIGHTS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)

_MANY = 1024


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
        flops: Of products, convolutions, attention and recurrent layers at the sizes asked for;
            None where there are none or shapes are unknown.
        flops_notes: How control flow was counted, and what could not be.
        unknown_ops: Operators that no standard defines, as domain::operator.
        listed_numbers: Operator to the numbers that its nodes hold as attributes, where there are
            many: the trees of a forest.
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
    flops_notes: tuple[str, ...]
    hot_spots: tuple[HotSpot, ...]
    unknown_ops: tuple[str, ...]
    listed_numbers: Mapping[str, int]


def inspect_model(
    model: Model, *, batch: int = 1, sequence: int = 128, past: int | None = None, top: int = 10
) -> Inspection:
    """Describe a model.

    Args:
        model: The model.
        batch: Size of dynamic first axes, for counting operations.
        sequence: Size of all other dynamic axes; of a decoder with a cache, tokens of the prompt.
        past: Tokens in the cache of a decoder that reads one more; None: it reads a prompt.
        top: Number of hot spots.
    """
    sizes = _sizes(model, batch, sequence) | _decoder_sizes(model, sequence, past)
    costs = count_flops(model.ir, sizes)
    spots = sorted(costs.flops, key=lambda item: -item[1])[:top]
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
        quantized_share=quantized_share(model),
        quantized_nodes=sum(_is_quantized(node) for node in iter_nodes(model.ir)),
        sizes=sizes,
        flops=costs.total or None,
        flops_notes=costs.notes,
        hot_spots=tuple(
            HotSpot(module_name(node), _op(node), count, count / costs.total)
            for node, count in spots
        ),
        unknown_ops=tuple(f"{domain}::{op}" for domain, op in model.unknown_ops()),
        listed_numbers=_listed_numbers(model),
    )


def _listed_numbers(model: Model) -> dict[str, int]:
    found: Counter[str] = Counter()
    for node in iter_nodes(model.ir):
        found[_op(node)] += count_listed(node)
    return {op: count for op, count in found.most_common() if count >= _MANY}


def _op(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _is_quantized(node: ir.Node) -> bool:
    op = find_op(node.domain, node.op_type)
    return op is not None and (op.integers or op.name in _QUANTIZE)


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


def quantized_share(model: Model) -> float:
    """Return the part of the weight elements of matrices and filters that are small integers."""
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
    """Choose a size for every dynamic axis of the inputs, as INPUT.AXIS where it has no name."""
    sizes: dict[str, int] = {}
    for info in model.interface.inputs:
        for axis, dim in enumerate(info.shape or ()):
            if not isinstance(dim, int):
                name = f"{info.name}.{axis}" if dim is None else dim
                sizes.setdefault(name, batch if axis == 0 else sequence)
    return sizes


def _decoder_sizes(model: Model, sequence: int, past: int | None) -> dict[str, int]:
    """Choose the sizes of a prompt, or of one token after a past, and of both together."""
    decoder = find_decoder(model.ir)
    if decoder is None:
        return {}
    new, read = (sequence, 0) if past is None else (1, past)
    mask = next((i for i in model.interface.inputs if i.name == decoder.mask), None)
    total = None if mask is None or mask.shape is None else mask.shape[-1]
    named: list[tuple[int | str | None, int]] = [
        (total, read + new),
        (decoder.axis, new),
        *((cache.axis, read) for cache in decoder.past),
    ]
    return {axis: size for axis, size in named if isinstance(axis, str)}
