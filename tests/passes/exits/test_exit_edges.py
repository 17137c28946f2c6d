"""Exits where one condition decides: each was broken on purpose and nothing else saw it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.passes.exits.early_exit import EarlyExit
from irtools.passes.exits.emit import Exit, build_exits
from irtools.passes.exits.encoder import find_encoder
from irtools.passes.exits.features import collect, pool_states
from irtools.passes.exits.heads import Head, agrees, train
from irtools.passes.exits.policy import Candidate, lower_thresholds
from irtools.statistics.observe import expose

from .exit_runs import context, run

Feeds = Mapping[str, np.ndarray]
Make = Callable[..., ir.Model]
MakeFeeds = Callable[[int], dict[str, np.ndarray]]


def test_an_agreement_that_is_just_reached_is_reached() -> None:
    alike = Candidate(1, np.array([0.9, 0.8, 0.7, 0.6]), np.array([True] * 4))
    assert [n.outcome.agreement for n in lower_thresholds([alike], 4, 1.0, 1)] == [1.0]


def test_the_notch_that_saves_most_for_each_disagreement_comes_first() -> None:
    """Leaving after one block saves more, and errs for a third of the samples."""
    sure = np.linspace(0.99, 0.9, 30)
    early = Candidate(1, sure, np.arange(30) % 3 > 0)
    late = Candidate(2, sure, np.ones(30, bool))
    first = next(lower_thresholds([early, late], 4, 0.5, 2))
    assert first.candidate == 1 and first.outcome.agreement == 1.0


def test_samples_are_judged_by_heads_that_have_not_seen_them() -> None:
    """With more features than samples a head knows every sample that it was fitted on."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((80, 200)).astype(np.float32)
    logits = (3 * rng.standard_normal((80, 4))).astype(np.float32)
    trained = train({"first": noise}, logits, "multi-class", seed=0)
    assert agrees(trained.head.logits(noise), logits, "multi-class").mean() > 0.8
    assert agrees(trained.unseen, logits, "multi-class").mean() < 0.5


def with_empty_row(feeds: Feeds) -> dict[str, np.ndarray]:
    """The same with a second row that is padding throughout."""
    found = {name: array.copy() for name, array in feeds.items()}
    for array in found.values():
        array[1] = 0
    return found


def test_a_row_without_tokens_is_pooled_to_zero(
    make_classifier: Make, make_feeds: MakeFeeds
) -> None:
    model, feeds = make_classifier(3), with_empty_row(make_feeds(5))
    encoder = find_encoder(model.graph)
    name = str(encoder.boundaries[0].value.name)
    states = run(expose(make_classifier(3), [name]).model, feeds)[name]
    pooled = pool_states(states, feeds["attention_mask"], "mean")
    np.testing.assert_array_equal(pooled[1], np.zeros(8))
    head = Head(np.ones((8, 3), np.float32), np.array([0.0, 5.0, 0.0], np.float32))
    state = encoder.boundaries[0]
    build_exits(
        model, encoder, [Exit(state.value, 1, head, "mean", 0.0)], "multi-class", "attention_mask"
    )
    np.testing.assert_allclose(run(model, feeds)["logits"], head.logits(pooled), atol=2e-6)


def test_samples_without_tokens_have_features_too(
    make_classifier: Make, make_feeds: MakeFeeds
) -> None:
    model, feeds = make_classifier(3), with_empty_row(make_feeds(40))
    encoder, data = find_encoder(model.graph), Dataset(feeds)
    found = collect(model, encoder, encoder.boundaries, data, context(model, data), ["first"])
    names = [str(b.value.name) for b in encoder.boundaries]
    seen = run(expose(model, names).model, feeds)
    np.testing.assert_allclose(found.logits, seen["logits"], atol=1e-3)
    for name, pooled in zip(names, found.pooled, strict=True):
        np.testing.assert_allclose(pooled["first"], seen[name][:, 0], atol=1e-3)


def test_blocks_behind_an_exit_keep_the_names_of_their_modules(make_classifier: Make) -> None:
    model = make_classifier(3)
    for node in model.graph:
        node.metadata_props["module"] = f"of {node.outputs[0].name}"
    before = {props for node in model.graph if (props := node.metadata_props["module"])}
    encoder = find_encoder(model.graph)
    head = Head(np.ones((8, 3), np.float32), np.zeros(3, np.float32))
    state = encoder.boundaries[0]
    build_exits(model, encoder, [Exit(state.value, 1, head, "first", 0.5)], "multi-class", None)
    kept = {node.metadata_props.get("module") for node in model.graph.all_nodes()}
    assert before <= kept


def test_a_model_for_one_sample_at_a_time_gets_exits(
    make_classifier: Make, make_feeds: MakeFeeds
) -> None:
    model = make_classifier(3, batch="1")
    data = Dataset(make_feeds(300), fixed_batch=1)
    result = EarlyExit(agreement=0.8).run(model, context(model, data))
    assert result.counters["num-built-exit"] >= 1


def test_the_histogram_and_the_thresholds_are_those_of_the_model(
    make_classifier: Make, make_feeds: MakeFeeds
) -> None:
    model, exits = make_classifier(4), make_classifier(4)
    data, test = Dataset(make_feeds(600)), Dataset(make_feeds(601))
    pass_ = EarlyExit(agreement=0.7)
    plan = pass_.plan(model, context(model, data))
    lowest = {int(d.data["depth"]): float(d.data["threshold"]) for d in plan.decisions}
    assert len(lowest) > 1 and len(plan) > len(lowest)
    result = pass_.apply(exits, plan, context(exits, data, test))
    built = [
        float(value.const_value.numpy())
        for name, value in exits.graph.initializers.items()
        if name.startswith("exit_threshold") and value.const_value is not None
    ]
    assert sorted(built) == pytest.approx(sorted(set(lowest.values())))
    (note,) = [note for note in result.notes if "of 601 evaluation samples" in note]
    assert re.findall(r"behind block (\d)", note) == [str(depth) for depth in sorted(lowest)]
    stayed, said = (
        float(found.group(1)) / 100
        for text in ("at the end", "agreement")
        if (found := re.search(rf"([\d.]+)% {text}", note))
    )
    before, after = run(model, test.feeds)["logits"], run(exits, test.feeds)["logits"]
    same = np.isclose(before, after, atol=1e-6).all(axis=-1).mean()
    assert same == pytest.approx(stayed, abs=2e-3)
    assert (before.argmax(-1) == after.argmax(-1)).mean() == pytest.approx(said, abs=1e-4)
