"""Roundings: which codes a weight gets once its scales are known.

`rtn` takes the nearest code of each weight; others know what the weight is multiplied with, and let
errors make up for each other. Those of irtools are in the table below; other packages add theirs
through entry points of the group `irtools.roundings`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module

import numpy as np

from irtools.errors import UsageError
from irtools.passes.quantization.ranges.arithmetic import QParams, dequantize
from irtools.passes.quantization.ranges.blocks import (
    Blocks,
    Rounding,
    code_limits,
    quantize_rows,
)
from irtools.passes.quantization.ranges.cost import bias_shift
from irtools.passes.quantization.ranges.factor import ordered_factor
from irtools.passes.quantization.ranges.spec import BlockSpec
from irtools.plugins import registry

__all__ = [
    "ROUNDING_GROUP",
    "Moments",
    "Second",
    "Steps",
    "WeightRounding",
    "roundings",
    "rounded_codes",
    "rounded_in_blocks",
]

ROUNDING_GROUP = "irtools.roundings"
"""Entry points of roundings of other packages."""

_OWN = {"gptq": "irtools.passes.quantization.ranges.gptq:Gptq"}


@dataclass(frozen=True, eq=False)
class Second:
    """Second moments of what a weight is multiplied with.

    Attributes:
        matrix: E[x x^T], float64 [K, K]; where a bias takes up the mean error, that of x - E[x].
        rows: How many x it is of; None: so many that correlations are certain.
    """

    matrix: np.ndarray
    rows: int | None = None

    @cached_property
    def factor(self) -> tuple[np.ndarray, np.ndarray]:
        """Input channels by falling E[x_k^2], and U of `gptq` in that order."""
        return ordered_factor(self.matrix, self.rows)


@dataclass(frozen=True, eq=False)
class Moments:
    """What a weight is multiplied with, on average.

    Attributes:
        square: E[x x^T], [K, K].
        mean: E[x], [K].
        rows: As in `Second`.
    """

    square: np.ndarray
    mean: np.ndarray
    rows: int | None = None

    @cached_property
    def around_zero(self) -> Second:
        """E[x x^T]."""
        return Second(self.square, self.rows)

    @cached_property
    def around_mean(self) -> Second:
        """E[x x^T] - E[x] E[x]^T."""
        return Second(self.square - np.outer(self.mean, self.mean), self.rows)


@dataclass(frozen=True, eq=False)
class Steps:
    """What the codes of a weight stand for: code c for scale * c, c from `low` to `high`.

    Attributes:
        scale: float32 [R, K].
        low: Least code, float32 [R, K].
        high: Largest code, float32 [R, K].
    """

    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class WeightRounding(ABC):
    """Chooses codes for weights whose scales and zero points are fixed.

    The first line of the docstring is the help of the option.
    """

    @abstractmethod
    def codes(self, rows: np.ndarray, steps: Steps, inputs: Second) -> np.ndarray:
        """Return whole numbers from `steps.low` to `steps.high`, float32 [R, K].

        Args:
            rows: Weights, float32 [R, K], an output channel in each row.
            steps: Their scales and limits.
            inputs: What the rows are multiplied with.
        """


@cache
def roundings() -> Mapping[str, type[WeightRounding]]:
    """Return all roundings that know what a weight is multiplied with, by name.

    Raises:
        UsageError: A plug-in is something else, or has a name of ours.
    """
    found: dict[str, type[WeightRounding]] = {}
    for name, place in _OWN.items():
        module, _, kind = place.partition(":")
        found[name] = getattr(import_module(module), kind)
    for name, point in registry.plugins(ROUNDING_GROUP).items():
        kind = registry.load(ROUNDING_GROUP, name)
        if name in (*_OWN, "auto", "rtn"):
            raise UsageError(f"{point.value} claims the name of our rounding {name!r}")
        if not (isinstance(kind, type) and issubclass(kind, WeightRounding)):
            raise UsageError(f"the rounding {name!r} is {kind!r}, expected a WeightRounding")
        found[name] = kind
    return found


def rounded_in_blocks(name: str, inputs: Second) -> Rounding:
    """Return a rounding of weights in blocks: scales of least squared error, then its codes."""
    method = roundings()[name]()

    def rounding(rows: np.ndarray, spec: BlockSpec) -> Blocks:
        fixed = quantize_rows(rows, spec)
        zero: np.ndarray | float = 0.0
        if fixed.zero_point is not None:
            zero = np.repeat(fixed.zero_point.astype(np.float32), spec.block, axis=1)
        least, most = code_limits(spec)
        scale = np.repeat(fixed.scale.astype(np.float32), spec.block, axis=1)
        codes = _codes(method, name, rows, _steps(scale, least - zero, most - zero), inputs)
        return Blocks((codes + zero).astype(fixed.codes.dtype), fixed.scale, fixed.zero_point, spec)

    return rounding


def rounded_codes(
    name: str, array: np.ndarray, axis: int, q: QParams, moments: Moments, *, corrected: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the integers of a matrix with one scale per output channel, and what biases lose.

    Args:
        name: The rounding.
        array: [K, N] with axis 1, [N, K] with axis 0.
        axis: The output-channel axis.
        q: Its parameters, symmetric around 0.
        moments: Of what it is multiplied with.
        corrected: A bias takes up the mean error, so that only the rest is to be made small.

    Returns:
        Integers of the array's shape, and (W - W')^T E[x], [N].
    """
    inputs = moments.around_mean if corrected else moments.around_zero
    rows = np.asarray(array.T if axis == 1 else array, np.float32)
    scale = np.broadcast_to(q.scale.reshape(-1, 1).astype(np.float32), rows.shape)
    found = _codes(roundings()[name](), name, rows, _steps(scale, *q.spec.limits), inputs)
    integers = (found.T if axis == 1 else found).astype(q.spec.dtype.numpy())
    return integers, bias_shift(array - dequantize(integers, q), axis, moments.mean)


def _steps(scale: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> Steps:
    ends = (np.broadcast_to(np.asarray(end, np.float32), scale.shape) for end in (low, high))
    return Steps(scale, *ends)


def _codes(
    method: WeightRounding, name: str, rows: np.ndarray, steps: Steps, inputs: Second
) -> np.ndarray:
    found = np.asarray(method.codes(rows, steps, inputs))
    # A plug-in may be wrong, and codes that wrap around are worse than any rounding.
    is_whole = found.shape == rows.shape and bool((found == np.rint(found)).all())
    if not is_whole or (found < steps.low).any() or (found > steps.high).any():
        raise UsageError(
            f"the rounding {name!r} gave codes that are not whole numbers within the limits, of "
            f"the shape {tuple(rows.shape)}"
        )
    return found
