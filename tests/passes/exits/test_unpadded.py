"""Leaving early and computing tokens alone exclude each other: the second pass says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.passmanager import PassResult, Pipeline

from .exit_runs import context, run

Make = Callable[..., ir.Model]
MakeFeeds = Callable[[int], dict[str, np.ndarray]]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (
            "unpad,early-exit:agreement=0.9",
            "left alone: the model cannot be left early, because the state 'h1' between blocks has "
            "the tokens of all texts in one row, as unpad writes them",
        ),
        (
            "early-exit:agreement=0.9,unpad",
            "padding is computed: all positions of h1 are read by Gather at exit_Gather",
        ),
    ],
)
def test_the_second_leaves_the_model_alone(
    order: str, reason: str, make_classifier: Make, make_feeds: MakeFeeds
) -> None:
    model, data = make_classifier(3), Dataset(make_feeds(600))
    answers: list[PassResult] = []
    for step in Pipeline.parse(f"lift-constants,{order}"):
        once = run(model, data.feeds)["logits"]
        answers.append(step.run(model, context(model, data)))
    assert [answer.modified for answer in answers] == [True, True, False]
    assert any(note.startswith(reason) for note in answers[-1].notes)
    np.testing.assert_array_equal(run(model, data.feeds)["logits"], once)
