"""Passes, pipelines and the manager that runs them."""

from __future__ import annotations

from irtools.passmanager.base import (
    FOLLOWED_GRAPH,
    FOUND_WEIGHTS,
    Exactness,
    Pass,
    PassResult,
    PlanningPass,
)
from irtools.passmanager.context import Analysis, PassContext
from irtools.passmanager.options import Option, option, options_of
from irtools.passmanager.pipeline import Pipeline
from irtools.passmanager.plan import Decision, Plan
from irtools.passmanager.syntax import pass_text

__all__ = [
    "FOLLOWED_GRAPH",
    "FOUND_WEIGHTS",
    "Analysis",
    "Decision",
    "Exactness",
    "Option",
    "Pass",
    "PassContext",
    "PassResult",
    "Pipeline",
    "Plan",
    "PlanningPass",
    "option",
    "options_of",
    "pass_text",
]
