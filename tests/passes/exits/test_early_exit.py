"""Exits: where they may be placed, what they compute, what they save, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.errors import OptionError, UsageError
from irtools.model import verify
from irtools.passes.exits.early_exit import EarlyExit
from irtools.passes.exits.emit import Exit, build_exits
from irtools.passes.exits.encoder import NotAnEncoderError, find_encoder
from irtools.passes.exits.features import pool_states
from irtools.passes.exits.heads import Head, Pool, Task, confidence
from irtools.passmanager import Plan
from irtools.statistics.observe import expose

from .exit_runs import context, run

Feeds = Mapping[str, np.ndarray]
Make = Callable[..., ir.Model]
MakeFeeds = Callable[[int], dict[str, np.ndarray]]


@pytest.mark.parametrize("pre_norm", [False, True])
def test_boundaries_are_the_states_between_blocks(make_classifier: Make, pre_norm: bool) -> None:
    encoder = find_encoder(make_classifier(4, pre_norm).graph)
    assert [(b.value.name, b.depth) for b in encoder.boundaries] == [
        ("h1", 1),
        ("h2", 2),
        ("h3", 3),
    ]
    assert encoder.depth == 4


def test_a_softmax_over_the_classes_is_no_block(make_classifier: Make) -> None:
    model = make_classifier(2)
    old = model.graph.outputs[0]
    node = ir.node("Softmax", [old], {"axis": -1})
    old.name, node.outputs[0].name = "scores", "logits"
    node.outputs[0].type, node.outputs[0].shape = old.type, old.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    assert find_encoder(model.graph).depth == 2


def test_what_cannot_be_left_says_why(make_classifier: Make) -> None:
    with pytest.raises(NotAnEncoderError, match="1 attention blocks, and leaving takes 2"):
        find_encoder(make_classifier(1).graph)
    model = make_classifier(2)
    model.graph.outputs.append(next(n.outputs[0] for n in model.graph if n.outputs[0].name == "h2"))
    with pytest.raises(NotAnEncoderError, match="outputs logits, h2"):
        find_encoder(model.graph)


def _heads(pools: tuple[Pool, ...]) -> list[tuple[Pool, Head]]:
    rng = np.random.default_rng(5)
    return [
        (pool, Head(rng.standard_normal((8, 3)).astype(np.float32), np.zeros(3, np.float32)))
        for pool in pools
    ]


def _expected(
    model: ir.Model, feeds: Feeds, exits: list[Exit], task: Task
) -> tuple[np.ndarray, np.ndarray]:
    """The same policy in numpy on the whole model's tensors; and the exit that each row took."""
    seen = run(expose(model, [str(e.state.name) for e in exits]).model, feeds)
    scores, where = seen["logits"].copy(), np.full(len(seen["logits"]), len(exits))
    for index in reversed(range(len(exits))):
        e = exits[index]
        features = pool_states(seen[str(e.state.name)], feeds["attention_mask"], e.pool)
        logits = e.head.logits(features)
        leaves = confidence(logits, task) >= e.threshold
        scores[leaves], where[leaves] = logits[leaves], index
    return scores, where


def _medians(model: ir.Model, task: Task, feeds: Feeds) -> tuple[float, float]:
    """Confidences that half of the samples reach after blocks 1 and 3."""
    states = [b.value for b in find_encoder(model.graph).boundaries][::2]
    seen = run(expose(model, [str(state.name) for state in states]).model, feeds)
    sure = [
        confidence(
            head.logits(pool_states(seen[str(state.name)], feeds["attention_mask"], pool)), task
        )
        for state, (pool, head) in zip(states, _heads(("mean", "first")), strict=True)
    ]
    return float(np.median(sure[0])), float(np.median(sure[1]))


def _with_exits(
    make: Make, thresholds: tuple[float, float], task: Task, pre_norm: bool
) -> tuple[ir.Model, ir.Model, list[Exit]]:
    dense, model = make(4, pre_norm), make(4, pre_norm)
    encoder = find_encoder(model.graph)
    states = [encoder.boundaries[0], encoder.boundaries[2]]
    exits = [
        Exit(b.value, b.depth, head, pool, threshold)
        for b, (pool, head), threshold in zip(
            states, _heads(("mean", "first")), thresholds, strict=True
        )
    ]
    named = [replace(e) for e in exits]
    build_exits(model, encoder, exits, task, "attention_mask")
    verify(model)
    return dense, model, named


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
@pytest.mark.parametrize("rows", [1, 2, 60])
def test_rows_leave_where_their_confidence_says(
    make_classifier: Make, make_feeds: MakeFeeds, rows: int, task: Task, pre_norm: bool
) -> None:
    thresholds = _medians(make_classifier(4, pre_norm), task, make_feeds(60))
    dense, model, exits = _with_exits(make_classifier, thresholds, task, pre_norm)
    feeds = make_feeds(rows)
    expected, where = _expected(dense, feeds, exits, task)
    if rows == 60:
        assert set(where) == {0, 1, 2}
    np.testing.assert_allclose(run(model, feeds)["logits"], expected, atol=2e-6)


@pytest.mark.openvino
@pytest.mark.parametrize("thresholds", [(0.75, 0.7), (0.0, 0.0), (2.0, 2.0), (2.0, 0.0)])
def test_openvino_computes_the_same(
    make_classifier: Make, make_feeds: MakeFeeds, thresholds: tuple[float, float]
) -> None:
    dense, model, exits = _with_exits(make_classifier, thresholds, "multi-class", False)
    for rows in (1, 13):
        feeds = make_feeds(rows)
        expected, _ = _expected(dense, feeds, exits, "multi-class")
        found = run(model, feeds, "openvino-cpu")["logits"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (2.0, 2.0), (2.0, 0.0)])
def test_all_leave_or_none(
    make_classifier: Make, make_feeds: MakeFeeds, thresholds: tuple[float, float]
) -> None:
    dense, model, exits = _with_exits(make_classifier, thresholds, "multi-class", False)
    feeds = make_feeds(7)
    expected, _ = _expected(dense, feeds, exits, "multi-class")
    np.testing.assert_allclose(run(model, feeds)["logits"], expected, atol=2e-6)


def test_blocks_behind_the_exit_live_in_the_branch_alone(make_classifier: Make) -> None:
    _, model, _ = _with_exits(make_classifier, (0.5, 0.5), "multi-class", False)
    softmaxes = [n for n in model.graph if n.op_type == "Softmax"]
    assert len(softmaxes) == 2  # The first block's attention, and the confidence.
    assert [n.op_type for n in model.graph].count("If") == 1
    everything = [n for n in model.graph.all_nodes() if n.op_type == "Gelu"]
    assert len(everything) == 4


def test_scores_that_are_nan_do_not_leave(make_classifier: Make, make_feeds: MakeFeeds) -> None:
    dense, model = make_classifier(2), make_classifier(2)
    encoder = find_encoder(model.graph)
    bad = Head(np.full((8, 3), np.nan, np.float32), np.zeros(3, np.float32))
    state = encoder.boundaries[0]
    exits = [Exit(state.value, 1, bad, "first", 0.0)]
    build_exits(model, encoder, exits, "multi-class", "attention_mask")
    feeds = make_feeds(3)
    np.testing.assert_allclose(run(model, feeds)["logits"], run(dense, feeds)["logits"])


def test_the_pass_keeps_the_agreement(make_classifier: Make, make_feeds: MakeFeeds) -> None:
    model = make_classifier(3)
    data, test = Dataset(make_feeds(600)), Dataset(make_feeds(601))
    pass_ = EarlyExit(agreement=0.9)
    plan = pass_.plan(model, context(model, data))
    assert Plan.from_json(plan.to_json()) == plan
    exits = make_classifier(3)
    result = pass_.apply(exits, plan, context(exits, data, test))
    verify(exits)
    assert result.counters["num-built-exit"] >= 1
    assert any("of 601 evaluation samples" in note for note in result.notes)
    before, after = run(model, test.feeds)["logits"], run(exits, test.feeds)["logits"]
    assert (before.argmax(-1) == after.argmax(-1)).mean() > 0.85
    assert (before != after).any(axis=-1).mean() > 0.1  # Some did leave.


def test_a_shorter_plan_lets_fewer_leave(make_classifier: Make, make_feeds: MakeFeeds) -> None:
    model = make_classifier(3)
    data = Dataset(make_feeds(600))
    pass_ = EarlyExit(agreement=0.9)
    plan = pass_.plan(model, context(model, data))
    assert len(plan) > 1
    dense = run(model, data.feeds)["logits"]
    changed = []
    for length in (1, len(plan)):
        shorter = make_classifier(3)
        pass_.apply(shorter, plan.prefix(length), context(shorter, data))
        changed.append(int((run(shorter, data.feeds)["logits"] != dense).any(axis=-1).sum()))
    assert changed[0] < changed[1]


def test_it_needs_real_samples(make_classifier: Make, make_feeds: MakeFeeds) -> None:
    model = make_classifier(2)
    with pytest.raises(UsageError, match="real samples"):
        EarlyExit().plan(model, context(model, None))
    with pytest.raises(UsageError, match="got 5 calibration samples"):
        EarlyExit().plan(model, context(model, Dataset(make_feeds(5))))
    with pytest.raises(OptionError, match="has 2 blocks"):
        EarlyExit(layers=("2",)).plan(model, context(model, Dataset(make_feeds(40))))


def test_a_fixed_batch_is_left_alone(make_classifier: Make, make_feeds: MakeFeeds) -> None:
    model = make_classifier(2, batch="4")
    result = EarlyExit().run(model, context(model, Dataset(make_feeds(40))))
    assert not result.modified
    assert result.counters["num-skipped-model"] == 1
    assert "it takes 4 samples at a time" in result.notes[0]
