"""Which positions a mask hides, and what a check leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from irtools.frontends.torch.check import PlainTrial
from irtools.frontends.torch.padding import (
    axes_of_sequence,
    hidden_by_name,
    hidden_by_trying,
    spread,
)

Feeds = Mapping[str, np.ndarray]

SHOWN = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
HIDDEN = SHOWN == 0


def _states(batch: int = 2, length: int = 5, width: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, length, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("attention_mask", SHOWN),
        ("attention_mask", SHOWN.astype(bool)),
        ("attn_mask", np.where(HIDDEN, -1e9, 0.0)[:, None, None, :]),
        ("attention_mask", np.repeat(SHOWN[:, None, None, :], 5, axis=2)),
        ("src_key_padding_mask", HIDDEN),
        ("padding_mask", HIDDEN.astype(np.int64)),
    ],
)
def test_the_name_of_a_mask_says_its_sense(name: str, mask: np.ndarray) -> None:
    found = hidden_by_name({"x": _states(), name: mask})
    np.testing.assert_array_equal(found, HIDDEN)


def test_a_mask_of_any_other_name_says_nothing() -> None:
    assert hidden_by_name({"x": _states(), "mask": SHOWN}) is None


def _attend(feeds: Feeds, shown: np.ndarray) -> dict[str, np.ndarray]:
    x = feeds["x"]
    scores = np.where(shown[:, None, :], x @ x.transpose(0, 2, 1), -1e9)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = x + weights @ x
    pooled = (y * shown[..., None]).sum(1)
    return {"states": y, "pooled": pooled, "weights": weights[:, None], "score": y.sum(-1)}


@pytest.mark.parametrize(
    ("name", "mask", "read"),
    [
        ("mask", SHOWN, lambda m: m != 0),
        ("mask", HIDDEN, lambda m: m == 0),
        ("keep", SHOWN.astype(np.float32), lambda m: m != 0),
        ("attention_mask", HIDDEN, lambda m: ~m),  # The name is wrong; trying finds out.
        ("src_key_padding_mask", HIDDEN, lambda m: ~m),
        ("lengths", np.array([5, 3]), lambda n: np.arange(5) < n[:, None]),
    ],
)
def test_the_sense_of_a_mask_is_found_by_trying(
    name: str, mask: np.ndarray, read: Callable[[np.ndarray], np.ndarray]
) -> None:
    feeds = {"x": _states(), name: mask}

    def run(given: Feeds) -> Feeds:
        return _attend(given, read(given[name]))

    hidden, axes = hidden_by_trying(feeds, run(feeds), run)
    np.testing.assert_array_equal(hidden, HIDDEN)
    assert axes == {"states": (1,), "weights": (2, 3), "score": (1,)}


def test_a_mask_that_chooses_among_positions_hides_none() -> None:
    feeds = {"x": _states(), "mask": SHOWN.astype(bool), "other": _states() + 1}

    def run(given: Feeds) -> Feeds:
        return {"y": np.where(given["mask"][..., None], given["x"], given["other"])}

    assert hidden_by_trying(feeds, run(feeds), run) == (None, {})


def test_positions_that_reach_others_are_not_hidden() -> None:
    feeds = {"x": _states(), "padding_mask": HIDDEN}

    def run(given: Feeds) -> Feeds:
        return {"y": given["x"] + given["x"].mean(1, keepdims=True)}

    assert hidden_by_trying(feeds, run(feeds), run) == (None, {})


def test_a_width_as_large_as_one_sequence_is_not_the_sequence() -> None:
    shapes = [(2, 16, 16), (3, 37, 16)]
    assert axes_of_sequence(shapes, [(2, 16), (3, 37)]) == (1,)
    assert axes_of_sequence([(2, 16), (3, 16)], [(2, 16), (3, 37)]) == ()
    assert axes_of_sequence([(2, 4, 8, 8), (2, 4, 9, 9)], [(2, 8), (2, 9)]) == (2, 3)


def test_what_stands_at_padding_is_left_out_and_nothing_else() -> None:
    wanted = _states()
    trial = PlainTrial({}, {"y": wanted}, "here", {"y": spread(HIDDEN, wanted, (1,))})
    found = wanted.copy()
    found[1, 3:] = np.nan
    assert trial.error("y", found) == 0
    found[1, 2] += 1
    assert trial.error("y", found) > 0.1
    assert trial.error("y", wanted[:, :4]) == float("inf")
