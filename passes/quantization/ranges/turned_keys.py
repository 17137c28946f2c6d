"""Keys of 4 bits: turned so that no channel is wide, and steps by their spread at all positions.

    k' = k R - m        R a Hadamard matrix over the channels of a head, m the mean of k R

A few channels of keys are far wider than the rest, and rotary embedding turns their means along the
text, so that one step per channel that holds everywhere is wide. R spreads what they hold over all
channels (QuaRot, Ashkboos et al. 2024). Mean and spread of k R follow from the second moments of
keys before the embedding: they are averaged over the positions that the network was trained on,
however short the texts are that were calibrated on. A step is a fixed part of the spread, which for
16 steps leaves the least error; the few values beyond are clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irtools.analysis.cache_codes import CacheTurn
from irtools.analysis.orthogonal import Rotation as Orthogonal
from irtools.passes.quantization.ranges.rotary import Turning
from irtools.statistics import GramResult

__all__ = ["TurnedKeys", "turned_keys"]

_POSITIONS = 128
"""At which moments are averaged, unevenly spaced."""
_GOLDEN = 0.6180339887498949
_MANY = 1 << 20
"""Positions where it is not known on how many the network was trained."""
_STEP = 0.42
"""Of the standard deviation."""


@dataclass(frozen=True, eq=False)
class TurnedKeys:
    """How the keys of a block are turned and rounded.

    Attributes:
        turn: Rotation and mean.
        scale: Width of a step, float32 [G * D].
    """

    turn: CacheTurn
    scale: np.ndarray


def turned_keys(
    moments: GramResult,
    size: int,
    pairs: tuple[tuple[int, int], ...],
    turning: Turning | None,
    *,
    centered: bool,
) -> TurnedKeys:
    """Return how to round keys in 4 bits.

    Args:
        moments: Of the keys before rotary embedding, over C = G * D channels.
        size: D, of a head.
        pairs: Channels of all heads that rotary embedding turns together.
        turning: How far; None: keys are not turned.
        centered: Whether the mean may be taken away.
    """
    rotation = Orthogonal(size).matrix
    maps = [rotation]
    if turning is not None:
        inside = [(x, y) for x, y in pairs if max(x, y) < size]
        maps = [turn @ rotation for turn in _turns(size, inside, turning)]
    count, channels = max(moments.count, 1), len(moments.xx) - 1
    offsets, scales = [], []
    for start in range(0, channels, size):
        head = slice(start, start + size)
        mean = np.mean([moments.xx[-1, head] @ one for one in maps], axis=0) / count
        squares = [((moments.xx[head, head] @ one) * one).sum(axis=0) for one in maps]
        mean = mean if centered else np.zeros(size)
        spread = np.sqrt(np.maximum(np.mean(squares, axis=0) / count - mean**2, 0.0))
        offsets.append(mean)
        scales.append(_STEP * spread)
    scale = np.concatenate(scales)
    # Channels that are always zero.
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0).astype(np.float32)
    offset = np.concatenate(offsets).astype(np.float32)
    return TurnedKeys(CacheTurn(rotation.astype(np.float32), offset), scale)


def _turns(size: int, pairs: list[tuple[int, int]], turning: Turning) -> list[np.ndarray]:
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
