"""Where the time of a model goes, by the clock of the runtime that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.analysis.provenance import module_name
from irtools.files import scratch_folder
from irtools.measure.cpu import cpu_quota
from irtools.measure.jobs import profile_nodes
from irtools.measure.own_machine import refuse_foreign
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.targets import Feeds, RunnerOptions, Target, target_text

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = [
    "NodeProfile",
    "OpProfile",
    "Profile",
    "node_modules",
    "node_profiles",
    "op_profiles",
    "profile_model",
]

_LIMITS = ChildLimits(seconds=900.0)


@dataclass(frozen=True)
class OpProfile:
    """All nodes of one kind.

    Attributes:
        op: Operator or kernel of the compiled model.
        nodes: How many.
        ms: Sum of their medians.
        share: Of the sum over all nodes.
    """

    op: str
    nodes: int
    ms: float
    share: float


@dataclass(frozen=True)
class NodeProfile:
    """One node.

    Attributes:
        node: Its name in the compiled model.
        op: Operator or kernel.
        module: Module of the source that it comes from; empty where the name does not show it.
        ms: Median over the runs, without the nodes of its bodies.
        share: Of the sum over all nodes.
    """

    node: str
    op: str
    module: str
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """Measured hot spots.

    Attributes:
        target: What ran it.
        shape: Sizes that it ran at (`batch=1 sequence=128`).
        data: Where the feeds came from.
        runs: Timed runs.
        run_ms: Median of a whole run with the profiler on; without it the model is faster.
        ops: By kind, the most expensive first.
        nodes: The most expensive ones.
    """

    target: str
    shape: str
    data: str
    runs: int
    threads: int
    run_ms: float
    ops: tuple[OpProfile, ...]
    nodes: tuple[NodeProfile, ...] = field(default=())


def profile_model(
    model: Model,
    target: Target,
    feeds: Feeds,
    *,
    shape: str,
    data: str,
    runs: int = 20,
    threads: int | None = None,
    top: int = 10,
) -> Profile:
    """Run a model in a child process with the runtime's profiler on.

    Args:
        model: Runs as it is.
        target: What runs it, with its optimizations.
        feeds: One batch.
        shape: What to call its sizes.
        data: Where it comes from.
        runs: Timed runs, after some to warm up; the median of each node counts.
        threads: None: the CPU quota.
        top: Number of single nodes to list.

    Raises:
        UnsupportedError: The target refuses the model, or reports no times of single nodes.
        UsageError: The target is another machine.
    """
    refuse_foreign(target, "the profile")
    threads = threads or cpu_quota()
    with scratch_folder("profile") as folder:
        path = folder / "model.onnx"
        model.save(path)
        answer = run_isolated(
            profile_nodes,
            path,
            target_text(target),
            RunnerOptions(threads=threads),
            dict(feeds),
            runs,
            limits=_LIMITS,
            label=f"profiling on {target.name}",
        )
    nodes = node_profiles(answer, node_modules(model))
    return Profile(
        target=target.name,
        shape=shape,
        data=data,
        runs=runs,
        threads=threads,
        run_ms=float(np.median(answer["totals"])) / 1e3,
        ops=op_profiles(nodes),
        nodes=tuple(nodes[:top]),
    )


def node_profiles(answer: Mapping[str, Any], modules: Mapping[str, str]) -> list[NodeProfile]:
    """Return all nodes, the most expensive first.

    Args:
        answer: Of `profile_nodes`.
        modules: Of `node_modules`.
    """
    times = np.median(answer["microseconds"], axis=0) / 1e3
    total = float(times.sum()) or 1.0
    found = [
        NodeProfile(name, op, modules.get(_plain(name), ""), float(ms), float(ms) / total)
        for name, op, ms in zip(answer["names"], answer["ops"], times, strict=True)
    ]
    return sorted(found, key=lambda node: -node.ms)


def op_profiles(nodes: list[NodeProfile]) -> tuple[OpProfile, ...]:
    """Return the nodes by kind, the most expensive kind first."""
    groups: dict[str, list[NodeProfile]] = {}
    for node in nodes:
        groups.setdefault(node.op, []).append(node)
    found = [
        OpProfile(op, len(group), sum(n.ms for n in group), sum(n.share for n in group))
        for op, group in groups.items()
    ]
    return tuple(sorted(found, key=lambda op: -op.ms))


def _plain(name: str) -> str:
    """Return the name that a node had before a runtime rewrote it.

    ONNX Runtime marks its own memory layout, OpenVINO a convolution that takes its bias elsewhere.
    """
    return name.removesuffix("_nchwc").removesuffix("/WithoutBiases")


def node_modules(model: Model) -> dict[str, str]:
    """Return modules by the names that runtimes give to what they fused: of a node or a value."""
    from irtools.model import iter_nodes

    found: dict[str, str] = {}
    for node in iter_nodes(model.ir):
        module = module_name(node)
        names = (node.name, *(value.name for value in node.outputs))
        found |= {name: module for name in names if name and name != module}
    return found
