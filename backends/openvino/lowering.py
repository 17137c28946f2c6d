"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from irtools.analysis.adapters import fix_adapter, switches_adapters
from irtools.backends.block_tables import BlockLookup
from irtools.backends.unsigned_weights import make_weights_unsigned
from irtools.editing import Editor, rewrite
from irtools.errors import UnsupportedError
from irtools.targets import Capabilities

__all__ = ["lower"]


def lower(model: ir.Model, capabilities: Capabilities) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself. Only lookups in tables of 4-bit blocks are
    rewritten, which it would expand when it loads the model, and weights whose products would
    saturate, which it multiplies in float32 if they are unsigned.

    Raises:
        UnsupportedError: The model has adapters as inputs.
    """
    if switches_adapters(model):
        raise UnsupportedError(
            "OpenVINO takes inputs with a default for constants, so adapters cannot be switched "
            "there: export one of them with --adapters-as constants, or merged"
        )
    counts = Counter({"adapter-constants": fix_adapter(model)})
    counts.update(rewrite(Editor(model, "lower"), [BlockLookup()]).counts)
    if capabilities.saturates_u8s8:
        counts["unsigned-weights"] += make_weights_unsigned(model)
    return dict(+counts)
