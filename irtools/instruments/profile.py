"""The figure of where the time goes, of the original and of the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irtools.instruments.paired import Paired
from irtools.measure.cpu import cpu_quota
from irtools.measure.figures import Figure, Occasion
from irtools.measure.jobs import profile_nodes
from irtools.measure.profile import (
    NodeProfile,
    OpProfile,
    node_modules,
    node_profiles,
    op_profiles,
)
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.passmanager import Step
from irtools.targets import Feeds, RunnerOptions

__all__ = ["ModuleTime", "ProfileTimes", "TimeProfile"]

_RUNS = 10
_NODES = 40
_LIMITS = ChildLimits(seconds=900.0)


@dataclass(frozen=True)
class ModuleTime:
    """The time of a module without the modules in it.

    Attributes:
        module: Its dotted name; empty: of nodes whose module is not known.
        ms: Sum of the medians of its nodes.
        ops: Operators or kernels that take it, the most expensive first.
    """

    module: str
    ms: float
    ops: tuple[str, ...]


@dataclass(frozen=True)
class TimeProfile(Figure):
    """Where the time goes, by the clock of the runtime; `--figures profile` measures it.

    Attributes:
        run_ms: Median of a whole run with the profiler on; without it the model is faster.
        ops: By operator or kernel, the most expensive first.
        modules: By module of the source, in the same order.
        nodes: The 40 most expensive nodes.
    """

    key: ClassVar[str] = "profile"
    rank: ClassVar[int] = 70
    is_flat: ClassVar[bool] = False

    run_ms: float
    ops: tuple[OpProfile, ...]
    modules: tuple[ModuleTime, ...]
    nodes: tuple[NodeProfile, ...]

    @classmethod
    def instrument(cls, occasion: Occasion) -> ProfileTimes:
        return ProfileTimes(occasion)


class ProfileTimes(Paired):
    """Runs the original and the result with the runtime's profiler on."""

    name: ClassVar[str] = "profile"
    what: ClassVar[str] = "the profile"

    def __init__(self, occasion: Occasion) -> None:
        super().__init__(occasion)
        self._modules: Mapping[str, str] = {}

    def end(self, step: Step) -> None:
        # The form that is deployed has lost the exporter's notes; its nodes kept their names.
        self._modules = {**node_modules(step.original), **node_modules(step.model)}
        super().end(step)

    def measure(self, model: Path, target: str, feeds: Feeds, label: str) -> Any:
        options = RunnerOptions(threads=self._occasion.bench.threads or cpu_quota())
        return run_isolated(
            profile_nodes, model, target, options, dict(feeds), _RUNS, limits=_LIMITS, label=label
        )

    def figure(self, found: Sequence[Any]) -> TimeProfile:
        # A runtime may choose other kernels in another process: rounds are not mixed.
        rounds = sorted(found, key=lambda one: float(np.median(one["totals"])))
        middle = rounds[len(rounds) // 2]
        nodes = node_profiles(middle, self._modules)
        return TimeProfile(
            run_ms=float(np.median(middle["totals"])) / 1e3,
            ops=op_profiles(nodes),
            modules=_by_module(nodes),
            nodes=tuple(nodes[:_NODES]),
        )


def _by_module(nodes: Sequence[NodeProfile]) -> tuple[ModuleTime, ...]:
    groups: dict[str, list[NodeProfile]] = {}
    for node in nodes:
        groups.setdefault(node.module, []).append(node)
    found = (
        ModuleTime(module, sum(one.ms for one in group), _ops(group))
        for module, group in groups.items()
    )
    return tuple(sorted(found, key=lambda one: -one.ms))


def _ops(nodes: Sequence[NodeProfile]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.op for node in nodes))[:4]
