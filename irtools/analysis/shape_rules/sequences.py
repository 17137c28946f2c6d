"""Sequences and optionals: they have no shape, only what is counted of them has."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from irtools.analysis.facts import Shape, ShapeFacts

__all__ = ["opaque", "scalar"]


def opaque(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """A sequence has no shape; that of an element is only known when the model runs."""
    return [None] * len(node.outputs)


def scalar(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """One number."""
    return [()] * len(node.outputs)
