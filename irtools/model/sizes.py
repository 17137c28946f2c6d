"""Numbers for sizes that a model leaves open."""

from __future__ import annotations

import re
from collections.abc import Mapping

import onnx_ir as ir

from irtools.errors import UsageError
from irtools.model.model import Model
from irtools.model.walk import iter_graphs

__all__ = ["with_sizes"]


def with_sizes(model: Model, sizes: Mapping[str, int]) -> Model:
    """Return a copy of a model that takes inputs of fixed sizes.

    Runtimes plan memory and choose kernels ahead for fixed shapes, and some devices take no
    others. Callers pad or cut what they feed to these sizes.

    Args:
        model: The model.
        sizes: By name of a dynamic axis (`batch`, `sequence`), which fixes it wherever it occurs,
            or by `INPUT.AXIS` (`input_ids.1`), which is for axes without a name.

    Raises:
        UsageError: No input has such an axis, it is fixed already, two sizes are given for it, or
            the size is below 1.
    """
    if not sizes:
        return model
    places = {key: _place(model.ir, key, size) for key, size in sizes.items()}
    _check_agreement(places, sizes)
    made = model.clone()
    inputs = {value.name: value for value in made.ir.graph.inputs}
    _fix_names(made.ir, {p: sizes[key] for key, p in places.items() if isinstance(p, str)})
    for key, place in places.items():
        if not isinstance(place, str):
            name, axis = place
            inputs[name].shape = _replaced(inputs[name].shape, axis, sizes[key])
    return made


def _place(model: ir.Model, key: str, size: int) -> str | tuple[str, int]:
    """Return the name of the axis that a key means; input and number of one without a name."""
    if size < 1:
        raise UsageError(f"size {key}={size}: expected 1 or more")
    shapes = {v.name or "": v.shape for v in model.graph.inputs if v.shape is not None}
    dims = [dim for shape in shapes.values() for dim in shape if isinstance(dim, ir.SymbolicDim)]
    names = {dim.value for dim in dims if dim.value is not None}
    if key in names:
        return key
    name, _, axis = key.rpartition(".")
    shape = shapes.get(name)
    if shape is None or not axis.isdecimal() or int(axis) >= len(shape):
        known = ", ".join(sorted(names)) or "none"
        raise UsageError(
            f"size {key}={size}: no input has such an axis; named ones are {known}, others are "
            "INPUT.AXIS, such as input_ids.1"
        )
    dim = shape[int(axis)]
    if not isinstance(dim, ir.SymbolicDim):
        raise UsageError(f"size {key}={size}: the model has fixed it to {dim}")
    return (name, int(axis)) if dim.value is None else dim.value


def _check_agreement(places: Mapping[str, str | tuple[str, int]], sizes: Mapping[str, int]) -> None:
    first: dict[str | tuple[str, int], str] = {}
    for key, place in places.items():
        other = first.setdefault(place, key)
        if sizes[other] != sizes[key]:
            raise UsageError(
                f"sizes {other}={sizes[other]} and {key}={sizes[key]} name one axis, "
                "expected one size for it"
            )


def _fix_names(model: ir.Model, sizes: Mapping[str, int]) -> None:
    """Put numbers for names; sizes that are computed from these names become unknown."""
    if not sizes:
        return
    mentions = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, sizes))})(?![\w.])")
    for graph in iter_graphs(model):
        values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        for value in values:
            for axis, dim in enumerate(value.shape or ()):
                if not isinstance(dim, ir.SymbolicDim) or dim.value is None:
                    continue
                if dim.value in sizes:
                    value.shape = _replaced(value.shape, axis, sizes[dim.value])
                elif mentions.search(dim.value):
                    value.shape = _replaced(value.shape, axis, None)


def _replaced(shape: ir.Shape | None, axis: int, size: int | None) -> ir.Shape:
    assert shape is not None
    return ir.Shape([size if i == axis else dim for i, dim in enumerate(shape)])
