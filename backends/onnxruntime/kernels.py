"""Counting the kernels that ONNX Runtime chose, in the graph it optimized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irtools.targets import KernelReport

if TYPE_CHECKING:
    import onnx

__all__ = ["count_kernels", "count_providers"]

_INT8 = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
        "QMoE",
    }
)
_FLOAT = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}
)
_ATTENTION = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention", "QAttention"})
_MOVES_DATA = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def count_kernels(path: Path) -> KernelReport:
    """Read an optimized model, without its weights, and count.

    MatMulNBits counts as int8 where its `accuracy_level` is 4: it then quantizes its
    activations per block.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    nodes = list(_nodes(model.graph))
    counts = Counter(node.op_type for node in nodes)
    return KernelReport(
        counts=dict(sorted(counts.items())),
        int8=sum(_is_int8(node) for node in nodes),
        float_fallbacks=tuple(_fallbacks(nodes)),
        fused_attention=sum(counts[op] for op in _ATTENTION),
    )


def count_providers(session: Any) -> dict[str, int]:
    """Return how many nodes each execution provider of a session took.

    A part of the graph that a provider compiles as a whole (TensorRT) counts with the nodes that
    it was made of.

    Args:
        session: Made with `session.record_ep_graph_assignment_info`.
    """
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(sorted(counts.items()))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == attribute.GRAPH:
                yield from _nodes(attribute.g)


def _is_int8(node: onnx.NodeProto) -> bool:
    if node.op_type == "MatMulNBits":
        return any(a.name == "accuracy_level" and a.i == 4 for a in node.attribute)
    return node.op_type in _INT8


def _fallbacks(nodes: list[onnx.NodeProto]) -> Iterator[str]:
    """Yield float GEMMs and convolutions of which both operands were quantized.

    With quantized weights alone an operator is compressed, and meant to compute in float.
    """
    producers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type in _FLOAT and all(
            _is_dequantized(name, producers) for name in node.input[:2]
        ):
            yield node.name or node.output[0]


def _is_dequantized(name: str, producers: dict[str, onnx.NodeProto]) -> bool:
    node = producers.get(name)
    while node is not None and node.op_type in _MOVES_DATA:
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"
