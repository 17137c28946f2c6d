"""Adapters next to the weights of a model, known by a note in its metadata.

Their arrays are inputs with a default, which passes do not take for weights: the weights of the
base are quantized as ever, the adapter stays as it is. `inputs`: the default adds nothing, and a
caller gives an adapter. `constants`: the default is the adapter, and `fix_adapter` makes constants
of it when the model is lowered.
"""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["ADAPTERS", "adapter_inputs", "fix_adapter", "switches_adapters"]

ADAPTERS = "adapters"
"""Key in the metadata: `inputs` or `constants`."""

_SUFFIXES = (".lora_A", ".lora_B")


def switches_adapters(model: ir.Model) -> bool:
    """Whether a caller may give the model an adapter."""
    return model.metadata_props.get(ADAPTERS) == "inputs"


def adapter_inputs(model: ir.Model) -> tuple[ir.Value, ...]:
    """Return the inputs for factors of adapters, in order."""
    if ADAPTERS not in model.metadata_props:
        return ()
    return tuple(
        value
        for value in model.graph.inputs
        if value.is_initializer() and (value.name or "").endswith(_SUFFIXES)
    )


def fix_adapter(model: ir.Model) -> int:
    """Let the adapter of a model that holds one be constants in place; return how many."""
    if model.metadata_props.get(ADAPTERS) != "constants":
        return 0
    fixed = adapter_inputs(model)
    for value in fixed:
        model.graph.inputs.remove(value)
        assert value.const_value is not None
        value.shape = ir.Shape(value.const_value.shape.numpy())
    return len(fixed)
