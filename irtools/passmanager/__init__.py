"""Passes, pipelines and the manager that runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irtools.lazy import lazy_names
from irtools.passmanager.base import (
    FOLLOWED_GRAPH,
    FOUND_WEIGHTS,
    Exactness,
    Pass,
    PassResult,
    PlanningPass,
)
from irtools.passmanager.context import Analysis, PassContext
from irtools.passmanager.declared import UNREAD, declared_options
from irtools.passmanager.manifest import (
    MANIFEST,
    described,
    make_manifest,
    pass_document,
    summary_of,
)
from irtools.passmanager.options import Option, option, options_of, type_text
from irtools.passmanager.pipeline import Pipeline
from irtools.passmanager.plan import Decision, Json, Plan
from irtools.passmanager.requirements import plan_prepared, prepare
from irtools.passmanager.syntax import pass_text
from irtools.passmanager.tables import Tables
from irtools.passmanager.workspace import Workspace

if TYPE_CHECKING:
    from irtools.passmanager.knapsack import (
        Choice,
        choose_evenly,
        choose_levels,
        choose_within,
    )
    from irtools.passmanager.manager import PassManager
    from irtools.passmanager.resources import Calibration
    from irtools.passmanager.results import KeptResults
    from irtools.passmanager.step import Instrument, Replace, Stage, Step

__all__ = [
    "Analysis",
    "Calibration",
    "Choice",
    "Decision",
    "Exactness",
    "FOLLOWED_GRAPH",
    "FOUND_WEIGHTS",
    "Instrument",
    "Json",
    "KeptResults",
    "MANIFEST",
    "Option",
    "Pass",
    "PassContext",
    "PassManager",
    "PassResult",
    "Pipeline",
    "Plan",
    "PlanningPass",
    "Replace",
    "Stage",
    "Step",
    "Tables",
    "UNREAD",
    "Workspace",
    "choose_evenly",
    "choose_levels",
    "choose_within",
    "declared_options",
    "described",
    "make_manifest",
    "option",
    "options_of",
    "pass_document",
    "pass_text",
    "plan_prepared",
    "prepare",
    "summary_of",
    "type_text",
]

# The command line reads the options of passes without what runs them.
__getattr__ = lazy_names(
    __name__,
    {
        "Calibration": "irtools.passmanager.resources",
        "Choice": "irtools.passmanager.knapsack",
        "Instrument": "irtools.passmanager.step",
        "KeptResults": "irtools.passmanager.results",
        "PassManager": "irtools.passmanager.manager",
        "Replace": "irtools.passmanager.step",
        "Stage": "irtools.passmanager.step",
        "Step": "irtools.passmanager.step",
        "choose_evenly": "irtools.passmanager.knapsack",
        "choose_levels": "irtools.passmanager.knapsack",
        "choose_within": "irtools.passmanager.knapsack",
    },
)
