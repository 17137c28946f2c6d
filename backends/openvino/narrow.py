"""Codes of 2 bits in 4, exactly.

OpenVINO 2026.4 reads 2 bits in com.microsoft.MatMulNBits alone. It has no kernel for them in bf16,
in which it computes where the CPU can, and then gives outputs without rows where sizes are open.
Which CPU an artifact will meet is not known when it is written.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.model import iter_graphs

__all__ = ["has_narrow", "widen_codes"]

_WIDER = {ir.DataType.INT2: ml_dtypes.int4, ir.DataType.UINT2: ml_dtypes.uint4}


def has_narrow(model: ir.Model) -> bool:
    """Whether a model has constants of 2 bits."""
    return bool(_narrow(model))


def widen_codes(model: ir.Model) -> int:
    """Store constants of 2 bits in 4, in place; returns how many there were."""
    editor = Editor(model, "lower")
    found = _narrow(model)
    for graph, name, value in found:
        tensor = value.const_value
        assert tensor is not None and value.dtype is not None
        wide = tensor.numpy().astype(np.int8).astype(_WIDER[value.dtype])
        del graph.initializers[name]
        value.replace_all_uses_with(editor.named_constant(name, wide, graph=graph))
    return len(found)


def _narrow(model: ir.Model) -> list[tuple[ir.Graph, str, ir.Value]]:
    return [
        (graph, name, value)
        for graph in iter_graphs(model)
        for name, value in graph.initializers.items()
        if value.dtype in _WIDER and value.const_value is not None
    ]
