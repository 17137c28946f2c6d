"""Stored weights whose integers a runtime could misread.

A runtime may keep Cast(int8 W) * scale in front of MatMul and Gather as integers, and take the
scales as those of other elements where they do not follow the rows or columns:

- Gather, where scales differ along another axis than the first;
- products whose other factor is constant as well;
- products by a weight that was reshaped on its way, so that a scale serves no row or column;
- recurrent layers.

A Cast to int32 before the one to float32 hides the integers, and is folded like the rest when the
model is loaded (`Capabilities.hides_stored_codes`).
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from irtools.editing import constant_of
from irtools.passes.quantization.sites.quantized import is_expansion
from irtools.passes.quantization.sites.slots import Axes
from irtools.passes.quantization.sites.stored import StoredWeight

__all__ = ["misleads"]

_TURNS = frozenset({"Cast", "Identity", "Transpose"})
_MOVES = _TURNS | {"Flatten", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"}
_FACTORS = 2


def misleads(weight: StoredWeight, axes: Axes) -> bool:
    """Whether the scales of a weight could be taken as those of other elements.

    Args:
        weight: Not yet replaced.
        axes: Along which its scales differ.
    """
    if weight.kind == "recurrent":
        return True
    if any(node.op_type == "Gather" for node in weight.readers) and axes not in ((), (0,)):
        return True
    products = [node for node in weight.readers if node.op_type not in ("Conv", "ConvTranspose")]
    return any(map(_has_constant_factors, products)) or (
        weight.kind == "product" and not set(_ways(weight.value)) <= _TURNS
    )


def _has_constant_factors(node: ir.Node) -> bool:
    factors = node.inputs[:_FACTORS]
    return len(factors) == _FACTORS and all(map(_is_constant, factors))


def _is_constant(value: ir.Value | None) -> bool:
    while value is not None and not is_expansion(value):
        node = value.producer()
        if node is None or node.op_type not in _MOVES:
            return constant_of(value) is not None
        value = node.inputs[0]
    return value is not None


def _ways(value: ir.Value) -> Iterator[str]:
    """Yield the operators that move a constant on its way to its readers."""
    for node, _ in value.uses():
        if node.op_type in _MOVES and node.domain == "":
            yield node.op_type
            for output in node.outputs:
                yield from _ways(output)
