"""irtools: an optimizing compiler for trained networks.

    from irtools import Dataset, Pipeline, optimize
    result = optimize("model.onnx", Pipeline("cleanup,fuse,int8"), target="ort-cpu")
    print(result.report)
    result.model.save("small.onnx")

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irtools.builds.load import LoadedModel, load
    from irtools.data import Dataset
    from irtools.driver.artifact import write_artifact
    from irtools.driver.result import OptimizeResult
    from irtools.errors import IrtoolsError
    from irtools.goals import Goals
    from irtools.model import Model
    from irtools.passmanager import (
        Decision,
        Exactness,
        Pass,
        PassContext,
        PassResult,
        Pipeline,
        Plan,
        PlanningPass,
        option,
    )
    from irtools.search import optimize
    from irtools.targets import find_target

from irtools.lazy import lazy_names
from irtools.version import __version__

_HOMES = {
    "Dataset": "irtools.data",
    "Decision": "irtools.passmanager",
    "Exactness": "irtools.passmanager",
    "Goals": "irtools.goals",
    "IrtoolsError": "irtools.errors",
    "LoadedModel": "irtools.builds.load",
    "Model": "irtools.model",
    "OptimizeResult": "irtools.driver.result",
    "Pass": "irtools.passmanager",
    "PassContext": "irtools.passmanager",
    "PassResult": "irtools.passmanager",
    "Pipeline": "irtools.passmanager",
    "Plan": "irtools.passmanager",
    "PlanningPass": "irtools.passmanager",
    "find_target": "irtools.targets",
    "load": "irtools.builds.load",
    "optimize": "irtools.search",
    "option": "irtools.passmanager",
    "write_artifact": "irtools.driver.artifact",
}

__all__ = [
    "Dataset",
    "Decision",
    "Exactness",
    "Goals",
    "IrtoolsError",
    "LoadedModel",
    "Model",
    "OptimizeResult",
    "Pass",
    "PassContext",
    "PassResult",
    "Pipeline",
    "Plan",
    "PlanningPass",
    "__version__",
    "find_target",
    "load",
    "optimize",
    "option",
    "write_artifact",
]

__getattr__ = lazy_names(__name__, _HOMES)
