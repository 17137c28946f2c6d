"""Compares the numbers before and after every pass, in a child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from irtools.data import Dataset
from irtools.errors import UnsupportedError, VerificationError
from irtools.measure.drawable import DrawnInputs, check_feeds_of
from irtools.measure.sandbox import Limits, run_isolated
from irtools.model import Model
from irtools.passmanager.base import Exactness
from irtools.passmanager.step import Instrument, Step
from irtools.report.escape import printable
from irtools.target import RunnerOptions, Target
from irtools.words import counted

__all__ = ["RELATIVE_L2", "Numerics", "check_outputs"]

RELATIVE_L2 = 1e-5
"""Largest relative L2 error of a reassociating pass in float32."""

_RELATIVE_L2_OF = {"float16": 1e-2, "bfloat16": 5e-2}
_ROUNDING_LIMIT = 1e-4
"""Most of it that is put down to rounding, however deep the model."""
_SEEDS = (0, 1, 2)
_SAMPLES = 2
_LIMITS = Limits(seconds=300.0)

Outputs = Mapping[str, np.ndarray]


class Numerics(Instrument):
    """Runs each model on three seeded feeds and compares with the model before the pass.

    Where nothing that runs can be drawn, real samples are taken; where there are none, the
    numbers are not compared, which the report says. A decoder with
    a cache reads a prompt, one token with a cache, and several.

    Exact passes must give the same bits, reassociating ones at most 1e-5 of relative L2 error
    (more where the model computes in half precision, or where the runtime's own fusions change
    the model before the pass by half as much), and no pass may put a NaN or infinity where
    there was none. The run is also the first time that a runtime meets the model, so it happens
    in a child process, with the runtime's own optimizations off.

    Raises:
        VerificationError: The numbers differ by more than the pass's exactness allows, or the
            runtime does not load the model any more.
    """

    name: ClassVar[str] = "numerics"

    def __init__(
        self,
        target: Target,
        threads: int | None = None,
        data: Dataset | None = None,
        drawn: DrawnInputs | None = None,
    ) -> None:
        self._target = target
        self._drawn = drawn
        self._data = data
        self._options = RunnerOptions(threads=threads, exact=True)
        self._feeds: list[dict[str, np.ndarray]] = []
        self._known: WeakKeyDictionary[Model, list[Outputs]] = WeakKeyDictionary()
        self._random = False

    def begin(self, step: Step) -> None:
        drawn = self._drawn or DrawnInputs(
            step.original,
            self._target,
            lambda: step.workspace.path(step.original),
            threads=self._options.threads,
            data=self._data,
        )
        self._drawn = drawn
        trial = drawn.trial()
        if trial is not None:
            self._feeds, self._known[step.original] = trial.feeds, trial.outputs
        elif self._data is not None:
            self._feeds = list(islice(self._data.batches(_SAMPLES), len(_SEEDS)))
        else:
            return  # The report says why; structure is verified all the same.
        first = self._outputs(step, step.original)
        again = self._run(step, step.original)
        self._random = not all(
            _same_bits(a[name], b[name]) for a, b in zip(first, again, strict=True) for name in a
        )
        if self._random:
            step.figures.notes.append(
                "the model answers differently each time it is asked (random operators), so only "
                "shapes are compared pass by pass"
            )

    def after(self, step: Step) -> None:
        if not step.modified or not self._feeds:
            return
        if step.model.companions != step.before.companions:
            # Fewer tokens: ids of the new model are ids of the old one, not the other way round.
            assert self._drawn is not None
            self._feeds = [check_feeds_of(step.model, n, self._drawn.adapt) for n in _SEEDS]
            self._known.clear()
        before = self._outputs(step, step.before)
        try:
            after = self._outputs(step, step.model)
        except UnsupportedError as error:
            raise VerificationError(f"the model does not run after the pass: {error}") from error
        exactness = None if self._random else step.pass_.exactness
        try:
            _check_all(before, after, exactness)
        except VerificationError:
            if exactness is not Exactness.REASSOCIATED:
                raise
            # Deep models amplify rounding; how much, the runtime's own fusions tell.
            loose = self._run(step, step.before, replace(self._options, exact=False))
            _check_all(before, after, exactness, min(2 * _worst(before, loose), _ROUNDING_LIMIT))
        step.figures.checks.append(self.name)

    def _outputs(self, step: Step, model: Model) -> list[Outputs]:
        found = self._known.get(model)
        if found is None:
            found = self._known[model] = self._run(step, model)
        return found

    def _run(self, step: Step, model: Model, options: RunnerOptions | None = None) -> list[Outputs]:
        path = step.workspace.path(model)
        answer: list[Outputs] = run_isolated(
            _run_model,
            self._target,
            path,
            options or self._options,
            self._feeds,
            limits=_LIMITS,
            label=f"{self._target.name} on the model",
        )
        return answer


def _check_all(
    before: Sequence[Outputs],
    after: Sequence[Outputs],
    exactness: Exactness | None,
    rounding: float = 0.0,
) -> None:
    for expected, found in zip(before, after, strict=True):
        check_outputs(expected, found, exactness, rounding)


def _worst(before: Sequence[Outputs], after: Sequence[Outputs]) -> float:
    """Return the largest relative L2 error of an output."""
    return max(
        _relative(after[n][name].astype(np.float64) - array, array.astype(np.float64))
        for n, outputs in enumerate(before)
        for name, array in outputs.items()
        if array.dtype.kind == "f"
    )


def check_outputs(
    expected: Outputs, found: Outputs, exactness: Exactness | None, rounding: float = 0.0
) -> None:
    """Compare the outputs before and after a pass.

    Args:
        expected: Output name to array before the pass.
        found: The same after it.
        exactness: What the pass promises; None compares shapes and types only.
        rounding: Relative L2 error that other rounding alone makes in this model; a reassociating
            pass may make as much.

    Raises:
        VerificationError: They differ by more than the promise; names the output.
    """
    for name, before in expected.items():
        shown = printable(name)
        after = found.get(name)
        if after is None:
            raise VerificationError(f"output '{shown}' is missing after the pass")
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            raise VerificationError(
                f"output '{shown}' was {before.dtype}{list(before.shape)} and is "
                f"{after.dtype}{list(after.shape)} after the pass"
            )
        if exactness is not None and before.dtype.kind not in "OSU":
            _check_numbers(shown, before, after, exactness, rounding)


def _check_numbers(
    name: str, before: np.ndarray, after: np.ndarray, exactness: Exactness, rounding: float
) -> None:
    if _same_bits(before, after):
        return
    y, other = before.astype(np.float64), after.astype(np.float64)
    finite, finite_after = np.isfinite(y), np.isfinite(other)
    if not np.array_equal(finite, finite_after):
        number = int(np.count_nonzero(finite != finite_after))
        raise VerificationError(
            f"output '{name}' has NaN or infinity at {counted(number, 'place')} where the model "
            "before the pass has none, or the other way round"
        )
    difference = np.where(finite, y - other, 0.0)
    error = _relative(difference, np.where(finite, y, 0.0))
    match exactness:
        case Exactness.EXACT:
            limit, promise = 0.0, "the same bits"
        case Exactness.REASSOCIATED:
            limit = max(_RELATIVE_L2_OF.get(before.dtype.name, RELATIVE_L2), rounding)
            promise = f"a relative L2 error of at most {limit:g}"
        case Exactness.LOSSY:
            return
    if error > limit or exactness is Exactness.EXACT:
        raise VerificationError(
            f"output '{name}' changed: relative L2 error {error:.3g}, largest difference "
            f"{float(np.abs(difference).max(initial=0.0)):.3g}; the pass promises {promise}"
        )


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    noise, signal = float(np.linalg.norm(difference)), float(np.linalg.norm(reference))
    if noise == 0:
        return 0.0
    return noise / signal if signal else float("inf")


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind in "OSU":
        return bool((a == b).all())
    if a.dtype.kind in "fc" or a.dtype.name == "bfloat16":
        # NaN payloads and the sign of zero are no one's promise.
        return bool(((a == b) | ((a != a) & (b != b))).all())
    return bool(np.array_equal(a, b))


def _run_model(
    target: Target, path: Path, options: RunnerOptions, feeds: Sequence[Mapping[str, np.ndarray]]
) -> list[Outputs]:
    with target.runner(path, options) as runner:
        return [
            {name: _sendable(array) for name, array in runner.run(one).items()} for one in feeds
        ]


def _sendable(array: np.ndarray) -> np.ndarray:
    """Types that numpy's own file format does not know travel in one that holds their values."""
    if array.dtype.kind == "O":
        return array.astype(str)
    return array if array.dtype.isbuiltin else array.astype(np.float32)
