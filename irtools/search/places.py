"""Several targets in one search: what is drawn for each, and figures that compare between them.

Times of one target are taken against the original on that target. Between targets that says
nothing: the original may be slow on one of them. So the originals of all targets are timed against
each other once, and objectives of time count in time of the original on the first target.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from irtools.driver.observed import slowest_phase
from irtools.errors import UsageError
from irtools.goals import Interval
from irtools.instruments import Latency
from irtools.search.objectives import OBJECTIVES
from irtools.search.space import Choose, Space
from irtools.search.trials import Question, Trials, Tried

__all__ = ["Comparison", "SeveralTrials", "Spaces"]


class Spaces:
    """What is drawn: a target, and a pipeline of its space.

    Args:
        spaces: By the texts of the targets. Choices of one target alone have their plain names.
    """

    def __init__(self, spaces: Mapping[str, Space]) -> None:
        self._spaces = spaces

    @property
    def first(self) -> tuple[dict[str, str], ...]:
        """The choices of what is tried first, the usual pipeline on each target to begin with."""
        if len(self._spaces) == 1:
            return next(iter(self._spaces.values())).first
        found = [
            (place, {"target": target, **{f"{target} {name}": v for name, v in choices.items()}})
            for target, space in self._spaces.items()
            for place, choices in enumerate(space.first)
        ]
        return tuple(choices for _, choices in sorted(found, key=lambda one: one[0]))

    def draw(self, choose: Choose) -> tuple[str, str]:
        """Return a target and pipeline text."""
        if len(self._spaces) == 1:
            [(target, space)] = self._spaces.items()
            return target, space.draw(choose)
        target = choose("target", tuple(self._spaces))
        # A study knows one list of choices by a name, and targets have other forms of weights.
        text = self._spaces[target].draw(lambda name, texts: choose(f"{target} {name}", texts))
        return target, text


class SeveralTrials:
    """Trials on several targets, each in a session of its own.

    Args:
        trials: By the texts of the targets, the first one first. A worker makes those that it is
            asked for, when it is.
    """

    def __init__(self, trials: Mapping[str, Trials]) -> None:
        self.trials = trials

    @cached_property
    def scales(self) -> Mapping[str, float]:
        """Time of the original on each target over that on the first one.

        Raises:
            UsageError: They cannot be timed against each other.
        """
        several = len(self.trials) > 1 and next(iter(self.trials.values())).needs_times
        return _scales(self.trials) if several else dict.fromkeys(self.trials, 1.0)

    def answer(self, question: Question) -> Tried | Mapping[str, float]:
        """Answer a question about a pipeline on its target, or about the originals."""
        if question.what == "scales":
            return self.scales
        return self.trials[question.target].answer(question)

    def close(self) -> None:
        """Leave the sessions to their owner."""


@dataclass(frozen=True)
class Comparison:
    """Makes figures of one target comparable with those of the others.

    Attributes:
        objectives: Names of `OBJECTIVES`.
        scales: Time of the original on each target over that on the first one.
    """

    objectives: tuple[str, ...]
    scales: Mapping[str, float]

    def of(self, tried: Tried, target: str) -> Tried:
        """Return figures of a target as they compare with those of the others."""
        if len(self.scales) == 1:
            return tried
        scale, figures = self.scales[target], dict(tried.figures)
        if (speed := figures.get("speedup")) is not None:
            figures["speedup"] = Interval(
                speed.value / scale, speed.low / scale, speed.high / scale
            )
        times = tried.milliseconds
        return dataclasses.replace(
            tried,
            fingerprint=f"{target} {tried.fingerprint}" if tried.fingerprint else "",
            values=tuple(
                value * scale if OBJECTIVES[name].inverse else value
                for name, value in zip(self.objectives, tried.values, strict=False)
            ),
            milliseconds=None if times is None else (times[0] / scale, times[1]),
            figures=figures,
        )


def _scales(trials: Mapping[str, Trials]) -> Mapping[str, float]:
    """Return the time of the original on each target over that on the first, of one comparison."""
    first, *others = trials
    # The original of every target is the file as it was given.
    rivals = {target: (trials[target].original, target) for target in others}
    found = trials[first].session.compete(trials[first].original, rivals)
    scales = {first: 1.0}
    for target in others:
        ratio = slowest_phase(found[target]).speedup if found.get(target) else None
        if ratio is None:
            raise UsageError(
                f"the original cannot be timed on {target} and {first} against each other, so that "
                "times of the two do not compare: tune for one target after the other"
            )
        scales[target] = 1 / ratio.value
        own = (dataclasses.replace(one, name="original", speedup=None) for one in found[target])
        trials[target].original.figures.put(Latency(tuple(own)))
    return scales
