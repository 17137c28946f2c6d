"""Committed exports of real architectures: those that normalize before their blocks are rotated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.model import Model
from irtools.passmanager import PassContext, Pipeline
from irtools.passmanager.requirements import prepare
from irtools.targets import RunnerOptions, find_target

GRAPHS = Path(__file__).parents[2] / "data" / "graphs"
Feeds = Callable[..., dict[str, np.ndarray]]


@pytest.mark.parametrize("name", ["vit-eager-dynamo20", "vit-sdpa-ts14"])
def test_vision_transformers_are_rotated(name: str, encoder_feeds: Feeds) -> None:
    before = Model.load(GRAPHS / f"{name}.onnx")
    feeds = encoder_feeds(before.ir, 3, 8)
    after, counters, _ = rotated(before, feeds)
    assert counters["num-rotated-streams"] == 1
    assert counters["num-rotated-heads"] > 0
    outputs = []
    for model in (before, after):
        with find_target("ort-cpu").runner(model, RunnerOptions(threads=1, exact=True)) as runner:
            outputs.append(runner.run(feeds))
    for key, expected in outputs[0].items():
        noise = np.square(expected.astype(np.float64) - outputs[1][key]).sum()
        assert 10 * np.log10(np.square(expected).sum() / noise) > 110


@pytest.mark.parametrize("name", ["bert-sdpa-dynamo20", "distilbert-sdpa-ts17"])
def test_berts_are_declined(name: str, encoder_feeds: Feeds) -> None:
    before = Model.load(GRAPHS / f"{name}.onnx")
    _, counters, notes = rotated(before, encoder_feeds(before.ir, 3, 8))
    assert counters["num-skipped-post-norm"] > 1
    assert "num-rotated-streams" not in counters
    assert any("blocks are normalized after their sum" in note for note in notes)


def rotated(
    before: Model, feeds: dict[str, np.ndarray]
) -> tuple[Model, dict[str, int], tuple[str, ...]]:
    after, counters, notes = before.clone(), {}, ()
    for pass_ in Pipeline.parse("cleanup,fuse,rotate:min-gain=none:max-cost=1:heads=true"):
        ctx = PassContext.for_model(after, "ort-cpu:isa=vnni", calibration=Dataset(feeds))
        prepare(pass_, after.ir, ctx)
        result = pass_.run(after.ir, ctx)
        counters = {name: n for name, n in result.counters.items() if n}
        notes = result.notes
    return after, counters, notes
