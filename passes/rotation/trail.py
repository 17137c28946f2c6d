"""What is known of a residual stream while it is followed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import constant_of
from irtools.passes.rotation.stream import Refusal, Use, Writer

__all__ = ["Spot", "Trail"]


@dataclass(frozen=True, eq=False)
class Spot:
    """Where a value has the stream.

    Attributes:
        axis: Of its channels.
        scale: What multiplies it on its way into the stream, [D]; None for 1.
    """

    axis: int
    scale: np.ndarray | None = None


@dataclass
class Trail:
    """A stream while it is followed.

    Attributes:
        shapes: Of the model.
        graph: Its main graph.
        width: D.
        kept: Constants that must stay as they are.
        spots: Values that have the stream.
        writers: Constants that take the rotation up.
        scales: Layer scales that go.
        entries: Values that are rotated while the model runs.
        norms: Normalizations that read it.
        reads: Values to those readers that follow the stream.
        others: Values to their other readers.
        carried: Nodes to whether they pass it on.
        shown: Values of it that are outputs of the model.
    """

    shapes: SymbolicShapes
    graph: ir.Graph
    width: int
    kept: Collection[ir.Value] = ()
    spots: dict[ir.Value, Spot] = field(default_factory=dict)
    writers: list[Writer] = field(default_factory=list)
    scales: list[ir.Node] = field(default_factory=list)
    entries: list[ir.Value] = field(default_factory=list)
    norms: list[ir.Node] = field(default_factory=list)
    reads: dict[ir.Value, list[Use]] = field(default_factory=dict)
    others: dict[ir.Value, list[Use]] = field(default_factory=dict)
    carried: dict[ir.Node, bool] = field(default_factory=dict)
    shown: list[ir.Value] = field(default_factory=list)
    pending: list[ir.Value] = field(default_factory=list)

    def reach(self, value: ir.Value, spot: Spot) -> None:
        """Note that a value has the stream."""
        known = self.spots.get(value)
        if known is None:
            self.spots[value] = spot
            self.pending.append(value)
        elif known.axis != spot.axis or known.scale is not spot.scale:
            raise Refusal("shape", value.name or "?")

    def writer(self, node: ir.Node, position: int, axis: int, spot: Spot) -> Writer | None:
        """Return the constant at an input if it can take the rotation up along an axis."""
        value = node.inputs[position]
        tensor = constant_of(value)
        if value is None or tensor is None or value in self.kept or value.producer() is not None:
            return None
        if tensor.dtype != ir.DataType.FLOAT or tensor.shape[axis] != self.width:
            return None
        return Writer(node, position, axis, spot.scale)

    def is_narrow(self, value: ir.Value | None, axis: int, rank: int) -> bool:
        """Whether a factor has one element along the channels of what it multiplies."""
        shape = self.shapes.shape(value)
        if shape is None:
            return False
        place = axis - (rank - len(shape))
        return place < 0 or shape[place] == 1
