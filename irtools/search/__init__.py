"""Searching for a pipeline that keeps a goal: the ladder, its rungs, and what was tried."""

from irtools.goals import Goals
from irtools.search.climb import Climbed, climb
from irtools.search.errors import SearchError
from irtools.search.job import optimize
from irtools.search.ladder import Rung, Scene, rungs
from irtools.search.space import Space
from irtools.search.state import State
from irtools.search.study import Study
from irtools.search.tuning import tune_model

__all__ = [
    "Climbed",
    "Goals",
    "Rung",
    "Scene",
    "SearchError",
    "Space",
    "Study",
    "State",
    "climb",
    "optimize",
    "rungs",
    "tune_model",
]
