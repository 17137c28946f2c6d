"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from irtools.backends.block_tables import BlockLookup
from irtools.editing import Editor, rewrite

__all__ = ["lower"]


def lower(model: ir.Model) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself; only lookups in tables of 4-bit blocks are
    rewritten, which it would expand when it loads the model.
    """
    return dict(rewrite(Editor(model, "lower"), [BlockLookup()]).counts)
