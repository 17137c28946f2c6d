"""Counting the layers that OpenVINO chose, by their precision."""

from __future__ import annotations

from collections import Counter
from typing import Any

from irtools.target import KernelReport

__all__ = ["count_kernels"]

_COMPUTE = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "gemm"})
_INT8 = frozenset({"i8", "u8"})
_ATTENTION = frozenset(
    {"MHA", "PagedAttentionExtension", "SDPAWithKVCache", "ScaledDotProductAttention"}
)


def count_kernels(runtime_model: Any) -> KernelReport:
    """Read layer types and precisions from `CompiledModel.get_runtime_model()`.

    A GEMM that kept a FakeQuantize or Quantize on its input but computes in float is a
    fallback: the operator was meant to be int8.
    """
    counts: Counter[str] = Counter()
    int8 = attention = 0
    fallbacks = []
    for op in runtime_model.get_ordered_ops():
        info = op.get_rt_info()
        kind, precision = _text(info, "layerType"), _text(info, "runtimePrecision")
        if kind in _COMPUTE:
            counts[f"{kind}[{precision}]"] += 1
            int8 += precision in _INT8
            if precision not in _INT8 and _is_fed_by_quantizer(op):
                fallbacks.append(op.get_friendly_name())
        elif kind:
            counts[kind] += 1
        attention += kind in _ATTENTION
    return KernelReport(dict(sorted(counts.items())), int8, tuple(fallbacks), attention)


def _is_fed_by_quantizer(op: Any) -> bool:
    sources = (port.get_source_output().get_node() for port in op.inputs())
    return any(_text(s.get_rt_info(), "layerType") == "FakeQuantize" for s in sources)


def _text(info: Any, key: str) -> str:
    if key not in info:
        return ""
    found = info[key]
    return str(found.astype(str)) if hasattr(found, "astype") else str(found)
