"""Heads reach the optimum of their loss; thresholds keep the agreement that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.exits.heads import Task, agrees, confidence, fit, probabilities, train
from irtools.passes.exits.policy import NEVER, Candidate, judge, lower_thresholds


def _samples(task: Task, count: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((count, 5)) * [1, 10, 0.1, 1, 1] + 3).astype(np.float32)
    logits = ((x - 3) @ rng.standard_normal((5, 4)) + 0.5).astype(np.float32)
    return x, logits, probabilities(logits, task)


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_a_head_stands_where_the_gradient_vanishes(task: Task) -> None:
    x, _, targets = _samples(task)
    head = fit(x, targets, task, penalty=0.01)
    error = probabilities(head.logits(x), task) - targets
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    slope = standard.T @ error / len(x) + 0.01 * head.weight * x.std(axis=0)[:, None]
    assert np.abs(slope).max() < 5e-4
    assert np.abs(error.mean(axis=0)).max() < 5e-4  # The bias is not penalized.


def test_a_constant_feature_does_no_harm() -> None:
    x, _, targets = _samples("multi-class")
    x[:, 0] = 7
    head = fit(x, targets, "multi-class", penalty=0.01)
    assert np.isfinite(head.weight).all()
    assert agrees(head.logits(x), np.log(targets), "multi-class").mean() > 0.8


def test_the_better_pooling_is_kept_and_judged_unseen() -> None:
    x, logits, _ = _samples("multi-class")
    noise = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    trained = train({"first": noise, "mean": x}, logits, "multi-class", seed=0)
    assert trained.pool == "mean"
    useless = train({"first": noise}, logits, "multi-class", seed=0)
    assert agrees(useless.unseen, logits, "multi-class").mean() < 0.6
    assert trained.loss < useless.loss


def test_confidence() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
    assert confidence(logits, "multi-class") == pytest.approx(0.7)
    labels = np.array([[2.0, -3.0, 0.1]], np.float32)
    assert confidence(labels, "multi-label") == pytest.approx(1 / (1 + np.exp(-0.1)))
    assert not agrees(labels, -labels, "multi-label").any()


_TWO = [
    Candidate(1, np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True])),
    Candidate(2, np.array([0.5, 0.5, 0.9, 0.4]), np.array([True, True, True, True])),
]


def test_judge_counts_every_sample_where_it_leaves() -> None:
    outcome = judge(_TWO, [0.8, 0.9], depth=4)
    assert outcome.shares == (0.5, 0.25, 0.25)
    assert outcome.agreement == 1.0
    # Two leave after 1 block, one after 2, one computes all 4; heads: 4 + 2 times 0.05.
    assert outcome.work == pytest.approx((1 + 1 + 2 + 4 + 6 * 0.05) / 4)
    assert judge(_TWO, [0.7, NEVER], depth=4).agreement == 0.75
    assert judge(_TWO, [NEVER, NEVER], depth=4).work == 4


@pytest.mark.parametrize("wanted", [1.0, 0.98, 0.9, 0.5])
def test_thresholds_come_down_as_far_as_the_agreement_allows(wanted: float) -> None:
    rng = np.random.default_rng(0)
    candidates = []
    for depth in (1, 2, 3):
        sure = rng.uniform(0.3, 1, 400)
        candidates.append(Candidate(depth, sure, rng.uniform(0, 1, 400) < sure**0.3))
    steps = list(lower_thresholds(candidates, 4, wanted, max_exits=2))
    work = [step.outcome.work for step in steps]
    assert all(step.outcome.agreement >= wanted for step in steps)
    assert work == sorted(work, reverse=True)
    assert len({step.candidate for step in steps}) <= 2
    if wanted <= 0.98:
        assert work[-1] < 3.9
    final = [NEVER] * 3
    for step in steps:
        assert step.threshold < final[step.candidate]
        final[step.candidate] = step.threshold
    if steps:
        assert judge(candidates, final, 4) == steps[-1].outcome
