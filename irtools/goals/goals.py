"""All goals of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from irtools.errors import OptionError, UsageError
from irtools.goals.goal import KINDS, Goal
from irtools.goals.interval import Answer, Observed

__all__ = ["Goals"]


@dataclass(frozen=True)
class Goals:
    """What a model must keep, all of it at once. `Goals.parse(str(goals)) == goals`.

    Raises:
        UsageError: Two bounds for one figure.
    """

    goals: tuple[Goal, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[tuple[str, str | None], Goal] = {}
        for goal in self.goals:
            other = seen.setdefault((goal.name, goal.metric), goal)
            if other is not goal:
                raise UsageError(f"two goals for one figure: {other} and {goal}; give one of them")

    @classmethod
    def parse(cls, text: str) -> Goals:
        """Read goals joined by commas: `max-drop=1%,speedup=3,max-drop=f1-macro=2%`.

        Raises:
            OptionError: Not a list of goals.
            UsageError: As the class.
        """
        return cls(tuple(_read(item) for item in text.split(",") if item.strip()))

    @classmethod
    def of_options(cls, given: Mapping[str, str | float | Iterable[str | float] | None]) -> Goals:
        """Make goals of options: name, with `_` or `-`, to a bound or several of them.

        Raises:
            OptionError: No such goal, or not a bound of it.
            UsageError: As the class.
        """
        return cls(tuple(_of_options(given)))

    def __iter__(self) -> Iterator[Goal]:
        return iter(self.goals)

    def __len__(self) -> int:
        return len(self.goals)

    def __str__(self) -> str:
        return ",".join(map(str, self.goals))

    def of(self, *names: str) -> Goals:
        """Return the goals of these names."""
        return Goals(tuple(goal for goal in self.goals if goal.name in names))

    def needing(self, *needs: str) -> Goals:
        """Return the goals that need `data`, `times` or only the `file`."""
        return Goals(tuple(goal for goal in self.goals if goal.kind.needs in needs))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that goals are about, each once."""
        return tuple(dict.fromkeys(g.metric for g in self.goals if g.metric is not None))

    def answers(self, observed: Observed) -> Mapping[Goal, Answer]:
        """Return for each goal whether it is kept."""
        return {goal: goal.holds(observed) for goal in self.goals}

    def holds(self, observed: Observed) -> Answer:
        """Whether all are kept: no if one is not, and undecided if one is."""
        found = set(self.answers(observed).values())
        return next((a for a in (Answer.NO, Answer.UNDECIDED) if a in found), Answer.YES)


def _read(item: str) -> Goal:
    name, equals, text = item.strip().partition("=")
    if not equals:
        raise OptionError(
            f"{item.strip()!r} is not a goal, expected NAME=BOUND with one of {', '.join(KINDS)}"
        )
    return Goal.parse(name, text)


def _of_options(
    given: Mapping[str, str | float | Iterable[str | float] | None],
) -> Iterator[Goal]:
    for name, value in given.items():
        values = () if value is None else value
        for one in (values,) if isinstance(values, str | float | int) else values:
            yield Goal.parse(name.replace("_", "-"), one if isinstance(one, str) else f"{one:.12g}")
