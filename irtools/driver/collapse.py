"""Results that are of no use are not written."""

from __future__ import annotations

from irtools.driver.result import OptimizeResult
from irtools.errors import BudgetError, CheckError
from irtools.words import counted

__all__ = ["reject_collapsed"]

_COLLAPSE_DROP = 0.1
_COLLAPSE_FACTOR = 3.0
"""Perplexity of an unusable result, over the original's."""


def reject_collapsed(result: OptimizeResult) -> None:
    """Refuse to write an unusable model where no budget was set to reject it.

    Raises:
        CheckError: Outputs became NaN or infinite.
        BudgetError: Most of a metric is lost.
    """
    first, last = result.rows[0], result.rows[-1]
    if last.fidelity is not None and last.fidelity.nonfinite:
        raise CheckError(
            f"{counted(last.fidelity.nonfinite, 'output value')} of the result NaN or infinite "
            "where the original's is not: nothing was written (--no-check writes it)"
        )
    guarded = any(goal.startswith("max-drop") for goal in result.report.settings.goals)
    if last.metric is None or first.metric is None or guarded:
        return
    before, after = first.metric.value, last.metric.value
    falls = last.metric.larger_is_better and before - after > _COLLAPSE_DROP
    if falls or (last.metric.name == "perplexity" and after > _COLLAPSE_FACTOR * before):
        raise BudgetError(
            f"{last.metric.name} {'falls' if falls else 'rises'} from {before:.4f} to {after:.4f}: "
            "nothing was written; set a budget (--max-drop 1%) to have passes rolled back, or "
            "--no-check to write it"
        )
