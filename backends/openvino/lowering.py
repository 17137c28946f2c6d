"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from irtools.backends.block_tables import BlockLookup
from irtools.backends.openvino.narrow import NarrowProduct
from irtools.backends.unsigned_weights import make_weights_unsigned
from irtools.editing import Editor, rewrite
from irtools.targets import Capabilities

__all__ = ["lower"]


def lower(model: ir.Model, capabilities: Capabilities) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself. Only lookups in tables of 4-bit blocks are
    rewritten, which it would expand when it loads the model, products by weights of 2 bits, whose
    types it reads in com.microsoft.MatMulNBits alone (2026.4), and weights whose products would
    saturate, which it multiplies in float32 if they are unsigned.
    """
    editor = Editor(model, "lower")
    counts = Counter(rewrite(editor, [BlockLookup(), NarrowProduct()]).counts)
    if capabilities.saturates_u8s8:
        counts["unsigned-weights"] += make_weights_unsigned(model)
    return dict(+counts)
