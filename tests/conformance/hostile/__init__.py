"""Files that users and attackers hand to a model compiler, legal ones among them.

`CASES` holds them all. Each builds its files below a folder of its own and returns the path to be
opened. Legal cases must be accepted and survive a save; the others must be refused in one line that
contains the needle, in under two seconds, without reading `CANARY` from outside the model's folder.
The categories are those of the project's reliability survey: what a file is, versions, graphs,
tensors, external data, names.
"""

from __future__ import annotations

from .base import CANARY, Case, graph, model, weight
from .external import external_cases, make_external
from .files import file_cases
from .graphs import graph_cases
from .names import name_cases
from .tensors import tensor_cases
from .versions import version_cases

__all__ = ["CANARY", "CASES", "Case", "graph", "make_external", "model", "weight"]

CASES: tuple[Case, ...] = (
    *file_cases(),
    *version_cases(),
    *graph_cases(),
    *tensor_cases(),
    *external_cases(),
    *name_cases(),
)
