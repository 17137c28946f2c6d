"""Forms that only ONNX Runtime understands, made last."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from irtools.target import Capabilities

__all__ = ["lower"]


def lower(model: ir.Model, capabilities: Capabilities) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form."""
    if model.ir_version > capabilities.max_ir_version:
        model.ir_version = capabilities.max_ir_version
        return {"ir-version": 1}
    return {}
