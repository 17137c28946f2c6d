"""Fidelity figures against their formulas."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtools.errors import DataError
from irtools.metrics import Fidelity, FidelityMeter, fidelity

RNG = np.random.default_rng(0)


def logits(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64))
    return e / e.sum(axis=-1, keepdims=True)


def test_figures_equal_their_formulas() -> None:
    y = logits(20, 5)
    z = y + 0.1 * logits(20, 5)
    figures = fidelity({"logits": y}, {"logits": z})
    a, b = y.astype(np.float64), z.astype(np.float64)
    noise = np.linalg.norm(a - b) / np.linalg.norm(a)
    p, q = softmax(y), softmax(z)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert figures.relative_l2 == pytest.approx(noise)
    assert figures.sqnr_db == pytest.approx(-20 * np.log10(noise))
    assert figures.max_abs == pytest.approx(np.abs(a - b).max())
    assert figures.cosine == pytest.approx(cosines.mean())
    assert figures.kl == pytest.approx((p * np.log(p / q)).sum(1).mean())
    assert figures.agreement == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
    assert figures.samples == 20


def test_equal_outputs() -> None:
    y = logits(3, 4)
    figures = fidelity({"logits": y}, {"logits": y.copy()})
    assert (figures.sqnr_db, figures.max_abs, figures.kl, figures.agreement) == (np.inf, 0, 0, 1)


def test_several_labels_are_decisions_of_their_own() -> None:
    y = logits(40, 5)
    z = y + 0.5 * logits(40, 5)
    figures = fidelity({"logits": y}, {"logits": z}, several_labels=True)
    p, q = (1 / (1 + np.exp(-a.astype(np.float64))) for a in (y, z))
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1)
    assert figures.kl == pytest.approx(kl.mean())
    assert figures.agreement == ((y > 0) == (z > 0)).all(axis=1).mean()
    assert figures.agreement < fidelity({"logits": y}, {"logits": z}).agreement


def test_tokens_have_one_class_each() -> None:
    y, z = logits(4, 3, 2), logits(4, 3, 2)
    assert fidelity({"x": y}, {"x": z}, several_labels=True) == fidelity({"x": y}, {"x": z})


@given(st.integers(1, 6))
def test_batches_add_up(size: int) -> None:
    y, z = logits(12, 3, 4), logits(12, 3, 4)
    meter = FidelityMeter()
    for start in range(0, 12, size):
        rows = slice(start, start + size)
        meter.update({"logits": y[rows]}, {"logits": z[rows]})
    whole, parts = fidelity({"logits": y}, {"logits": z}), meter.result()
    for name in ("sqnr_db", "relative_l2", "max_abs", "cosine", "kl", "agreement", "samples"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))


def test_large_outputs_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal((3, 7, 5)).astype(np.float32)
    other = (y + 0.1 * rng.standard_normal(y.shape)).astype(np.float32)
    other[1, 2, 0] = np.nan
    mask = np.ones((3, 7), np.int64)
    mask[2, 4:] = 0
    outputs = {"logits": y, "present": y[:, :, 0], "loss": np.float32(1.0) * y[:, 0, 0]}
    found = {"logits": other, "present": other[:, :, 0], "loss": other[:, 0, 0]}
    whole = fidelity(outputs, found, mask)
    for size in (1, 11, 36):
        monkeypatch.setattr(sys.modules["irtools.metrics.fidelity"], "_PIECE", size)
        pieces = fidelity(outputs, found, mask)
        same, wanted = dataclasses.asdict(pieces), dataclasses.asdict(whole)
        assert same.pop("same_shape") is wanted.pop("same_shape") is None
        assert same == pytest.approx(wanted, rel=1e-12)


def test_the_worst_output_counts() -> None:
    good, bad = logits(4, 6), logits(4, 6)
    meter = FidelityMeter()
    meter.update({"logits": good, "hidden": bad}, {"logits": good, "hidden": -bad})
    assert meter.result().cosine == pytest.approx(-1)
    assert meter.result().sqnr_db == pytest.approx(-20 * np.log10(2))
    assert meter.result().agreement == 1.0
    assert meter.by_output()["logits"].sqnr_db == np.inf


def test_hidden_states_have_no_softmax() -> None:
    y = logits(2, 3, 4)
    figures = fidelity({"last_hidden_state": y}, {"last_hidden_state": y})
    assert figures.kl is None
    assert figures.agreement is None
    assert fidelity({"y": y[:, 0, :1]}, {"y": y[:, 0, :1]}).kl is None


def test_padding_does_not_count() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    y, z = logits(2, 3, 4), logits(2, 3, 4)
    same = np.where(mask[..., None] == 1, y, z)
    for name in ("logits", "last_hidden_state"):
        figures = fidelity({name: y}, {name: same}, mask)
        assert figures.sqnr_db == np.inf
        assert figures.nonfinite == 0
        assert fidelity({name: y}, {name: same}).sqnr_db < np.inf


def test_nonfinite_values_are_counted_where_they_differ() -> None:
    y = np.array([[1, np.nan, np.inf, 4]], np.float32)
    z = np.array([[1, np.nan, -np.inf, np.nan]], np.float32)
    figures = fidelity({"y": y}, {"y": z})
    assert figures.nonfinite == 2
    assert np.isfinite([figures.relative_l2, figures.max_abs, figures.cosine]).all()
    assert figures.agreement == 0.0
    assert fidelity({"y": y}, {"y": y}).nonfinite == 0


def test_whole_numbers_agree_or_not() -> None:
    figures = fidelity({"label": np.array([1, 2, 3, 4])}, {"label": np.array([1, 2, 3, 0])})
    assert figures.agreement == 0.75
    assert figures.kl is None


def test_indices_count_by_agreement_where_there_are_numbers() -> None:
    scores = np.array([[0.9, 0.8, 0.8]], np.float32)
    places, swapped = np.array([[4, 1, 97]]), np.array([[4, 97, 1]])
    flags = {"kept": np.array([[True, False, True]])}
    figures = fidelity(
        {"scores": scores, "places": places, **flags},
        {"scores": scores, "places": swapped, "kept": ~flags["kept"]},
    )
    assert (figures.sqnr_db, figures.max_abs, figures.cosine) == (np.inf, 0.0, pytest.approx(1))
    assert figures.agreement == 0.0
    # Alone they are all there is; a picture in bytes is made of numbers.
    assert fidelity({"places": places}, {"places": swapped}).sqnr_db < 0
    bytes_too = {"scores": scores, "picture": np.array([[200, 7]], np.uint8)}
    dark = {**bytes_too, "picture": np.array([[20, 7]], np.uint8)}
    assert fidelity(bytes_too, dark).sqnr_db < 1


def test_degenerate_outputs() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert fidelity({"y": zeros}, {"y": zeros}).cosine == 1.0
    wrong = fidelity({"y": zeros}, {"y": zeros + 1})
    assert (wrong.sqnr_db, wrong.relative_l2, wrong.cosine) == (-np.inf, np.inf, 0.0)
    assert fidelity({"y": np.float32(2)}, {"y": np.float32(2)}).sqnr_db == np.inf
    empty = {"y": zeros, "past": np.zeros((2, 0, 3))}
    assert fidelity(empty, empty).sqnr_db == np.inf


def test_outputs_that_do_not_match() -> None:
    y = logits(2, 3)
    with pytest.raises(DataError, match="output 'y' is missing; found z"):
        fidelity({"y": y}, {"z": y})
    with pytest.raises(DataError, match=r"'y' has shape \[2, 2\], the original has \[2, 3\]"):
        fidelity({"y": y}, {"y": y[:, :2]})
    with pytest.raises(DataError, match="no numeric outputs"):
        fidelity({"s": np.array(["a"])}, {"s": np.array(["a"])})


def _ranked(expected: np.ndarray, found: np.ndarray) -> Fidelity:
    meter = FidelityMeter(ranked={"boxes"})
    meter.update({"boxes": expected}, {"boxes": found})
    return meter.result()


def test_rows_in_another_order_are_the_same_rows() -> None:
    boxes = np.random.default_rng(0).normal(size=(2, 50, 6)).astype(np.float32)
    moved = boxes[:, np.random.default_rng(1).permutation(50)]
    same = _ranked(boxes, moved)
    assert same.sqnr_db == float("inf") and same.agreement is None and same.kl is None
    assert fidelity({"boxes": boxes}, {"boxes": moved}).sqnr_db < 3
    noisy = _ranked(boxes, moved + np.float32(0.01))
    assert 35 < noisy.sqnr_db < 45


def test_rows_are_missed_on_both_sides() -> None:
    """Rows that are all the same one are near to a row of the other side, but not those to them."""
    boxes = np.random.default_rng(0).normal(size=(1, 50, 6))
    collapsed = np.repeat(boxes[:, :1], 50, axis=1)
    assert _ranked(boxes, collapsed).sqnr_db < 6
    assert _ranked(collapsed, boxes).sqnr_db < 6


def test_columns_of_pixels_do_not_hide_those_of_scores() -> None:
    rng = np.random.default_rng(0)
    boxes = np.stack([rng.integers(0, 3, 40) * 100.0, np.arange(40) / 40], axis=1)[None]
    assert _ranked(boxes, boxes[:, ::-1]).sqnr_db == float("inf")
