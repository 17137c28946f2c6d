"""The best trials of a search, compared once more before one of them is chosen.

Of many models that are measured once, the one that looks best was lucky as well: its time is too
short, its loss too small. So the best ones are timed against the original and each other in
alternating blocks, and where the loss decides they are judged on samples that no trial had seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from irtools.instruments import Latency
from irtools.measure.base import LatencyResult, Ratio
from irtools.passmanager import Pipeline, Step
from irtools.search.climb import REFUSALS
from irtools.search.objectives import OBJECTIVES
from irtools.search.places import Comparison, SeveralTrials
from irtools.search.study import Finished, Study
from irtools.search.trials import Trials, Tried
from irtools.words import counted

__all__ = ["Final", "finals_of", "play"]

_MOST = 3


@dataclass(frozen=True)
class Final:
    """A trial that was compared once more.

    Attributes:
        trial: As it was in the search.
        tried: Its figures of the comparison; as they were where it could not be repeated.
        how: What was done, in words.
    """

    trial: Finished
    tried: Tried
    how: str

    @property
    def rank(self) -> tuple[bool, float]:
        """Smaller is better: what keeps no goal any more comes last."""
        values = self.tried.values or self.trial.values
        return bool(self.tried.why), values[0]


def finals_of(study: Study, objectives: Sequence[str]) -> list[Finished]:
    """Return the best trials in the first objective; none where it is known without noise."""
    if not OBJECTIVES[objectives[0]].timed and objectives[0] != "loss":
        return []
    found = study.ranked()[:_MOST]
    return found if len(found) > 1 else []


def play(several: SeveralTrials, finalists: Sequence[Finished]) -> list[Final]:
    """Compare trials once more, and return them with the best one first.

    Args:
        several: What runs pipelines.
        finalists: Trials with figures.
    """
    try:
        found = _compared(several, finalists)
    except REFUSALS as error:
        why = f"could not be compared once more: {str(error.args[0]).partition(chr(10))[0]}"
        return [Final(one, Tried(values=one.values), why) for one in finalists]
    return sorted(found, key=lambda one: one.rank)


def _compared(several: SeveralTrials, finalists: Sequence[Finished]) -> list[Final]:
    default, trials = next(iter(several.trials.items()))
    targets = [one.target or default for one in finalists]
    states = [
        several.trials[target].steps(Pipeline.parse(one.pipeline))
        for one, target in zip(finalists, targets, strict=True)
    ]
    how = []
    if trials.needs_times:
        rivals = {
            f"{steps[-1].text} (trial {one.number})": (steps[-1], target)
            for one, steps, target in zip(finalists, states, targets, strict=True)
        }
        found = trials.session.compete(trials.original, rivals)
        for name, (step, target) in rivals.items():
            _put(step, found.get(name, ()), several.scales[target])
        how.append("timed again, alternating,")
    if (fresh := _fresh(trials)) is not None:
        how.append(f"judged on {counted(fresh, 'sample')} that no trial had seen,")
    text = f"{' and '.join(how)} against {counted(len(finalists) - 1, 'other trial')}"
    compared = Comparison(trials.objectives, several.scales)
    finals = []
    for one, steps, target in zip(finalists, states, targets, strict=True):
        tried = several.trials[target].final(steps)
        finals.append(Final(one, compared.of(tried, target), text))
    return finals


def _fresh(trials: Trials) -> int | None:
    samples = trials.session.samples
    return None if samples is None or samples.fresh is None else len(samples.fresh)


def _put(step: Step, found: Sequence[LatencyResult], scale: float) -> None:
    """Give a model its times; its speed is against the original on its own target."""
    if found:
        step.figures.put(Latency(tuple(_own(one, step.text, scale) for one in found)))


def _own(result: LatencyResult, name: str, scale: float) -> LatencyResult:
    if (ratio := result.speedup) is not None:
        ratio = Ratio(scale * ratio.value, scale * ratio.low, scale * ratio.high)
    return dataclasses.replace(result, name=name, speedup=ratio)
