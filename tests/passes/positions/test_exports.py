"""What exporters write of whole encoders, with a head on one position, before and after `fuse`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.model import Interface, Model, verify
from irtools.passmanager import PassContext, Pipeline
from irtools.targets import RunnerOptions, find_target

GRAPHS = sorted((Path(__file__).parents[2] / "data" / "graphs").glob("*.onnx"))
EXACT = 110.0
PREPARED = "lift-constants,remove-identity,hoist-shapes,remove-dead-code,sink"


def with_head(path: Path) -> ir.Model:
    """Return an encoder with a classifier over position 0 in the place of its hidden state."""
    model = ir.load(path)
    hidden, editor = model.graph.outputs[0], Editor(model, "test")
    shape, rng = SymbolicShapes.of(model).shape(hidden), np.random.default_rng(0)
    assert shape is not None and isinstance(shape[-1], int)
    first = editor.constant("first", np.asarray(0, np.int64))
    head = editor.constant("head", rng.normal(size=(shape[-1], 3)).astype(np.float32))
    row = editor.append(model.graph, "Gather", [hidden, first], {"axis": 1})
    scores = editor.append(
        model.graph,
        "MatMul",
        [row, head],
        outputs={"scores": ir.DataType.FLOAT},
        shape=ir.Shape(["batch", 3]),
    )
    model.graph.outputs[:] = [scores]
    return model


@pytest.mark.parametrize(
    "order", [PREPARED, f"cleanup,fuse,{PREPARED}", f"{PREPARED},cleanup,fuse"]
)
@pytest.mark.parametrize("path", GRAPHS, ids=lambda path: path.stem)
def test_the_last_block_is_sunk(
    path: Path,
    order: str,
    target: str,
    make_context: Callable[..., PassContext],
    encoder_feeds: Callable[..., dict[str, np.ndarray]],
) -> None:
    before = with_head(path)
    after, sunk = before.clone(), 0
    for step in Pipeline.parse(order):
        result = step.run(after, make_context(target))
        sunk += result.counters.get("num-sunk-products", 0)
    verify(after, interface=Interface.of(before))
    assert sunk in (5, 6)  # Attention, or its two products; Q, O and the feed-forward network.
    if order != PREPARED:
        assert sum(node.op_type == "Attention" for node in after.graph) == 2
    for batch, length in ((1, 8), (3, 5)):
        feeds = encoder_feeds(before, batch, length, seed=batch)
        assert sqnr(before, after, target, feeds) >= EXACT


def sqnr(before: ir.Model, after: ir.Model, target: str, feeds: dict[str, np.ndarray]) -> float:
    found = []
    for model in (before, after):
        options = RunnerOptions(threads=1, exact=True)
        with find_target(target).runner(Model(model), options) as runner:
            found.append(runner.run(feeds)["scores"].astype(np.float64))
    noise = float(np.square(found[0] - found[1]).sum())
    return 10 * np.log10(float(np.square(found[0]).sum()) / noise) if noise else np.inf
