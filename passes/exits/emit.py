"""Builds the exits into the graph.

    h = blocks 1..k (x)
    scores = head(pool(h))
    stay = not (confidence(scores) >= threshold)          [B]
    out = If (any stay) then scores with the rows of `stay` replaced by rest(h[stay]) else scores

`rest` computes the remaining blocks for the remaining rows only, so work is saved for every
row that leaves and not just when all do. It is again built this way, with the next exit. What the
remaining blocks need besides `h`, such as the mask, is computed in the branch from the rows of
the model's inputs: so no batch size of the outer graph can be baked into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.exits.encoder import Encoder, nodes_between
from irtools.passes.exits.heads import Head, Pool, Task

__all__ = ["MIN_OPSET", "Exit", "build_exits"]

MIN_OPSET = 18
"""ReduceMax and ReduceSum take their axes as an input from here on."""


@dataclass(frozen=True, eq=False)
class Exit:
    """An exit to build.

    Attributes:
        state: Hidden state [B, S, H] that it reads.
        depth: Blocks before it.
        head: Its classifier.
        pool: `first` reads the first position, `mean` the mean over positions that are not padding.
        threshold: Least confidence with which a row leaves.
    """

    state: ir.Value
    depth: int
    head: Head
    pool: Pool
    threshold: float


def build_exits(
    model: ir.Model, encoder: Encoder, exits: Sequence[Exit], task: Task, mask: str | None
) -> None:
    """Give a model exits, in place.

    Args:
        model: Opset 18 or newer.
        encoder: Of this model.
        exits: In order of depth, at least one.
        task: How scores become confidence.
        mask: Name of the input [B, S] that is 0 at padding, or None.
    """
    graph = model.graph
    writer = _Writer(model)
    values: dict[ir.Value, ir.Value] = {value: value for value in graph.inputs}
    output = encoder.output
    scores = _leave_or_go_on(writer, encoder, exits, task, mask, values, exits[0].state)
    scores.type, scores.shape = output.type, output.shape
    writer.editor.replace_output(output, scores)
    # Only the blocks after the first exit read this, and they live in branches now.
    writer.editor.drop_unread(output.producer())


def _leave_or_go_on(
    writer: _Writer,
    encoder: Encoder,
    exits: Sequence[Exit],
    task: Task,
    mask: str | None,
    values: Mapping[ir.Value, ir.Value],
    state: ir.Value,
) -> ir.Value:
    """Emit the first exit and what follows it; return the scores of all rows.

    Args:
        writer: Writes into the graph that computes `state`.
        encoder: Of the original model.
        exits: Those still to come.
        task: How scores become confidence.
        mask: Name of the mask input.
        values: The model's inputs, and what stands for them in this graph.
        state: Hidden state of the first exit's depth in this graph.
    """
    here, *later = exits
    masks = {outer.name: inner for outer, inner in values.items()}
    pooled = _pool(writer, state, here.pool, masks.get(mask) if mask else None)
    weight = writer.constant("exit_weight", here.head.weight)
    bias = writer.constant("exit_bias", here.head.bias)
    scores = writer.add("Gemm", [pooled, weight, bias], shape=encoder.output.shape)
    stay = _not_sure(writer, scores, here.threshold, task)
    outer = writer.graph
    inner = writer.branch(f"behind_block_{here.depth}")
    rows = writer.add("Reshape", [writer.add("NonZero", [stay]), writer.ints("flat", [-1])])
    rest = {
        original: _rows_of(writer, value, rows) if _has_rows(original, encoder.output) else value
        for original, value in values.items()
    }
    narrowed = _rows_of(writer, state, rows)
    ends = later[0].state if later else encoder.output
    reached = writer.copy(ends, here.state, {**rest, here.state: narrowed})
    if later:
        deeper = _leave_or_go_on(writer, encoder, later, task, mask, rest, reached)
    else:
        deeper = reached
    places = writer.add("Unsqueeze", [rows, writer.ints("last", [-1])])
    writer.finish(inner, writer.add("ScatterND", [scores, places, deeper]))
    done = writer.branch(f"left_after_block_{here.depth}")
    writer.finish(done, writer.add("Identity", [scores]))
    writer.graph = outer
    anyone = writer.add(
        "Cast",
        [
            writer.add(
                "ReduceMax",
                [writer.add("Cast", [stay], to=int(ir.DataType.INT32))],
                keepdims=0,
            )
        ],
        to=int(ir.DataType.BOOL),
    )
    return writer.add(
        "If",
        [anyone],
        shape=encoder.output.shape,
        then_branch=inner,
        else_branch=done,
    )


def _pool(writer: _Writer, state: ir.Value, pool: Pool, mask: ir.Value | None) -> ir.Value:
    if pool == "first":
        return writer.add("Gather", [state, writer.scalar("first", 0)], axis=1)
    axis = writer.ints("sequence_axis", [1])
    if mask is None:
        return writer.add("ReduceMean", [state, axis], keepdims=0)
    weights = writer.add("Cast", [mask], to=int(ir.DataType.FLOAT))
    column = writer.add("Unsqueeze", [weights, writer.ints("last", [-1])])
    total = writer.add("ReduceSum", [writer.add("Mul", [state, column]), axis], keepdims=0)
    count = writer.add("ReduceSum", [weights, axis], keepdims=1)
    least = writer.constant("one", np.array(1, np.float32))
    return writer.add("Div", [total, writer.add("Max", [count, least])])


def _not_sure(writer: _Writer, scores: ir.Value, threshold: float, task: Task) -> ir.Value:
    """Which rows stay, bool [B]. Scores that are NaN are not sure."""
    last = writer.ints("last", [-1])
    if task == "multi-label":
        p = writer.add("Sigmoid", [scores])
        one = writer.constant("one", np.array(1, np.float32))
        either = writer.add("Max", [p, writer.add("Sub", [one, p])])
        sure = writer.add("ReduceMin", [either, last], keepdims=0)
    else:
        sure = writer.add("ReduceMax", [writer.add("Softmax", [scores], axis=-1), last], keepdims=0)
    limit = writer.constant("exit_threshold", np.array(threshold, np.float32))
    return writer.add("Not", [writer.add("GreaterOrEqual", [sure, limit])])


def _rows_of(writer: _Writer, value: ir.Value, rows: ir.Value) -> ir.Value:
    return writer.add("Gather", [value, rows], axis=0)


def _has_rows(value: ir.Value, output: ir.Value) -> bool:
    """Whether the first axis of an input counts the same things as that of the scores."""
    if value.shape is None or not len(value.shape) or output.shape is None:
        return False
    return bool(value.shape[0] == output.shape[0])


class _Writer:
    """Appends nodes to the current graph: the main graph, or a branch."""

    def __init__(self, model: ir.Model) -> None:
        self.graph = model.graph
        self.editor = Editor(model, "early-exit")
        self._constants: dict[tuple[str, bytes], ir.Value] = {}

    def add(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        *,
        shape: ir.Shape | None = None,
        **attributes: int | float | ir.Graph,
    ) -> ir.Value:
        name = f"exit_{op_type}"
        made = self.editor.append(self.graph, op_type, inputs, attributes, name=name, shape=shape)
        if shape is not None:
            made.type = ir.TensorType(ir.DataType.FLOAT)
        return made

    def constant(self, stem: str, array: np.ndarray) -> ir.Value:
        """An initializer of the main graph, where every branch sees it; equal ones are one."""
        key = (stem, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.editor.constant(stem, array)
        return self._constants[key]

    def ints(self, stem: str, numbers: Sequence[int]) -> ir.Value:
        return self.constant(f"exit_{stem}", np.array(numbers, np.int64))

    def scalar(self, stem: str, number: int) -> ir.Value:
        return self.constant(f"exit_{stem}", np.array(number, np.int64))

    def branch(self, stem: str) -> ir.Graph:
        """Start a graph and append to it."""
        self.graph = ir.Graph([], [], nodes=[], name=self.editor.fresh(stem))
        return self.graph

    def finish(self, graph: ir.Graph, output: ir.Value) -> None:
        output.type = ir.TensorType(ir.DataType.FLOAT)
        graph.outputs.append(output)

    def copy(self, end: ir.Value, cut: ir.Value, values: Mapping[ir.Value, ir.Value]) -> ir.Value:
        """Copy the nodes between `cut` and `end` with other inputs; return what `end` becomes.

        Their shapes are left open: declared ones speak of the whole batch, here fewer rows are
        left.
        """
        made = dict(values)
        for node in nodes_between([end], cut):
            inputs = [None if value is None else made.get(value, value) for value in node.inputs]
            twin = self.editor.copy(node, inputs, "_behind")
            made.update(zip(node.outputs, twin.outputs, strict=True))
            self.graph.append(twin)
        return made[end]
