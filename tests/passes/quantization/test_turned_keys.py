"""Mean and spread of keys at all positions, by their moments before rotary embedding."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.passes.quantization.ranges.rotary import Turning
from irtools.passes.quantization.ranges.turned_keys import turned_keys
from irtools.statistics import GramResult

_SIZE, _HEADS = 8, 2
_HALF = _SIZE // 2
_PAIRS = tuple((s + i, s + i + _HALF) for s in (0, _SIZE) for i in range(_HALF))
_STEPS = np.array([1.0, 0.3, 0.02, 0.001])


def _keys() -> np.ndarray:
    """One channel of a fast pair and one of a slow pair are wide, and off zero."""
    rng = np.random.default_rng(7)
    keys = rng.normal(size=(400, _HEADS * _SIZE))
    keys[:, 0] += 9.0
    keys[:, 3] += 12.0
    return keys


def _moments(keys: np.ndarray) -> GramResult:
    whole = np.concatenate([keys, np.ones((len(keys), 1))], axis=1)
    return GramResult(whole.T @ whole, None, None, len(keys))


def _at_all_positions(keys: np.ndarray, trained: int, gain: float) -> np.ndarray:
    heads = keys.reshape(-1, _HEADS, _SIZE)
    z = heads[..., :_HALF] + 1j * heads[..., _HALF:]
    places = np.arange(trained)[:, None, None, None]
    turned = gain * z * np.exp(1j * places * _STEPS)
    return np.concatenate([turned.real, turned.imag], axis=-1).reshape(-1, _HEADS, _SIZE)


@pytest.mark.parametrize("gain", [1.0, 1.2])
def test_mean_and_spread_are_those_of_all_positions(gain: float) -> None:
    keys, trained = _keys(), 300
    found = turned_keys(
        _moments(keys), _SIZE, _PAIRS, Turning(_STEPS, gain, trained), centered=True
    )
    rotation = found.turn.rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(_SIZE), atol=1e-6)
    exact = (_at_all_positions(keys, trained, gain) @ rotation).reshape(-1, _HEADS * _SIZE)
    spread = exact.std(axis=0)
    np.testing.assert_allclose(found.turn.offset, exact.mean(axis=0), atol=0.1 * spread.max())
    np.testing.assert_allclose(found.scale, 0.42 * spread, rtol=0.05)


def test_no_channel_is_wide_once_it_is_turned() -> None:
    keys = _keys()
    turning = Turning(_STEPS, 1.0, 300)
    found = turned_keys(_moments(keys), _SIZE, _PAIRS, turning, centered=True)
    plain = _at_all_positions(keys, 300, 1.0).std(axis=0)
    assert plain[0].max() > 4 * plain[0].min()
    assert found.scale[:_SIZE].max() < 2 * found.scale[:_SIZE].min()


def test_without_rotary_embedding_the_mean_goes_into_the_offset() -> None:
    keys = _keys()
    found = turned_keys(_moments(keys), _SIZE, (), None, centered=True)
    exact = (keys.reshape(-1, _HEADS, _SIZE) @ found.turn.rotation).reshape(len(keys), -1)
    np.testing.assert_allclose(found.turn.offset, exact.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.scale, 0.42 * exact.std(axis=0), rtol=1e-5)


def test_scores_that_are_capped_must_not_move() -> None:
    keys = _keys()
    found = turned_keys(_moments(keys), _SIZE, (), None, centered=False)
    exact = (keys.reshape(-1, _HEADS, _SIZE) @ found.turn.rotation).reshape(len(keys), -1)
    assert not found.turn.offset.any()
    np.testing.assert_allclose(found.scale, 0.42 * np.sqrt((exact**2).mean(axis=0)), rtol=1e-5)


def test_channels_that_are_zero_have_a_step() -> None:
    found = turned_keys(_moments(np.zeros((4, 16))), _SIZE, (), None, centered=True)
    assert (found.scale == 1.0).all()
