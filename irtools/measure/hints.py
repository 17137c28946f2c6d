"""Sizes that a graph itself suggests for its open axes.

A model whose encoder halves its input five times and joins the halves again needs multiples of
32; one that reshapes [n, frames, 80] to [n, 2400] needs 30 frames; one that pads by reflection
needs more than it pads. What follows are guesses, cheap to make, and each is tried by running.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from irtools.analysis.dims import Dim, SymbolicSize, rounded_down
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import constant_of

__all__ = ["suggested_sizes"]

_MOST = 1 << 20
_STRIDED = frozenset({"AveragePool", "Conv", "ConvInteger", "MaxPool", "LpPool"})
_LONGEST_LIST = 8


def suggested_sizes(model: ir.Model) -> list[int]:
    """Return sizes to try, the most likely first, each once."""
    found: dict[int, None] = {}
    for size in (*_solutions(model), *_multiples(model), *_constants(model)):
        if 1 < size <= _MOST:
            found.setdefault(size)
    return list(found)


def _solutions(model: ir.Model) -> Iterator[int]:
    """Yield the size at which a product or a reshape finds the number of elements it needs."""
    shapes = SymbolicShapes.of(model)
    for node in model.graph.all_nodes():
        if node.domain not in ("", "ai.onnx"):
            continue
        if node.op_type in ("MatMul", "Gemm") and len(node.inputs) > 1:
            shape, weight = shapes.shape(node.inputs[0]), shapes.shape(node.inputs[1])
            if shape and weight and isinstance(weight[0], int):
                yield from _solve(shape[-1], weight[0])
        elif node.op_type == "Reshape":
            yield from _of_reshape(node, shapes)


def _of_reshape(node: ir.Node, shapes: SymbolicShapes) -> Iterator[int]:
    shape, target = shapes.shape(node.inputs[0]), constant_of(node.inputs[1])
    if shape is None or target is None or target.size > _LONGEST_LIST:
        return
    wanted = prod(int(n) for n in target.numpy().reshape(-1) if n > 0)
    known = prod(size for size in shape if isinstance(size, int)) or 1
    if wanted % known == 0:
        yield wanted // known
    for size in shape:
        for number in target.numpy().reshape(-1):
            yield from _solve(size, int(number))


def _solve(size: Dim, wanted: int) -> Iterator[int]:
    """Yield s with a * s + b = wanted, where a size is linear in one name."""
    if not isinstance(size, SymbolicSize):
        return
    constant = sum(factor for names, factor in size.terms if not names)
    linear = [(names[0], factor) for names, factor in size.terms if len(names) == 1]
    others = [names for names, _ in size.terms if len(names) > 1]
    if len(linear) == 1 and not others and linear[0][1]:
        name, factor = linear[0]
        whole, rest = divmod(wanted - constant, factor)
        if not rest and whole > 0:
            windows = rounded_down(name)
            yield whole if windows is None else whole * windows[1]


def _multiples(model: ir.Model) -> Iterator[int]:
    """Yield products of strides, and some multiples of the longest."""
    strides = []
    for node in model.graph.all_nodes():
        if node.op_type in _STRIDED:
            attribute = node.attributes.get("strides")
            strides.append(max(attribute.as_ints(), default=1) if attribute is not None else 1)
    total = 1
    for stride in strides:
        total *= stride
        if total > _MOST:
            return
    for factor in (1, 2, 3, 4, 5, 8, 16):
        yield total * factor


def _constants(model: ir.Model) -> Iterator[int]:
    """Yield what is split, cut and padded, and one more."""
    for node in model.graph.all_nodes():
        if node.op_type == "Split":
            attribute = node.attributes.get("split")
            sizes = list(attribute.as_ints()) if attribute is not None else _ints(node, 1)
            yield sum(sizes)
        elif node.op_type == "Pad":
            attribute = node.attributes.get("pads")
            pads = list(attribute.as_ints()) if attribute is not None else _ints(node, 1)
            yield 2 * max((*pads, 0)) + 1 if pads else 0
        elif node.op_type == "Slice":
            yield from (abs(end) + 1 for end in _ints(node, 2) if abs(end) < _MOST)
            yield from (abs(end) for end in _ints(node, 2) if abs(end) < _MOST)
        elif node.op_type in ("Add", "Sub", "Mul") and len(node.inputs) > 1:
            for value in node.inputs:
                constant = constant_of(value)
                if constant is not None and len(constant.shape) > 1:
                    yield from (int(n) for n in constant.shape if isinstance(n, int) and n > 1)


def _ints(node: ir.Node, index: int) -> list[int]:
    constant = constant_of(node.inputs[index]) if len(node.inputs) > index else None
    if constant is None or constant.size > _LONGEST_LIST or not constant.size:
        return []
    return [int(n) for n in constant.numpy().reshape(-1)]
