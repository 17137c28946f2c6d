"""Where channels meet an operator, and what a rule may ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from irtools.analysis.channels.groups import Trace
from irtools.analysis.channels.index_map import IndexMap

__all__ = ["WEIGHTED_OPS", "Port", "Refine", "Rule", "constant_axes"]

WEIGHTED_OPS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
"""Operators that compute units from a weight, and sum units up."""


@dataclass(frozen=True)
class Port:
    """Where a slot meets a node.

    Attributes:
        node: The node.
        is_input: Whether it is an input of the node.
        position: Which one.
        axis: Axis of the slot, not negative.
        map: Layout of the units on it.
    """

    node: ir.Node
    is_input: bool
    position: int
    axis: int
    map: IndexMap

    @property
    def value(self) -> ir.Value:
        value = (self.node.inputs if self.is_input else self.node.outputs)[self.position]
        assert value is not None
        return value

    def other(self, position: int) -> ir.Value | None:
        """Return an input of the node, or None where it is absent."""
        return self.node.inputs[position] if position < len(self.node.inputs) else None


class Refine(Exception):  # noqa: N818 - a request to start again, not an error
    """The units are too fine for what the channels meet: these (outer, units, inner) would do."""

    def __init__(self, *candidates: tuple[int, int, int]) -> None:
        self.candidates = candidates


Rule = Callable[[Port, Trace], None]


def constant_axes(port: Port, trace: Trace) -> tuple[int, ...] | None:
    """Return the axes of a reduction, Squeeze or Unsqueeze; None where they are not constant."""
    if "axes" in port.node.attributes:
        return tuple(port.node.attributes.get_ints("axes", ()))
    axes = trace.shapes.integers(port.other(1))
    if axes is None or not all(isinstance(a, int) for a in axes.reshape(-1)):
        return None
    return tuple(int(a) for a in axes.reshape(-1))
