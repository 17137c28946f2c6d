"""Running a model on drawn inputs, and the search for others where it does not run on them.

Happens in a child process where a pipeline is checked: some sizes make a runtime crash. Most models
run on the usual inputs, so the search and what draws for it are imported where it begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from irtools.errors import DataError, UnsupportedError
from irtools.measure.outputs import Outputs, is_finite, says_nothing, within
from irtools.targets import Feeds, Runner, RunnerOptions, Target

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = ["run_trial"]


def run_trial(
    target: Target,
    source: Path | Model,
    options: RunnerOptions,
    feeds: Sequence[Feeds],
    full: Feeds | None,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float = float("inf"),
) -> dict[str, Any]:
    """Run a model on feeds; where that fails, search for others. Happens in a child process.

    Others are searched for, but not for long, where outputs are NaN or infinite, too: a graph
    without nodes and an empty sequence have no mean, and a comparison of such outputs says little.

    Args:
        target: What runs it.
        source: The model.
        options: How.
        feeds: Those to compare numbers on; empty where none could be drawn as usual.
        full: One more that must run; its outputs are not kept.
        given: What the caller settled, by the names of `SyntheticSettings`.
        known: Sizes of real samples; where there are any, only those are tried.
        seconds: What the feeds may take; once they are over, no further ones are run.

    Returns:
        `outputs` by feed that was run, those of a second run of the first as `again`, `changes` to
        the settings (empty: the feeds that were given ran) with the `fault` of the usual ones,
        `reason`: empty, or why nothing runs, and the `full_seconds` that `full` took.
    """
    with target.runner(source, options) as runner:
        try:
            outputs = list(within(seconds, (runner.run(one) for one in feeds)))
            taken = 0.0 if full is None else _seconds_of(lambda: runner.run(full))
            reason = "" if feeds else "they cannot be drawn from the signature"
        except (DataError, UnsupportedError) as error:
            outputs, reason = [], str(error)
        if not reason and any(says_nothing(one) for one in outputs):
            reason = "the outputs have no elements"
        finite = not reason and not all(map(is_finite, outputs))
        if not reason and not finite:
            return {**_answer(outputs, [runner.run(feeds[0])]), "full_seconds": taken}
        changes, found, again = _searched(source, runner, given, known, seconds, finite=finite)
        if found:
            fault = "give NaN or infinity" if finite else "do not run"
            return _answer(found, again, changes, fault)
        if finite:
            return _answer(outputs, [runner.run(feeds[0])])
        if outputs:  # They have no elements, and others would not have any.
            return _answer(outputs, outputs)
        return {**_answer([], []), "reason": _why(reason)}


def _seconds_of(run: Callable[[], object]) -> float:
    """Time a run, in seconds of this process where others take the machine's."""
    wall, own = time.perf_counter(), time.process_time()
    run()
    return min(time.perf_counter() - wall, time.process_time() - own)


def _answer(
    outputs: Sequence[Outputs],
    again: Sequence[Outputs],
    changes: Mapping[str, Any] = MappingProxyType({}),
    fault: str = "",
) -> dict[str, Any]:
    return {
        "outputs": list(outputs),
        "again": list(again),
        "changes": dict(changes),
        "reason": "",
        "fault": fault,
        "full_seconds": 0.0,
    }


def _why(reason: str) -> str:
    return (
        f"no inputs were found on which the model runs (with the usual ones: {reason}); name sizes "
        "(--size AXIS=N), or give data"
    )


def _searched(
    source: Path | Model,
    runner: Runner,
    given: Mapping[str, Any],
    known: Mapping[str, int],
    seconds: float,
    *,
    finite: bool,
) -> tuple[dict[str, Any], list[Outputs], list[Outputs]]:
    from irtools.measure.search import search
    from irtools.model import Model

    model = Model.load(source) if isinstance(source, Path) else source
    return search(model, runner, given, known, seconds, finite=finite)
