"""Embeddings, perplexity, loading by name."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from irtools.errors import DataError, UnknownNameError, UsageError
from irtools.metrics import list_metrics, load_metric
from irtools.metrics.embedding import CosineSimilarity
from irtools.metrics.language import Perplexity


def test_cosine_is_the_mean_over_samples() -> None:
    found = np.array([[1, 0], [3, 4], [0, 0]], np.float32)
    wanted = np.array([[2, 0], [4, 3], [1, 1]], np.float32)
    figure = CosineSimilarity()({"embeddings": found}, wanted)
    assert figure == pytest.approx((1 + 24 / 25 + 0) / 3)
    with pytest.raises(DataError, match="labels of the output's shape"):
        CosineSimilarity()({"embeddings": found}, wanted[:, :1])


def test_perplexity_of_even_guesses_is_the_size_of_the_vocabulary() -> None:
    logits = np.zeros((2, 5, 7), np.float32)
    assert Perplexity()({"logits": logits}, np.ones((2, 5), int)) == pytest.approx(7)


def test_perplexity_predicts_the_next_token_and_leaves_padding_out() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 3)).astype(np.float32) * 3
    feeds = {
        "input_ids": np.array([[0, 1, 2, 1], [2, 0, 1, 0]]),
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    labels = Perplexity().derive_labels(feeds)
    assert labels is not None
    assert labels.tolist() == [[-100, 1, 2, 1], [-100, 0, -100, -100]]
    total, tokens = 0.0, 0
    for row, column, token in ((0, 0, 1), (0, 1, 2), (0, 2, 1), (1, 0, 0)):
        scores = logits[row, column].astype(float)
        total += math.log(sum(math.exp(s) for s in scores)) - scores[token]
        tokens += 1
    figure = Perplexity()({"logits": logits}, labels)
    assert figure == pytest.approx(math.exp(total / tokens), rel=1e-6)
    assert not Perplexity.larger_is_better


def test_padding_on_the_left_predicts_nothing() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((1, 4, 3)).astype(np.float32)
    ids = np.array([[2, 0, 1, 2]])
    alone = Perplexity().derive_labels({"input_ids": ids[:, 2:]})
    feeds = {"input_ids": ids, "attention_mask": np.array([[0, 0, 1, 1]])}
    padded = Perplexity().derive_labels(feeds)
    assert alone is not None and padded is not None
    assert padded.tolist() == [[-100, -100, -100, 2]]
    assert Perplexity()({"logits": logits}, padded) == Perplexity()(
        {"logits": logits[:, 2:]}, alone
    )


def test_long_texts_are_summed_in_pieces() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((1, 100, 5)).astype(np.float32)
    labels = rng.integers(0, 5, (1, 100))
    x = logits[0, :-1].astype(np.float64)
    losses = np.log(np.exp(x).sum(axis=1)) - x[np.arange(99), labels[0, 1:]]
    assert Perplexity()({"logits": logits}, labels) == pytest.approx(np.exp(losses.mean()))


def test_classes_of_texts_are_no_labels_of_tokens() -> None:
    feeds = {"input_ids": np.array([[3, 4, 5]])}
    chosen = Perplexity().choose_labels(np.array([1]), feeds)
    assert chosen is not None and chosen.tolist() == [[-100, 4, 5]]
    given = np.array([[0, -100, 2]])
    assert Perplexity().choose_labels(given, feeds) is given


def test_perplexity_survives_huge_logits_and_samples_without_tokens() -> None:
    logits = np.full((1, 3, 2), 1e4, np.float32)
    assert Perplexity()({"logits": logits}, np.array([[0, 1, -100]])) == pytest.approx(2)
    assert math.isnan(Perplexity()({"logits": logits}, np.full((1, 3), -100)))


def test_perplexity_refuses_what_does_not_fit() -> None:
    logits = np.zeros((1, 3, 2), np.float32)
    with pytest.raises(DataError, match=r"needs logits \[N,S,V\]"):
        Perplexity()({"logits": logits}, np.zeros((1, 4), int))
    with pytest.raises(DataError, match="label 5 is outside the vocabulary of 2"):
        Perplexity()({"logits": logits}, np.full((1, 3), 5))


def test_every_listed_metric_loads_under_its_own_name() -> None:
    names = list_metrics()
    assert {"accuracy", "f1-macro", "multilabel-f1-micro", "perplexity", "cosine"} <= set(names)
    assert all(load_metric(name).name == name for name in names)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        load_metric("acuracy")


def test_functions_as_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_metrics")

    def error(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.floating:
        return np.abs(outputs["y"] - labels).mean()

    error.larger_is_better = False  # type: ignore[attr-defined]
    module.error = error  # type: ignore[attr-defined]
    module.wrong = lambda outputs, labels: "good"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    metric = load_metric("my_metrics:error")
    assert (metric.name, metric.larger_is_better) == ("my_metrics:error", False)
    assert metric({"y": np.array([1.0, 3.0])}, np.array([1.0, 1.0])) == 1.0
    with pytest.raises(DataError, match="returned str, not a number"):
        load_metric("my_metrics:wrong")({}, np.zeros(0))
    with pytest.raises(DataError, match=r"failed: KeyError: 'y'; it got the outputs logits and"):
        metric({"logits": np.zeros(2)}, np.zeros(2))
    with pytest.raises(UsageError, match="has no 'absent'"):
        load_metric("my_metrics:absent")


def test_a_function_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics_of_mine.py").write_text("def two(outputs, labels):\n    return 2\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_metric("metrics_of_mine:two")({}, np.zeros(0)) == 2.0
    assert sys.path == before
