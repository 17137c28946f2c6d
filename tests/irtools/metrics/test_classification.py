"""Accuracy and F1 against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtools.errors import DataError
from irtools.metrics import PerSampleMetric
from irtools.metrics.classification import (
    Accuracy,
    F1Macro,
    F1Micro,
    MultilabelF1Macro,
    MultilabelF1Micro,
    SubsetAccuracy,
)


def one_hot(predicted: list[int], classes: int = 3) -> dict[str, np.ndarray]:
    return {"logits": np.eye(classes, dtype=np.float32)[predicted]}


LABELS = np.array([0, 0, 0, 1, 1, 2])
GUESSES = [0, 0, 1, 1, 2, 2]
# Class 0: precision 2/2, recall 2/3, F1 4/5. Class 1: 1/2 and 1/2. Class 2: 1/2 and 1/1, F1 2/3.


@pytest.mark.parametrize(
    ("metric", "expected"),
    [(Accuracy(), 4 / 6), (F1Micro(), 4 / 6), (F1Macro(), (4 / 5 + 1 / 2 + 2 / 3) / 3)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_single_label(metric: PerSampleMetric, expected: float) -> None:
    assert metric(one_hot(GUESSES), LABELS) == pytest.approx(expected)


def test_classes_that_never_occur_do_not_count() -> None:
    assert F1Macro()(one_hot([0, 1], classes=50), np.array([0, 1])) == 1.0


def test_tokens_with_label_minus_100_do_not_count() -> None:
    logits = np.eye(3, dtype=np.float32)[[[0, 1, 2], [2, 2, 2]]]
    labels = np.array([[0, 2, -100], [2, -100, -100]])
    assert Accuracy()({"logits": logits}, labels) == pytest.approx(2 / 3)


MANY = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
ANSWERS = np.array([[2, -1, -1], [-1, -1, -1], [1, 1, -2], [-1, -1, 0.5]], np.float32)
# Right 3, found 4, wanted 5. Label 0: 2/2/2, label 1: 1/1/2, label 2: 0/1/1.


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (MultilabelF1Micro(), 6 / 9),
        (MultilabelF1Macro(), (1 + 2 / 3 + 0) / 3),
        (SubsetAccuracy(), 2 / 4),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_several_labels(metric: PerSampleMetric, expected: float) -> None:
    assert metric({"logits": ANSWERS}, MANY) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_micro_f1_is_accuracy_and_the_order_does_not_matter(pairs: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in pairs])
    guesses = [guess for _, guess in pairs]
    accuracy = Accuracy()(one_hot(guesses, 5), labels)
    assert F1Micro()(one_hot(guesses, 5), labels) == pytest.approx(accuracy)
    backwards = F1Macro()(one_hot(guesses[::-1], 5), labels[::-1])
    assert F1Macro()(one_hot(guesses, 5), labels) == pytest.approx(backwards)


def test_the_logits_output_is_found_by_name() -> None:
    outputs = {"hidden": np.zeros((2, 9), np.float32), **one_hot([1, 2])}
    assert Accuracy()(outputs, np.array([1, 2])) == 1.0
    assert Accuracy()({"y": one_hot([1, 2])["logits"]}, np.array([1, 2])) == 1.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 7]), "label 7 is outside the model's 3 classes; expected 0 to 2"),
        (np.array([0, -1]), "label -1 is outside"),
        (np.array([0.0, 1.0]), "need whole-number labels"),
        (np.array([[0, 1], [1, 0]]), r"shape \[2\]; found int64\[2, 2\].*multilabel-f1-micro"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Accuracy()(one_hot([0, 1]), labels)


def test_multi_label_needs_flags_of_the_logits_shape() -> None:
    with pytest.raises(DataError, match=r"logits' shape \[4, 3\], the labels have shape \[4\]"):
        SubsetAccuracy()({"logits": ANSWERS}, np.zeros(4, int))


def test_no_float_output() -> None:
    with pytest.raises(DataError, match="needs a floating-point output; the model gives ids"):
        Accuracy()({"ids": np.zeros((1, 2), int)}, np.zeros(1, int))


@pytest.mark.parametrize("kind", [Accuracy, F1Micro, F1Macro])
def test_no_samples(kind: type[PerSampleMetric]) -> None:
    assert np.isnan(kind().finish(np.zeros((0, 2), np.int64)))
