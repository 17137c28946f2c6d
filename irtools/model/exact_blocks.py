"""Weights in blocks whose activations are not to be rounded.

Kernels for such weights may quantize activations on the way. Standard ONNX has no word for that, so
the DequantizeLinear of a weight carries a mark, which lowerings read.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["ask_for_exact_activations", "has_exact_activations"]

_KEY = "exact_activations"


def ask_for_exact_activations(dequantize: ir.Node) -> None:
    """Mark the DequantizeLinear of a weight."""
    dequantize.metadata_props[_KEY] = "true"


def has_exact_activations(dequantize: ir.Node) -> bool:
    """Whether the DequantizeLinear of a weight is marked."""
    return dequantize.metadata_props.get(_KEY) == "true"
