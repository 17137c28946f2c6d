"""One row computed alone is the row of the whole: operator by operator, and in random graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import verify
from irtools.passes.positions.demand import Demand
from irtools.passes.positions.rewrite import sink
from irtools.passes.positions.row import Row
from irtools.passes.positions.rules import ROWS
from irtools.passmanager import PassContext, Pipeline

from .node_tests import RUNTIME_ERRORS, Case, difference, run_in_ort, with_constant_inputs
from .random_models import random_model


def rowed(case: Case) -> Iterator[tuple[str, ir.Model, np.ndarray]]:
    """Yield the model of a node test with one row computed, for every axis that has a rule."""
    expected = np.asarray(case.outputs[0])
    for axis, size in enumerate(expected.shape):
        for index in dict.fromkeys((0, size - 1)) if size > 1 else ():
            proto = with_constant_inputs(case)
            if proto is None:
                return
            model = ir.from_proto(proto)
            nodes = [node for node in model.graph if node.op_type != "Identity"]
            if len(nodes) != 1 or (rule := ROWS.of(nodes[0])) is None:
                return
            (node,) = nodes
            taker = taken(model, node.outputs[0], axis, index)
            facts = SymbolicShapes.of(model)
            try:
                sources = rule(node, Row(axis, index), facts)
            except (IndexError, ValueError):
                continue
            if sources is None:
                continue
            rows = {i: Row(s, index) if isinstance(s, int) else s for i, s in sources.items()}
            if any(row.period is not None for row in rows.values()):
                continue  # Not one row, but one of each batch.
            reads = {(node, i): row for i, row in rows.items()}
            row = Row(axis, index)
            demand = Demand({taker: row}, {node: row}, {(taker, 0): row, **reads})
            sink(Editor(model, "test"), demand, facts)
            yield f"{node.op_type} {axis}", model, np.take(expected, [index], axis)


def taken(model: ir.Model, value: ir.Value, axis: int, index: int) -> ir.Node:
    """Let one row of a value be all that a model returns."""
    editor, graph = Editor(model, "test"), model.graph
    place = editor.constant("place", np.asarray([index], np.int64))
    row = editor.append(
        graph, "Gather", [value, place], {"axis": axis}, outputs={"row": value.dtype}
    )
    graph.outputs[:] = [row]
    for node in [n for n in graph if n.op_type == "Identity"]:
        if not any(output.uses() for output in node.outputs):
            graph.remove(node, safe=True)
    maker = row.producer()
    assert maker is not None
    return maker


def test_a_row_of_every_operator_is_that_of_the_whole(cases: list[Case]) -> None:
    wrong, checked = [], set()
    for case in cases:
        if not case.outputs or not isinstance(case.outputs[0], np.ndarray):
            continue
        for what, model, expected in rowed(case):
            (found,) = run_in_ort(ir.to_proto(model), {})
            error = difference(expected, found)
            checked.add(what)
            if error > 1e-5:
                wrong.append(f"{case.name}, axis and operator {what}: {error}")
    assert not wrong
    assert len({what.split()[0] for what in checked}) > 90


def with_rows(seed: int) -> tuple[ir.Model, tuple[dict[str, np.ndarray], ...]]:
    """A random model of whose outputs one row each is taken along the axis of positions."""
    made = random_model(seed, smooth=True)
    model, rng = made.model.clone(), np.random.default_rng(seed)
    editor, kept = Editor(model, "test"), []
    for number, value in enumerate(list(model.graph.outputs)):
        if value.shape is None or len(value.shape) < 2 or value.producer() is None:
            continue
        index = editor.constant("place", np.asarray(int(rng.choice([0, 1, -1])), np.int64))
        kept.append(
            editor.append(
                model.graph,
                "Gather",
                [value, index],
                {"axis": int(rng.integers(1, len(value.shape)))},
                outputs={f"row_{number}": value.dtype},
            )
        )
    model.graph.outputs[:] = kept
    return model, made.feeds


@pytest.mark.parametrize("first", range(0, 300, 60))
def test_random_graphs_keep_their_numbers(
    first: int, make_context: Callable[..., PassContext]
) -> None:
    sunk = 0
    for seed in range(first, first + 60):
        model, feeds = with_rows(seed)
        if not model.graph.outputs:
            continue
        after = model.clone()
        ctx = make_context()
        for step in Pipeline.parse("lift-constants,remove-identity,sink"):
            ctx.drop_analyses()
            sunk += step.run(after, ctx).counters.get("num-sunk-nodes", 0)
        verify(after)
        for arrays in feeds:
            try:
                expected = run_in_ort(ir.to_proto(model), arrays)
            except RUNTIME_ERRORS:
                continue
            for a, b in zip(expected, run_in_ort(ir.to_proto(after), arrays), strict=True):
                assert difference(a, b) <= 1e-5, f"seed {seed}"
    assert sunk
