"""Goals: what a caller wants of a model, as data: a figure, a bound, and whether it is kept."""

from irtools.goals.amounts import read_size
from irtools.goals.goal import KINDS, Goal, Kind
from irtools.goals.goals import Goals
from irtools.goals.interval import Answer, Interval, Observed

__all__ = ["Answer", "Goal", "Goals", "Interval", "KINDS", "Kind", "Observed", "read_size"]
