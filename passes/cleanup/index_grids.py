"""Grids of indices that name every element in order, and tests on them that always hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.counting import Count, count_of, joined_counts
from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import Editor, Rule, Veto, can_forward, producer_of, require, rewrite
from irtools.passmanager import Exactness, Pass, PassContext, PassResult

__all__ = ["FoldIndexGrids"]

_UNSQUEEZE_SINCE, _SHAPE_SINCE = 13, 15
"""Opsets whose Unsqueeze takes axes as a tensor, and whose Shape takes some of the sizes."""

_SIGNS = MappingProxyType({"Greater": 1, "GreaterOrEqual": 1, "Less": -1, "LessOrEqual": -1})
"""By which the difference of the operands is multiplied, so that it must not be negative."""


@dataclass(frozen=True)
class FoldIndexGrids(Pass):
    """Read a tensor as it is where a grid of indices takes all of its elements in order.

        GatherND(x, [arange(B)[:, None, None, None], arange(S)])  ->  Unsqueeze(x, [1, 2])
        Gather(Reshape(x, -1), S arange(B)[:, None, None, None] + arange(S))  -> the same
        m and (arange(S)[:, None] >= 0)                           ->  Expand(m, [S, 1])
        Where(arange(S)[:, None] >= 0, x, y)                      ->  Expand(x, [S, 1])

    Exporters write masks of attention so: some twenty small operators, which take a tenth of the
    time of a small quantized encoder. Shapes must prove that the grid covers each axis. Works in
    the main graph and in nested subgraphs.
    """

    name: ClassVar[str] = "fold-index-grids"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    counters: ClassVar = {"num-folded-grids": "lookups by grids of indices and tests on them"}

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        opset = model.opset_imports.get("", 0)
        if opset < _UNSQUEEZE_SINCE:
            return PassResult(False, {})
        facts = ctx.analysis(SymbolicShapes, model)
        rules: list[Rule[Any]] = [_WholeLookup(facts), _FlatLookup(facts)]
        rules.append(_IdleTest(facts, reads_sizes=opset >= _SHAPE_SINCE))
        done = rewrite(Editor(model, self.name, adopt=facts.adopt), rules)
        preserved = frozenset({SymbolicShapes})
        return PassResult(done.total > 0, {"num-folded-grids": done.total}, preserved=preserved)


@dataclass(frozen=True)
class _Whole:
    """A tensor, and the axes of size 1 that a lookup of all of it puts between its own."""

    source: ir.Value
    added: tuple[int, ...]


class _Lookup(Rule[_Whole]):
    def __init__(self, facts: SymbolicShapes) -> None:
        self.facts = facts

    def build(self, editor: Editor, anchor: ir.Node, found: _Whole) -> None:
        unread = [value for value in anchor.inputs if value is not found.source]
        if found.added:
            axes = editor.constant(
                f"{anchor.outputs[0].name}_axes",
                np.asarray(found.added, np.int64),
                graph=anchor.graph,
                before=anchor,
            )
            editor.replace(anchor, "Unsqueeze", [found.source, axes])
        else:
            editor.replace(anchor, "Identity", [found.source])
        editor.drop_unread(*unread)


class _WholeLookup(_Lookup):
    """GatherND(x, indices)  ->  Unsqueeze(x), where column i counts along axis i of x"""

    anchors = ("GatherND",)

    def find(self, anchor: ir.Node) -> _Whole:
        source, indices = anchor.inputs
        shape, grid = self.facts.shape(source), self.facts.shape(indices)
        counts = joined_counts(indices, self.facts)
        if source is None or shape is None or grid is None or counts is None:
            raise Veto("indices that are not known to count", named=False)
        whole = len(counts) == len(shape) and not anchor.attributes.get_int("batch_dims", 0)
        require(whole, "not a lookup of single elements", named=False)
        steps = [(count, 1) for count in counts]
        return _Whole(source, _added(steps, shape, grid[:-1]))


class _FlatLookup(_Lookup):
    """Gather(Reshape(x, -1), indices)  ->  Unsqueeze(x), where the indices count through x"""

    anchors = ("Gather",)

    def find(self, anchor: ir.Node) -> _Whole:
        flat, indices = anchor.inputs
        node = producer_of(flat, "Reshape", "Flatten")
        source = None if node is None else node.inputs[0]
        shape, grid = self.facts.shape(source), self.facts.shape(indices)
        if source is None or shape is None or grid is None or self.facts.rank(flat) != 1:
            raise Veto("not a lookup in one axis of known sizes", named=False)
        count = count_of(indices, self.facts)
        if count is None or count.start != 0 or len(shape) != len(count.steps):
            raise Veto("indices that are not known to count", named=False)
        strides: list[Dim] = [1]
        for size in shape[:0:-1]:
            strides.insert(0, multiply(strides[0], size))
        # A step belongs to one axis of x; equal ones (an axis of size 1) leave it open.
        require(len(set(strides)) == len(strides), "steps that are not told apart", named=False)
        axis_of = {step: axis for axis, step in count.steps.items()}
        require(set(axis_of) == set(strides), "indices that leave out elements", named=False)
        steps = [(Count(0, {axis_of[stride]: stride}), stride) for stride in strides]
        return _Whole(source, _added(steps, shape, grid))


def _added(counts: Sequence[tuple[Count, Dim]], shape: Shape, grid: Shape) -> tuple[int, ...]:
    """Return the axes of the grid that are none of x; each count goes along one axis by a step.

    Raises:
        Veto: The grid leaves out elements, repeats them or takes them in another order.
    """
    axes = []
    for (count, step), size in zip(counts, shape, strict=True):
        along = [axis for axis, found in count.steps.items() if found == step]
        require(
            count.start == 0 and len(along) == len(count.steps) == 1 and grid[along[0]] == size,
            "indices that leave out elements",
            named=False,
        )
        axes += along
    rest = tuple(axis for axis in range(len(grid)) if axis not in axes)
    in_order = axes == sorted({*axes})
    require(in_order, "elements in another order", named=False)
    require(all(grid[axis] == 1 for axis in rest), "repeated elements", named=False)
    return rest


@dataclass(frozen=True)
class _Idle:
    """A test that holds everywhere, and what stands next to it.

    Attributes:
        kept: The other operand, or what is chosen where it holds.
        test: The test.
        target: What the other operand is expanded to: numbers, or a tensor and its axis; empty
            where it has the shape of the result.
    """

    kept: ir.Value
    test: ir.Value
    target: tuple[int | tuple[ir.Value, int], ...]


class _IdleTest(Rule[_Idle]):
    """m and (count >= start)  ->  m, or Expand(m) where the test widens it; Where alike"""

    anchors = ("And", "Where")

    def __init__(self, facts: SymbolicShapes, *, reads_sizes: bool) -> None:
        self.facts = facts
        self.reads_sizes = reads_sizes

    def find(self, anchor: ir.Node) -> _Idle:
        result = self.facts.shape(anchor.outputs[0])
        for kept, test in _operands(anchor):
            if kept is None or test is None or not _always_holds(test, self.facts):
                continue
            own = self.facts.shape(kept)
            if own is None or result is None:
                continue
            if own == result:
                require(can_forward(anchor.outputs[0], kept), "a name that stays", named=False)
                return _Idle(kept, test, ())
            sizes = ((1,) * (len(result) - len(own)) + own)[: len(result)]
            wanted = (
                1 if size == dim else self._size(dim, kept, test, anchor.graph)
                for size, dim in zip(sizes, result, strict=True)
            )
            return _Idle(kept, test, tuple(wanted))
        raise Veto("not a test that always holds", named=False)

    def _size(
        self, size: Dim, kept: ir.Value, test: ir.Value, graph: ir.Graph | ir.Function | None
    ) -> int | tuple[ir.Value, int]:
        """Return a number, or where a size can be read: best where the grid is not needed."""
        if isinstance(size, int):
            return size
        require(self.reads_sizes, "an operator version that cannot read one size", named=False)
        inputs = graph.inputs if isinstance(graph, ir.Graph) else ()
        for value in (kept, *inputs, test):
            shape = self.facts.shape(value) or ()
            if size in shape:
                return value, shape.index(size)
        raise Veto("the size of {} is nowhere to be read", test.name, named=False)

    def build(self, editor: Editor, anchor: ir.Node, found: _Idle) -> None:
        unread = [value for value in anchor.inputs if value is not found.kept]
        if found.target:
            editor.replace(anchor, "Expand", [found.kept, _shape(editor, anchor, found.target)])
        else:
            editor.forward(anchor.outputs[0], found.kept)
            editor.remove(anchor)
        editor.drop_unread(*unread)


def _operands(anchor: ir.Node) -> Sequence[tuple[ir.Value | None, ir.Value | None]]:
    """Return what may be kept, each with the test that must hold for it."""
    if anchor.op_type == "Where":
        test, chosen, _ = anchor.inputs
        return ((chosen, test),)
    first, second = anchor.inputs
    return ((first, second), (second, first))


def _shape(
    editor: Editor, anchor: ir.Node, target: Sequence[int | tuple[ir.Value, int]]
) -> ir.Value:
    """Return a shape as a tensor, [rank]."""
    stem = f"{anchor.outputs[0].name}_shape"
    parts: list[ir.Value] = []
    for axis, size in enumerate(target):
        if isinstance(size, int):
            array = np.asarray([size], np.int64)
            part = editor.constant(stem, array, graph=anchor.graph, before=anchor)
        else:
            value, place = size
            part = editor.before(
                anchor,
                "Shape",
                [value],
                {"start": place, "end": place + 1},
                outputs={f"{stem}_{axis}": ir.DataType.INT64},
                shape=ir.Shape([1]),
            )
        parts.append(part)
    if len(parts) == 1:
        return parts[0]
    outputs = {stem: ir.DataType.INT64}
    shape = ir.Shape([len(parts)])
    return editor.before(anchor, "Concat", parts, {"axis": 0}, outputs=outputs, shape=shape)


def _always_holds(value: ir.Value, facts: SymbolicShapes) -> bool:
    """Whether a comparison of a count with a number holds at every index."""
    node = producer_of(value, *_SIGNS)
    if node is None:
        return False
    left, right = (count_of(operand, facts) for operand in node.inputs)
    if left is None or right is None or (left.steps and right.steps):
        return False
    sign = _SIGNS[node.op_type]
    factors = [(left, sign), (right, -sign)]
    starts = [factor * count.start for count, factor in factors if isinstance(count.start, int)]
    steps = [
        factor * step if isinstance(step, int) else -1
        for count, factor in factors
        for step in count.steps.values()
    ]
    least = 1 if node.op_type in ("Greater", "Less") else 0
    return len(starts) == 2 and sum(starts) >= least and all(step >= 0 for step in steps)
