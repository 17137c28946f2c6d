"""Whole datasets through a runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.metrics import (
    Metric,
    bootstrap,
    compare_runners,
    evaluate,
    evaluate_outputs,
    run_dataset,
)
from irtools.metrics.classification import Accuracy, F1Macro
from irtools.metrics.language import Perplexity
from irtools.targets import Feeds, KernelReport


class Function:
    """A function as a runner."""

    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()

    def __init__(self, function: object) -> None:
        self._function = function

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        return self._function(feeds)  # type: ignore[operator, no-any-return]

    def kernels(self) -> KernelReport:
        return KernelReport()

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> Function:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to free."""


ECHO = Function(lambda feeds: {"logits": feeds["x"]})


def classified(samples: int = 200) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, 3)).astype(np.float32)
    labels = np.where(rng.random(samples) < 0.8, x.argmax(axis=1), 0)
    return Dataset({"x": x}, labels, "test.npz")


@pytest.mark.parametrize("metric", [Accuracy(), F1Macro()])
def test_outputs_that_were_kept_tell_the_same(metric: Metric) -> None:
    data = classified()
    kept = evaluate_outputs(run_dataset(ECHO, data), data, metric, seed=3)
    assert kept == evaluate(ECHO, data, metric, seed=3)


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_batches_do_not_change_the_figure(batch: int) -> None:
    data = classified()
    assert data.labels is not None
    result = evaluate(ECHO, data, Accuracy(), batch)
    expected = (data.feeds["x"].argmax(axis=1) == data.labels).mean()
    assert result.value == pytest.approx(expected)
    assert result.low < result.value < result.high
    assert result.samples == 200
    assert (result.low, result.high) == (
        evaluate(ECHO, data, Accuracy(), 3).low,
        evaluate(ECHO, data, Accuracy(), 3).high,
    )


def test_whole_output_metrics_agree_with_rows_per_sample() -> None:
    class Whole:
        name = "whole"
        larger_is_better = True

        def __call__(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> float:
            return F1Macro()(outputs, labels)

    data = classified()
    by_rows, whole = evaluate(ECHO, data, F1Macro()), evaluate(ECHO, data, Whole())
    assert (by_rows.value, by_rows.low, by_rows.high) == (whole.value, whole.low, whole.high)


def test_perplexity_needs_no_labels_and_takes_any_length() -> None:
    mask = (np.arange(6) < np.array([[6], [3], [4]])).astype(int)
    data = Dataset({"input_ids": mask, "attention_mask": mask})
    even = Function(lambda feeds: {"logits": np.zeros((*feeds["input_ids"].shape, 4), np.float32)})
    assert evaluate(even, data, Perplexity(), batch=1).value == pytest.approx(4)


def test_missing_labels_and_samples() -> None:
    data = Dataset({"x": np.zeros((2, 3), np.float32)}, source="d.npz")
    with pytest.raises(DataError, match=r"d\.npz has no labels, and metric 'accuracy' needs them"):
        evaluate(ECHO, data, Accuracy())
    with pytest.raises(DataError, match="holds no samples to evaluate"):
        evaluate(ECHO, data.take(0), Accuracy())


def test_outputs_of_other_lengths_are_filled_up() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    data = Dataset({"x": mask.astype(float), "attention_mask": mask})
    outputs = run_dataset(Function(lambda feeds: {"y": feeds["x"][..., None] + 1}), data, batch=1)
    assert outputs["y"][..., 0].tolist() == [[2, 2, 2], [2, 0, 0]]


def test_comparing_runners_leaves_padding_out() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]])
    hidden = np.random.default_rng(0).standard_normal((2, 3, 4))
    data = Dataset({"x": hidden, "attention_mask": mask})
    first = Function(lambda feeds: {"hidden": feeds["x"]})
    second = Function(lambda feeds: {"hidden": feeds["x"] * feeds["attention_mask"][..., None]})
    assert compare_runners(first, second, data).result().sqnr_db == np.inf


def test_bootstrap_covers_a_share_as_the_normal_interval_does() -> None:
    hits = np.random.default_rng(1).random(400) < 0.9
    low, high = bootstrap(lambda rows: float(hits[rows].mean()), 400)
    half = 1.96 * (hits.mean() * (1 - hits.mean()) / 400) ** 0.5
    assert low == pytest.approx(hits.mean() - half, abs=0.006)
    assert high == pytest.approx(hits.mean() + half, abs=0.006)
