"""GPTQ: codes that know which errors of a row make up for each other (Frantar et al. 2022).

For one output channel with weights w and inputs x the error of the output is (w - w') H (w - w')
with H = E[x x^T]. Weights are rounded one by one; what one loses is taken up by those that are
still to come:

    U  = chol((H + 0.01 mean(diag H) I)^-1)^T        upper triangular
    e  = (w_k - q(w_k)) / U_kk,     w_j -= U_kj e    for j > k

Input channels go by falling H_kk, and scales and zero points are fixed beforehand ("static
groups"), so that codes stay in their places and need no index: kernels with one (`g_idx`) are
wrong on both runtimes. O(K^3) for U and O(K^2 N) for the sweep, in lazy blocks of 128.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.rounding import Moments, Second, Steps, WeightRounding
from irtools.passes.quantization.sites.uses import Weight
from irtools.passmanager import Decision
from irtools.statistics import Gram, GramResult, StatisticsService, Want

__all__ = [
    "GROUP_BYTES",
    "Gptq",
    "Hessians",
    "by_input",
    "moment_bytes",
    "remaining_squares",
]

_LAZY = 128
GROUP_BYTES = 256 << 20
"""Gram matrices that are collected in one go: fewer sweeps over the data for more memory."""


@dataclass(frozen=True)
class Gptq(WeightRounding):
    """so that errors make up for each other on calibration data, which takes longer."""

    def codes(self, rows: np.ndarray, steps: Steps, inputs: Second) -> np.ndarray:
        order, upper = inputs.factor
        found = np.empty(rows.shape, np.float32)
        scale, low, high = (array[:, order] for array in (steps.scale, steps.low, steps.high))
        found[:, order] = _sweep(np.array(rows[:, order], np.float32), scale, low, high, upper)
        return found


class Hessians:
    """E[x x^T] of what weights are multiplied with, collected in groups and then forgotten.

    Args:
        service: Runs the data through the model as it was before any weight changed.
        weights: In the order in which they will be asked for.
    """

    def __init__(self, service: StatisticsService, weights: Iterable[Weight]) -> None:
        self._service = service
        weights = tuple(weights)
        # What is written changes names: a product that others add to, whole, has another one.
        self._inputs = {weight.name: _names(weight) for weight in weights}
        self._waiting = [(key, size) for key, size in _inputs(weights)]
        self._found: Mapping[Want, object] = {}
        self._last: tuple[tuple[str, ...], Moments] | None = None

    def moments_of(self, weight: Weight) -> Moments:
        """Return what a weight is multiplied with; those with one input (q, k, v) share it."""
        names = self._inputs.get(weight.name) or _names(weight)
        if self._last is None or self._last[0] != names:
            self._last = (names, self._moments([Want(name, Gram()) for name in names]))
        return self._last[1]

    def _moments(self, wants: list[Want]) -> Moments:
        if any(want not in self._found for want in wants):
            self._found = self._service.collect(self._next_group(wants))
        grams = [found for want in wants if isinstance(found := self._found[want], GramResult)]
        total = sum((gram.xx for gram in grams[1:]), start=grams[0].xx)
        # The last row and column belong to a constant 1.
        rows = max(sum(gram.count for gram in grams), 1)
        square = total / rows
        return Moments(square[:-1, :-1], square[-1, :-1], rows)

    def _next_group(self, wants: list[Want]) -> list[Want]:
        """Return what is wanted now and, as far as memory allows, what will be wanted next."""
        group, size = dict.fromkeys(wants), 0
        while self._waiting:
            name, inner = self._waiting[0]
            size += _bytes(inner)
            if size > GROUP_BYTES and name not in {want.value for want in wants}:
                break
            self._waiting.pop(0)
            group[Want(name, Gram())] = None
        return list(group)


def moment_bytes(weights: Iterable[Weight]) -> int:
    """Return the size of the moments of all that weights are multiplied with."""
    return sum(_bytes(inner) for _, inner in _inputs(weights))


def remaining_squares(
    service: StatisticsService, weights: Iterable[Weight]
) -> dict[ir.Value, np.ndarray]:
    """Return what GPTQ leaves of E[x_k^2], [K], by what weights are multiplied with.

    Its loss is sum_k e_k^2 / U_kk^2 with e_k the rounding error of a column, where rounding to the
    nearest loses sum_k e_k^2 H_kk: 1 / U_kk^2 is the second moment of x_k that columns which are
    rounded later do not explain.
    """
    ordered = sorted(weights, key=_names)
    hessians = Hessians(service, ordered)
    found: dict[ir.Value, np.ndarray] = {}
    for weight in ordered:
        if all(use.activation in found for use in weight.uses):
            continue
        order, upper = hessians.moments_of(weight).around_zero.factor
        left = np.empty(len(order))
        left[order] = np.diag(upper).astype(np.float64) ** -2
        found.update((use.activation, left) for use in weight.uses)
    return found


def _bytes(inner: int) -> int:
    return 8 * (inner + 1) ** 2


def by_input(
    decisions: Sequence[Decision], weights: Mapping[str, Weight]
) -> Callable[[Decision], int]:
    """Return a sort key that puts weights with the same input next to each other.

    The order in which decisions are carried out changes nothing else.
    """

    def names(decision: Decision) -> tuple[str, ...]:
        weight = weights.get(str(decision.data.get("weight")))
        return () if weight is None else _names(weight)

    first: dict[tuple[str, ...], int] = {}
    for index, decision in enumerate(decisions):
        first.setdefault(names(decision), index)
    return lambda decision: first[names(decision)]


def _names(weight: Weight) -> tuple[str, ...]:
    return tuple(dict.fromkeys(use.activation.name or "" for use in weight.uses))


def _inputs(weights: Iterable[Weight]) -> list[tuple[str, int]]:
    """Return each input and its channels once."""
    found: dict[str, int] = {}
    for weight in weights:
        inner = int(weight.tensor.shape.numpy()[1 - weight.uses[0].axis])
        found.update((name, inner) for name in _names(weight) if name not in found)
    return list(found.items())


def _sweep(
    w: np.ndarray, scale: np.ndarray, low: np.ndarray, high: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Round columns from the left; w [R, K] is used up. Returns codes around 0, float32."""
    channels = w.shape[1]
    codes = np.empty_like(w)
    for start in range(0, channels, _LAZY):
        end = min(start + _LAZY, channels)
        errors = np.empty((len(w), end - start), np.float32)
        for k in range(start, end):
            step = np.rint(w[:, k] / scale[:, k])
            codes[:, k] = np.clip(step, low[:, k], high[:, k])
            errors[:, k - start] = (w[:, k] - codes[:, k] * scale[:, k]) / upper[k, k]
            w[:, k + 1 : end] -= np.outer(errors[:, k - start], upper[k, k + 1 : end])
        w[:, end:] -= errors @ upper[start:end, end:]
    return codes
