"""Removing nodes that hand on their input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes, constant_of
from irtools.analysis.types import element_type
from irtools.model import nested_graphs
from irtools.operators import RuleTable
from irtools.passes.cleanup._edit import can_substitute, substitute
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["NO_OPS", "RemoveIdentity", "RemoveNoOps"]

Rule = Callable[[ir.Node, SymbolicShapes], ir.Value | None]
"""From a node to the input that can stand for its output, None where there is none."""

_PRESERVED = frozenset({SymbolicShapes})
_MAX_ELEMENTS = 4096


@dataclass(frozen=True)
class RemoveIdentity(Pass):
    """Remove Identity, and Dropout where it does not train.

    Works in the main graph and in nested subgraphs. Kept where both ends are visible from
    outside, because one value cannot carry two public names, and where a subgraph hands out
    what it did not make.
    """

    name: ClassVar[str] = "remove-identity"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    statistics: ClassVar = {"num-removed-identities": "Identity and Dropout nodes removed"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        removed = sum(_bypass(n, _handed_on(n)) for g in nested_graphs(model.graph) for n in g)
        counts = {"num-removed-identities": removed}
        return PassResult(removed > 0, counts, preserved=_PRESERVED)


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """Remove nodes that prove to change nothing.

    Cast to the type a tensor has, Transpose that keeps the order, Reshape, Expand and Slice to
    the shape a tensor has, Concat, Sum, Max, Min and Mean of one tensor, and x * 1, x / 1,
    x - 0, `x and true` where the constant does not widen the shape. Not x + 0.0 or x - (-0.0),
    which turn -0.0 into 0.0. Works in the main graph and in nested subgraphs.
    """

    name: ClassVar[str] = "remove-no-ops"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    statistics: ClassVar = {"num-removed-no-ops": "nodes removed that changed nothing"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        facts = ctx.analysis(SymbolicShapes, model)
        removed = 0
        for graph in nested_graphs(model.graph):
            for node in graph:
                find = NO_OPS.of(node)
                if find is not None:
                    removed += _bypass(node, find(node, facts))
        return PassResult(removed > 0, {"num-removed-no-ops": removed}, preserved=_PRESERVED)


def _bypass(node: ir.Node, source: ir.Value | None) -> bool:
    if source is None or not can_substitute(node.outputs[0], source):
        return False
    substitute(node.outputs[0], source)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _handed_on(node: ir.Node) -> ir.Value | None:
    if node.domain != "" or node.op_type not in ("Identity", "Dropout"):
        return None
    if node.op_type == "Dropout":
        training = node.inputs[2] if len(node.inputs) > 2 else None
        constant = constant_of(training)
        trains = training is not None and (constant is None or bool(constant.numpy().item()))
        # Opset 6 and before say it by attribute.
        old = "is_test" in node.attributes and not node.attributes["is_test"].as_int()
        masked = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
        if trains or old or masked:
            return None
    return node.inputs[0]


def _same_shape(a: ir.Value | None, b: ir.Value | None, facts: SymbolicShapes) -> bool:
    shape = facts.shape(a)
    return shape is not None and shape == facts.shape(b)


def _cast(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
    source = node.inputs[0]
    return source if element_type(source) == node.attributes["to"].as_int() else None


def _transpose(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
    perm = node.attributes.get_ints("perm")
    return node.inputs[0] if perm is not None and list(perm) == sorted(perm) else None


def _reshape(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
    return node.inputs[0] if _same_shape(node.inputs[0], node.outputs[0], facts) else None


def _slice(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
    """Same shape and no negative step: every element is taken, in order."""
    steps = facts.integers(node.inputs[4]) if len(node.inputs) > 4 else np.asarray([1])
    if steps is None or any(step != 1 for step in steps):
        return None
    return _reshape(node, facts)


def _single(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _neutral(neutral: bool | int, *, commutes: bool) -> Rule:
    def find(node: ir.Node, facts: SymbolicShapes) -> ir.Value | None:
        for index in (1, 0) if commutes else (1,):
            constant = constant_of(node.inputs[index])
            other = node.inputs[1 - index]
            if constant is None or constant.size > _MAX_ELEMENTS:
                continue
            if _is_all(constant.numpy(), neutral) and _same_shape(other, node.outputs[0], facts):
                return other
        return None

    return find


def _is_all(array: np.ndarray, neutral: bool | int) -> bool:
    return bool(np.all(array == neutral) and not np.signbit(array).any())


NO_OPS: RuleTable[Rule] = RuleTable(
    "no-op",
    "nodes that change nothing are removed",
    MappingProxyType(
        {
            "And": _neutral(True, commutes=True),
            "Cast": _cast,
            "Concat": _single,
            "Div": _neutral(1, commutes=False),
            "Expand": _reshape,
            "Max": _single,
            "Mean": _single,
            "Min": _single,
            "Mul": _neutral(1, commutes=True),
            "Reshape": _reshape,
            "Slice": _slice,
            "Sub": _neutral(0, commutes=False),
            "Sum": _single,
            "Transpose": _transpose,
        }
    ),
)
