"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from irtools.backends._block_tables import DOMAIN, lower_lookup
from irtools.model.walk import nested_graphs

__all__ = ["lower"]


def lower(model: ir.Model) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself; only lookups in tables of 4-bit blocks are
    rewritten, which it would expand when it loads the model.
    """
    nodes = [node for graph in nested_graphs(model.graph) for node in graph]
    lookups = sum(lower_lookup(node) for node in nodes)
    if lookups:
        model.graph.opset_imports.setdefault(DOMAIN, 1)
    return {"GatherBlockQuantized": lookups} if lookups else {}
