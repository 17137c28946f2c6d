"""Declared shapes that cannot be true.

A file may declare the shapes of inner tensors (`value_info`) and of outputs. Tools that convert
models leave old ones there: another batch, another width, no rank at all. The checker does not
mind; runtimes fold sizes by them and give wrong results. What contradicts the operators is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx_ir as ir

from irtools.model.inference import inferred_types, without_declared
from irtools.model.scopes import shown
from irtools.model.walk import iter_graphs
from irtools.words import counted

__all__ = ["drop_stale_shapes"]

_TRIED_SIZES = (64, 96)
_STEP = 192
"""Sizes of free axes: multiples of 32, which most models take, and no two of them the same."""


def drop_stale_shapes(model: ir.Model, message: onnx.ModelProto) -> tuple[str, ...]:
    """Drop declared shapes that contradict what ONNX infers from the inputs alone, in place.

    Of a shape of the right rank only the wrong sizes are left open. A number contradicts another
    number, and the name of a size of an input: callers may choose that. Where a size follows from
    such a one (a Reshape to [-1, 8]), numbers in the place of the name show it. Names never
    contradict, and where nothing is inferred the declaration stands.

    Args:
        model: The model.
        message: What it was read from; stays as it is.

    Returns:
        A note, where there were any.
    """
    if not _declares(model):
        return ()
    dims = (dim for value in model.graph.inputs for dim in value.shape or ())
    free = frozenset(d.value for d in dims if isinstance(d, ir.SymbolicDim) and d.value)
    found = []
    light = without_declared(message)
    pairs = list(inferred_types(model, light))
    varying = _varying(model, light, free) if any(_is_open(*pair) for pair in pairs) else {}
    for value, shape in pairs:
        if value.shape is None:
            continue
        wrong = _contradictions(value.shape, shape, free, varying.get(value, {}))
        if wrong is None:
            axes = counted(len(shape.dim), "axis", "axes")
            found.append(f"{shown(value.name)} {value.shape}, which has {axes}")
            value.shape = None
        elif wrong:
            axis, size = next(iter(wrong.items()))
            found.append(f"{shown(value.name)} {value.shape}, axis {axis} is {size}")
            value.shape = ir.Shape(
                [None if place in wrong else dim for place, dim in enumerate(value.shape)]
            )
    if not found:
        return ()
    number = counted(len(found), "declared shape")
    word = "contradicts" if len(found) == 1 else "contradict"
    return (f"{number} {word} the operators and {_was(len(found))} dropped: {found[0]}",)


def _is_open(value: ir.Value, inferred: onnx.TensorShapeProto) -> bool:
    """Whether a size is declared as a number of which nothing is inferred."""
    if value.shape is None or len(value.shape) != len(inferred.dim):
        return False
    pairs = zip(value.shape, inferred.dim, strict=True)
    return any(isinstance(size, int) and not dim.HasField("dim_value") for size, dim in pairs)


def _varying(
    model: ir.Model, light: onnx.ModelProto, free: frozenset[str]
) -> dict[ir.Value, dict[int, str]]:
    """Return axes that are declared as numbers and change with the free sizes of the inputs."""
    if not free:
        return {}
    names = sorted(free)
    tries = [{name: size + _STEP * n for n, name in enumerate(names)} for size in _TRIED_SIZES]
    first, second = (dict(inferred_types(model, light, sizes)) for sizes in tries)
    found: dict[ir.Value, dict[int, str]] = {}
    for value, shape in first.items():
        other = second.get(value)
        if value.shape is None or other is None or len(shape.dim) != len(other.dim):
            continue
        for axis, (a, b) in enumerate(zip(shape.dim, other.dim, strict=True)):
            if a.HasField("dim_value") and b.HasField("dim_value") and a.dim_value != b.dim_value:
                found.setdefault(value, {})[axis] = "not the same for all sizes of the inputs"
    return found


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _declares(model: ir.Model) -> bool:
    inner = (v for graph in iter_graphs(model) for node in graph for v in node.outputs)
    return any(value.shape is not None for value in inner)


def _contradictions(
    declared: ir.Shape,
    inferred: onnx.TensorShapeProto,
    free: frozenset[str],
    varying: Mapping[int, str],
) -> Mapping[int, object] | None:
    """Return wrong axes with what they are; None where the rank itself is wrong."""
    if len(declared) != len(inferred.dim):
        return None
    wrong: dict[int, object] = {}
    for axis, (size, dim) in enumerate(zip(declared, inferred.dim, strict=True)):
        if not isinstance(size, int):
            continue
        if dim.HasField("dim_value") and dim.dim_value != size:
            wrong[axis] = dim.dim_value
        elif dim.HasField("dim_param") and dim.dim_param in free:
            wrong[axis] = shown(dim.dim_param)
        elif not dim.HasField("dim_value") and axis in varying:
            wrong[axis] = varying[axis]
    return wrong
