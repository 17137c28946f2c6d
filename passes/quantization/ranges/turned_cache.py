"""Keys and values of 4 bits: turned so that rounding them moves what attention returns least.

    x = (k - m) T,  q' = q B^T        T = W R,  W = S^-1/2 U L^1/4,  S^1/2 Q S^1/2 = U L U^T

One step per channel rounds all channels alike, and the score of a query q with a rounded key is off
by the errors of channels times q'. With S the covariance of keys and Q the second moments of the
queries that meet them, W gives both the same moments L^1/2 (a balanced realization, Moore 1981):
a few channels make most of the scores, and the last ones next to nothing. So the first n channels
may be rounded twice, what is left over with a finer step in the place of the last n, which are left
out (8, 4 and 0 bits, as transform coding spends them). R, of Hadamard matrices, spreads the
channels of each kind over one another (QuaRot, Ashkboos et al. 2024). Moments follow from those
before the rotary embedding: they are averaged over the positions that the network was trained on,
however short the texts are that were calibrated on. A step is a part of the spread; values beyond
are clipped, but for the first n channels, where a wide step costs nothing.

    attention(q, K, V) = attention(q, K, (V - m) T) B + m        Q = I,  W = U L^-1/4

The same holds of values: weights of attention add up to 1. All their channels count alike (Q = I),
and their spectrum is too flat for rounding any of them twice.

No score and no mix sees m, so that it is free to say where codes lie. A token that most queries
look at, mostly the first one (an attention sink), gives all of them the same error, which averages
out nowhere: m is moved by up to half a step so that the codes of this token are exact, and as many
steps lie above the mean as below it as near as that allows.

Moments leave open how much such tokens weigh, whose keys are far off the rest: S and Q get a floor
in all directions, up to where W is as good as one, and what floor, n and step are best for a block
is tried on a text (`attention_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irtools.analysis.cache_turn import CacheTurn
from irtools.analysis.orthogonal import Rotation as Orthogonal
from irtools.passes.quantization.ranges.rotary import Turning

__all__ = ["KEY_RECIPES", "VALUE_RECIPES", "Recipe", "Turned", "turned_keys", "turned_values"]

_POSITIONS = 128
"""At which moments are averaged, unevenly spaced."""
_GOLDEN = 0.6180339887498949
_MANY = 1 << 20
"""Positions where it is not known on how many the network was trained."""
_TINY = float(np.finfo(np.float32).tiny)
_WIDE_STEP = 0.8
"""Of the standard deviation, of channels that are rounded twice."""
_FINER = 15
"""Steps of what is left over to one of the first rounding."""
_NEVER = 1e30
"""A step above all values."""


@dataclass(frozen=True)
class Recipe:
    """What is tried.

    Attributes:
        floor: Of the mean moment: what moments are at least, in any direction.
        twice: How many channels of a head are rounded twice, n.
        step: Of those that are rounded once, of their standard deviation.
    """

    floor: float
    twice: int
    step: float


KEY_RECIPES = tuple(
    Recipe(floor, twice, step)
    for floor, twice in ((1e3, 0), (0.1, 0), (0.1, 2), (0.1, 4), (0.01, 2), (0.01, 4))
    for step in (0.3, 0.36, 0.44, 0.56)
)


VALUE_RECIPES = tuple(
    Recipe(floor, 0, step) for floor in (1e3, 0.1) for step in (0.3, 0.36, 0.44, 0.55, 0.8, 1.2)
)


@dataclass(frozen=True, eq=False)
class Turned:
    """How the keys or values of a block are turned and rounded.

    Attributes:
        turn: What moves and turns them.
        scale: Width of a step, float32 [G * D].
    """

    turn: CacheTurn
    scale: np.ndarray


def turned_keys(
    keys: np.ndarray,
    queries: np.ndarray,
    pairs: tuple[tuple[int, int], ...],
    turning: Turning | None,
    sink: np.ndarray | None,
    recipes: Sequence[Recipe] = KEY_RECIPES,
) -> list[Turned]:
    """Return how to round keys in 4 bits, by each recipe that such heads have room for.

    Args:
        keys: Moments of each head before rotary embedding, [G, D + 1, D + 1], as `HeadGram` has
            them.
        queries: Those of queries, [H, D + 1, D + 1], in the order of the keys that they meet.
        pairs: Channels of a head that rotary embedding turns together.
        turning: How far; None: nothing is turned.
        sink: The key of each head, [G, D], that is to be exact; None: keys may not be moved, since
            scores are not used as they are.
        recipes: What to try.
    """
    heads, size = len(keys), keys.shape[1] - 1
    turns = [np.eye(size)] if turning is None else _turns(size, pairs, turning)
    means, squares = _moments(keys, turns)
    if sink is None:
        means[:] = 0.0
    met = _moments(queries, turns)[1].reshape(heads, -1, size, size).sum(axis=1)
    return _by_recipes(recipes, means, squares, met, sink)


def turned_values(
    values: np.ndarray, sink: np.ndarray, recipes: Sequence[Recipe] = VALUE_RECIPES
) -> list[Turned]:
    """Return how to round values in 4 bits, by each recipe.

    Args:
        values: Moments of each head, [G, D + 1, D + 1], as `HeadGram` has them.
        sink: The value of each head, [G, D], that is to be exact.
        recipes: What to try.
    """
    size = values.shape[1] - 1
    means, squares = _moments(values, [np.eye(size)])
    alike = np.broadcast_to(np.eye(size), squares.shape)
    return _by_recipes(recipes, means, squares, alike, sink)


def _by_recipes(
    recipes: Sequence[Recipe],
    means: np.ndarray,
    squares: np.ndarray,
    met: np.ndarray,
    sink: np.ndarray | None,
) -> list[Turned]:
    spreads = squares - means[:, :, None] * means[:, None, :]
    found = []
    for recipe in (recipe for recipe in recipes if 4 * recipe.twice <= means.shape[1]):
        parts = [_of_head(recipe, *both) for both in zip(spreads, met, strict=True)]
        found.append(_joined(recipe, parts, means, sink))
    return found


def _joined(
    recipe: Recipe,
    parts: Sequence[tuple[np.ndarray, ...]],
    means: np.ndarray,
    sink: np.ndarray | None,
) -> Turned:
    forth, back, scale, coarse = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    moved = np.zeros(scale.shape)
    if sink is not None:
        count, rest = recipe.twice, scale.shape[1] - recipe.twice
        step = scale.astype(np.float64)
        step[:, :count] = coarse[:, rest:]
        half = np.zeros(scale.shape)
        half[:, count:rest] = scale[:, count:rest] / 2
        place = np.einsum("gi,gij->gj", sink - means, forth)
        moved = place - np.rint((place - half) / step) * step
        moved[:, rest:] = 0.0
    offset = (means + np.einsum("gi,gij->gj", moved, back)).reshape(-1).astype(np.float32)
    scale, coarse = scale.reshape(-1), coarse.reshape(-1)
    return Turned(CacheTurn(offset, forth, back, coarse if recipe.twice else None), scale)


def _of_head(recipe: Recipe, rows: np.ndarray, met: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return T, B, the steps and the coarse steps of a head.

    Args:
        recipe: What is tried.
        rows: Covariance of its keys or values.
        met: Second moments of what they are multiplied by.
    """
    size, count = len(rows), recipe.twice
    balance = _balance(_at_least(rows, recipe.floor), _at_least(met, recipe.floor))
    once = np.arange(count, size - count)
    spread = np.eye(size)
    for part in (np.arange(count), once):
        if len(part):
            spread[np.ix_(part, part)] = Orthogonal(len(part)).matrix
    whole = balance @ spread
    whole /= np.sqrt(np.mean(whole**2))
    # The last channels give way to what is left over of the first ones.
    places = np.concatenate([np.arange(size - count), np.arange(count)])
    forth = whole[:, places].astype(np.float16).astype(np.float32)
    back = np.linalg.inv(whole)[places].astype(np.float16).astype(np.float32)
    exact = forth.astype(np.float64)
    deviation = np.sqrt(np.maximum(((exact.T @ rows) * exact.T).sum(axis=1), 0.0))
    coarse = np.full(size, _NEVER)
    scale = recipe.step * deviation
    scale[:count] = coarse[size - count :] = _WIDE_STEP * deviation[:count]
    scale[size - count :] = coarse[size - count :] / _FINER
    # Channels that are always zero.
    steps = (np.where(one > _TINY, one, 1.0) for one in (scale, coarse))
    return forth, back, *(one.astype(np.float32) for one in steps)


def _moments(found: np.ndarray, turns: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return means, [n, D], and second moments, [n, D, D], over some turns."""
    count = np.maximum(found[:, -1:, -1], 1)
    means = np.mean([found[:, -1, :-1] @ turn for turn in turns], axis=0)
    squares = np.mean([turn.T @ found[:, :-1, :-1] @ turn for turn in turns], axis=0)
    return means / count, squares / count[:, :, None]


def _balance(keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return what gives keys and queries the same moments, [D, D], the largest first."""
    widths, axes = np.linalg.eigh(keys)
    root, inverse = ((axes * widths**power) @ axes.T for power in (0.5, -0.5))
    shares, basis = (found[..., ::-1] for found in np.linalg.eigh(root @ queries @ root))
    return np.asarray((inverse @ basis) * np.maximum(shares, _TINY) ** 0.25)


def _at_least(moments: np.ndarray, floor: float) -> np.ndarray:
    size = len(moments)
    return np.asarray(moments + max(floor * np.trace(moments) / size, _TINY) * np.eye(size))


def _turns(size: int, pairs: tuple[tuple[int, int], ...], turning: Turning) -> list[np.ndarray]:
    """Return what turns the channels of a head at some positions, [D, D] each."""
    last = (turning.trained or _MANY) - 1
    first, second = np.array(pairs).T
    found = []
    for n in range(_POSITIONS):
        angles = turning.step * round(last * ((n + 0.5) * _GOLDEN % 1.0))
        cos, sin = turning.gain * np.cos(angles), turning.gain * np.sin(angles)
        turn = np.eye(size)
        turn[first, first] = turn[second, second] = cos
        turn[first, second], turn[second, first] = sin, -sin
        found.append(turn)
    return found
