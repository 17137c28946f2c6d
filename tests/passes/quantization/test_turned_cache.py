"""Matrices of keys, queries and values: what scores and mixed values lose by rounding."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.quantization.ranges.attention_error import AttentionSample, rounded_rows
from irtools.passes.quantization.ranges.rotary import Turning
from irtools.passes.quantization.ranges.turned_cache import (
    Recipe,
    Turned,
    turned_keys,
    turned_values,
)

_SIZE, _HEADS, _GROUP = 16, 2, 3
_HALF = _SIZE // 2
_PAIRS = tuple((i, i + _HALF) for i in range(_HALF))
_STEPS = 1.0 / 10.0 ** np.arange(_HALF)
_TRAINED = 300
_TURNING = Turning(_STEPS, 1.0, _TRAINED)


def _draw(heads: int, seed: int) -> np.ndarray:
    """Channel 3, of a slow pair, is wide; channels 0 and 3 are off zero. [N, heads, D]."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(400, heads, _SIZE))
    drawn[..., 3] *= 12.0
    drawn[..., 0] += 9.0
    drawn[..., 3] += 12.0
    return drawn


_KEYS, _QUERIES = _draw(_HEADS, 7), _draw(_HEADS * _GROUP, 8)


def _moments(rows: np.ndarray) -> np.ndarray:
    whole = np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2).transpose(1, 0, 2)
    return np.asarray(whole.transpose(0, 2, 1) @ whole)


def _rotated(rows: np.ndarray, gain: float = 1.0) -> np.ndarray:
    """Return rows at places spread over all that were trained on, [N * P, heads, D]."""
    places = np.linspace(0, _TRAINED - 1, 40).round()[:, None, None, None]
    z = gain * (rows[..., :_HALF] + 1j * rows[..., _HALF:]) * np.exp(1j * places * _STEPS)
    return np.concatenate([z.real, z.imag], axis=-1).reshape(-1, *rows.shape[1:])


_TWICE = Recipe(floor=0.01, twice=4, step=0.44)
_HADAMARD = Recipe(floor=1e3, twice=0, step=0.44)


_SINK = _KEYS.mean(axis=0) + np.random.default_rng(10).normal(0, 0.5, (_HEADS, _SIZE))


def _found(
    turning: Turning | None = _TURNING,
    recipe: Recipe = _TWICE,
    sink: np.ndarray | None = _SINK,
) -> Turned:
    moments = _moments(_KEYS), _moments(_QUERIES)
    (found,) = turned_keys(*moments, _PAIRS, turning, sink, [recipe])
    return found


def _back(found: Turned, keys: np.ndarray) -> np.ndarray:
    """Return keys [N, G, D] as a cache with these codes has them."""
    rounded = rounded_rows(keys.transpose(1, 0, 2), found.turn, found.scale)
    return rounded.transpose(1, 0, 2)


def _score_error(keys: np.ndarray, rounded: np.ndarray, queries: np.ndarray) -> float:
    """Return the mean square of what scores are off by, of that of scores around their means."""
    rng = np.random.default_rng(9)
    chosen = queries[rng.integers(0, len(queries), 500)]
    lost = wanted = 0.0
    for head in range(_HEADS * _GROUP):
        exact = chosen[:, head] @ keys[:, head // _GROUP].T
        error = chosen[:, head] @ rounded[:, head // _GROUP].T - exact
        lost += float(np.var(error, axis=1).mean())
        wanted += float(np.var(exact, axis=1).mean())
    return lost / wanted


def _plain(keys: np.ndarray) -> np.ndarray:
    """Return keys in 4 bits with a step for each channel."""
    scale = abs(keys).max(axis=0) / 7.45
    return np.asarray((keys / scale).round().clip(-8, 7) * scale)


def test_scores_lose_least_if_channels_are_rounded_twice() -> None:
    keys, queries = _rotated(_KEYS), _rotated(_QUERIES)
    twice, hadamard = (
        _score_error(keys, _back(_found(recipe=one), keys), queries) for one in (_TWICE, _HADAMARD)
    )
    assert twice < 0.5 * hadamard < 0.5 * _score_error(keys, _plain(keys), queries)


@pytest.mark.parametrize("gain", [1.0, 1.2])
def test_steps_are_a_part_of_the_spread_at_all_positions(gain: float) -> None:
    found = _found(Turning(_STEPS, gain, _TRAINED))
    keys = _rotated(_KEYS, gain)
    offset, scale = (a.reshape(_HEADS, _SIZE) for a in (found.turn.offset, found.scale))
    turned = np.einsum("ngi,gij->ngj", keys - offset, found.turn.forth)
    spread = turned.std(axis=0)
    once = slice(_SIZE // 4, -_SIZE // 4)
    middle = turned.mean(axis=0)[:, once] + scale[:, once] / 2
    assert (abs(middle) <= scale[:, once] / 2 + 0.1 * spread.max()).all()
    np.testing.assert_allclose(scale[:, once], 0.44 * spread[:, once], rtol=0.1)


def test_what_the_first_rounding_leaves_over_is_rounded_in_the_last_channels() -> None:
    found = _found()
    assert found.turn.coarse is not None
    coarse, scale = (a.reshape(_HEADS, _SIZE) for a in (found.turn.coarse, found.scale))
    forth = found.turn.forth
    assert (coarse[:, :-4] == np.float32(1e30)).all()
    np.testing.assert_array_equal(forth[:, :, :4], forth[:, :, -4:])
    np.testing.assert_array_equal(coarse[:, -4:], scale[:, :4])
    np.testing.assert_allclose(scale[:, -4:], scale[:, :4] / 15, rtol=1e-6)


def test_a_high_floor_leaves_a_rotation() -> None:
    turn = _found(recipe=_HADAMARD).turn
    assert turn.coarse is None
    eye = np.broadcast_to(np.eye(_SIZE), turn.forth.shape)
    np.testing.assert_allclose(turn.forth @ turn.back, eye, atol=0.01)
    products = turn.forth @ turn.forth.transpose(0, 2, 1)
    np.testing.assert_allclose(products, products[:, :1, :1] * eye, atol=0.02 * _SIZE)


def test_heads_without_room_are_not_rounded_twice() -> None:
    small = _moments(_KEYS[..., :4])
    found = turned_keys(small, small, (), None, _SINK[:, :4])
    assert found and all(one.turn.coarse is None for one in found)


def test_without_rotary_embedding_codes_lie_around_the_mean() -> None:
    """Codes are from -8 to 7: their middle is half a step below zero, give or take half a step."""
    found = _found(None)
    middle = found.turn.turned(_KEYS.mean(axis=0)[:, None])[:, 0, 4:-4]
    scale = found.scale.reshape(_HEADS, _SIZE)[:, 4:-4]
    assert (abs(middle + scale / 2) <= scale * 0.51).all()
    assert _score_error(_KEYS, _back(found, _KEYS), _QUERIES) < 0.01


@pytest.mark.parametrize("recipe", [_TWICE, _HADAMARD])
def test_the_key_that_most_queries_look_at_is_exact(recipe: Recipe) -> None:
    """But for channels that are left out: those are next to nothing in scores."""
    found = _found(recipe=recipe)
    turned = found.turn.forth[:, :, : _SIZE - recipe.twice]
    exact, rounded = (
        np.einsum("gi,gij->gj", rows, turned) for rows in (_SINK, _back(found, _SINK[None])[0])
    )
    steps = found.scale.reshape(_HEADS, _SIZE)[:, : _SIZE - recipe.twice]
    assert (abs(exact - rounded) < 0.02 * steps.max()).all()
    other = _back(found, _SINK[None] + 0.3)[0]
    assert abs(np.einsum("gi,gij->gj", other - _SINK - 0.3, turned)).max() > 0.2 * steps.min()


def test_the_value_that_most_queries_look_at_is_exact() -> None:
    (found,) = turned_values(_moments(_KEYS), _SINK, [Recipe(floor=0.1, twice=0, step=0.44)])
    error = abs(_back(found, _SINK[None])[0] - _SINK)
    others = np.sqrt(np.mean((_back(found, _KEYS) - _KEYS) ** 2))
    assert error.max() < 0.05 * others


def test_turned_values_lose_less_than_stepped_ones() -> None:
    """Wide channels get a wider step, but not so wide as their spread: all count alike."""
    found = min(
        (_back(one, _KEYS) for one in turned_values(_moments(_KEYS), _SINK)),
        key=lambda rounded: float(np.sum((rounded - _KEYS) ** 2)),
    )
    lost, plain = (float(np.sum((rows - _KEYS) ** 2)) for rows in (found, _plain(_KEYS)))
    assert lost < 0.6 * plain


def test_scores_that_are_capped_must_not_move() -> None:
    assert not _found(None, sink=None).turn.offset.any()


def test_keys_that_are_always_zero_have_steps() -> None:
    empty = _moments(np.zeros((4, _HEADS, _SIZE)))
    moments = empty, _moments(_QUERIES)
    (found,) = turned_keys(*moments, _PAIRS, _TURNING, 0 * _SINK, [_TWICE])
    assert (found.scale[:4] == 1.0).all()
    for array in (found.turn.forth, found.turn.back):
        assert np.isfinite(array).all()


@pytest.mark.parametrize(("first", "place"), [(0.4, 2), (0.6, 0)])
def test_of_two_tokens_that_are_looked_at_alike_the_first_is_exact(
    first: float, place: int
) -> None:
    """Two heads over one; the third token is looked at most."""
    rng = np.random.default_rng(11)
    keys, values = rng.normal(size=(2, 1, 3, 4))
    sample = AttentionSample(rng.normal(size=(2, 3, 4)), keys, values, 0.5)
    weights = np.broadcast_to(np.array([first, 0.1, 1.0]), (2, 3, 3))
    key, value = sample.sinks(weights)
    np.testing.assert_array_equal(key, keys[:, place])
    np.testing.assert_array_equal(value, values[:, place])
