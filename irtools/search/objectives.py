"""What a tuner makes small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irtools.driver.settings import Settings
from irtools.errors import OptionError, UsageError
from irtools.measure.own_machine import refuse_foreign
from irtools.search.state import State
from irtools.words import size_text

__all__ = ["OBJECTIVES", "Objective", "check_objectives", "needs_times"]


@dataclass(frozen=True)
class Objective:
    """Something to make as small as possible.

    Attributes:
        figure: As `Observed` names it.
        timed: The model must be timed for it.
        inverse: More of the figure is better.
    """

    figure: str
    timed: bool
    inverse: bool = False

    def value(self, state: State) -> float:
        """Return the number to make small.

        Raises:
            UsageError: The figure cannot be measured here.
        """
        found, _ = state.seen.find(self.figure, None)
        if found is None:
            raise UsageError(
                f"the objective {self.figure} cannot be measured: a loss needs --evaluate, and "
                "times need the benchmark on this machine"
            )
        return 1 / found.value if self.inverse else found.value

    def shown(self, value: float, milliseconds: tuple[float, float] | None) -> str:
        """Return a value for people.

        Args:
            milliseconds: Of the original and of the model.
        """
        match self.figure:
            case "speedup":
                times = ""
                if milliseconds is not None:
                    times = f" ({milliseconds[1]:.3g} ms, the original {milliseconds[0]:.3g} ms)"
                return f"{1 / value:.2f}x as fast as the original{times}"
            case "loss":
                return f"loss {100 * value:.2f} %"
            case _:
                return f"{self.figure} {size_text(round(value))}"


OBJECTIVES: Mapping[str, Objective] = {
    # Relative to the original in the same minutes, which another load of the machine changes less.
    "latency": Objective("speedup", timed=True, inverse=True),
    "size": Objective("size", timed=False),
    "memory": Objective("memory", timed=True),
    "loss": Objective("loss", timed=False),
}


def needs_times(objectives: Sequence[str], settings: Settings) -> bool:
    """Whether trials are timed: an objective or a goal is about time or memory."""
    timed = any(OBJECTIVES[name].timed for name in objectives)
    return timed or bool(settings.wanted.needing("times"))


def check_objectives(
    objectives: Sequence[str], settings: Settings, *, labelled: bool, elsewhere: bool = False
) -> None:
    """Refuse objectives that cannot be measured, before anything is.

    Args:
        labelled: Evaluation data is given.
        elsewhere: Times may be taken on other machines.

    Raises:
        UsageError: Says which, and what it needs.
    """
    if not objectives or len(set(objectives)) < len(objectives):
        raise UsageError("give one objective or several different ones")
    for name in objectives:
        if name not in OBJECTIVES:
            raise OptionError(f"there is no objective {name!r}, expected {', '.join(OBJECTIVES)}")
        if OBJECTIVES[name].timed:
            if settings.bench is None:
                raise UsageError(f"the objective {name} needs the benchmark, which is switched off")
            if not elsewhere:
                remedy = "run it on such a machine, spread it with --on, or leave out isa="
                refuse_foreign(settings.find_target(), f"the objective {name}", remedy)
        if name == "loss" and not (labelled and settings.wanted.needing("data")):
            raise UsageError(
                "the objective loss needs evaluation data and a largest loss (max-drop)"
            )
