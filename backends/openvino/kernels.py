"""Counting the layers that OpenVINO chose, by their precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any

from irtools.targets import KernelReport

__all__ = ["count_kernels", "quantized_ops"]

_GEMMS = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution", "MatMul"})
_LAYERS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_ATTENTION = frozenset({"MHA", "SDPAWithKVCache", "ScaledDotProductAttention"})
_MOVES_DATA = frozenset({"Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_INT8 = frozenset({"i8", "u8"})


def quantized_ops(model: Any) -> frozenset[str]:
    """Return the names of GEMMs and convolutions of an `openvino.Model` with two quantized sides.

    Ask before compiling: compiling leaves the model alone, but the runtime model has no
    dequantization left to see. An operator with quantized weights alone is not among them: it
    is compressed, and meant to compute in float.
    """
    return frozenset(
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() in _GEMMS and all(_is_dequantized(op, port) for port in (0, 1))
    )


def count_kernels(runtime_model: Any, quantized: Container[str]) -> KernelReport:
    """Read layer types and precisions from `CompiledModel.get_runtime_model()`.

    Args:
        runtime_model: What the plug-in runs.
        quantized: Operators meant to be int8 (`quantized_ops`).
    """
    counts: Counter[str] = Counter()
    int8 = 0
    fallbacks = []
    for op in runtime_model.get_ordered_ops():
        info = op.get_rt_info()
        kind, precision = _text(info, "layerType"), _text(info, "runtimePrecision")
        if kind not in _LAYERS:
            counts[kind] += 1
            continue
        counts[f"{kind}[{precision}]"] += 1
        int8 += precision in _INT8
        if precision not in _INT8:
            names = _text(info, "originalLayersNames").split(",")
            fallbacks += [name for name in names if name in quantized]
    attention = sum(counts[kind] for kind in _ATTENTION)
    return KernelReport(dict(sorted(counts.items())), int8, tuple(fallbacks), attention)


def _is_dequantized(op: Any, port: int) -> bool:
    """Whether an input is scale * (convert(integers) - zero point), or a FakeQuantize."""
    kinds = [node.get_type_name() for node in _upstream(op, port)]
    while kinds and kinds[0] in _MOVES_DATA:
        kinds.pop(0)
    if kinds[:1] == ["FakeQuantize"]:
        return True
    return kinds[:2] == ["Multiply", "Convert"] or kinds[:3] == ["Multiply", "Subtract", "Convert"]


def _upstream(op: Any, port: int, limit: int = 8) -> Iterator[Any]:
    for _ in range(limit):
        if op.get_input_size() <= port:
            return
        op = op.input_value(port).get_node()
        port = 0
        yield op


def _text(info: Any, key: str) -> str:
    if key not in info:
        return ""
    found = info[key]
    return str(found.astype(str)) if hasattr(found, "astype") else str(found)
