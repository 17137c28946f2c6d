"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

__all__ = ["lower"]


def lower(model: ir.Model) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself, so nothing is rewritten.
    """
    return {}
