"""Times of single nodes, from the runtime's own profile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from irtools.backends.onnxruntime.session import Provider
from irtools.backends.onnxruntime.source import ModelSource
from irtools.errors import UnsupportedError
from irtools.files import scratch_folder
from irtools.model import Model
from irtools.targets import Feeds, NodeTimes, RunnerOptions

__all__ = ["profile", "read_profile"]

_WARM_UP_RUNS = 3
_SUFFIX = "_kernel_time"


@dataclass
class _Event:
    """A node that ran: from `start` to `end`, in microseconds, `own` of them in no other node.

    Nodes may have no name; with operator and number in its graph there is hardly a second one.
    """

    key: tuple[str, str, str]
    start: float
    end: float
    own: float


def profile(
    model: Model | Path,
    feeds: Feeds,
    runs: int,
    options: RunnerOptions,
    providers: Sequence[Provider],
) -> NodeTimes:
    """Run a model with the runtime's profiler on.

    Raises:
        UnsupportedError: The runtime refuses the model, or its profile holds no nodes.
        DataError: The feeds do not fit.
    """
    from irtools.backends.onnxruntime.runner import OrtRunner

    with scratch_folder("profile") as folder:
        prefix = folder / "profile"
        with OrtRunner(ModelSource.of(model), options, providers, profile=prefix) as runner:
            for _ in range(_WARM_UP_RUNS + runs):
                runner.run(feeds)
            path = runner.end_profiling()
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    return read_profile(events, runs)


def read_profile(events: Sequence[dict[str, Any]], runs: int) -> NodeTimes:
    """Read the events of a profile; the last `runs` runs count.

    Raises:
        UnsupportedError: There are not as many, or no nodes in them.
    """
    spans = [(e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run"][-runs:]
    nodes = _own_times([e for e in events if e["cat"] == "Node" and e["name"].endswith(_SUFFIX)])
    table: dict[tuple[str, str, str], list[float]] = {}
    for number, (start, end) in enumerate(spans):
        for event in nodes:
            if start <= event.start < end:
                table.setdefault(event.key, [0.0] * len(spans))[number] += event.own
    if len(spans) < runs or not table:
        raise UnsupportedError("ONNX Runtime's profile holds no times of single nodes")
    return NodeTimes(
        names=tuple(name for name, _, _ in table),
        ops=tuple(op for _, op, _ in table),
        microseconds=np.array(list(table.values())).T,
        totals=np.array([end - start for start, end in spans], dtype=np.float64),
    )


def _own_times(events: Sequence[dict[str, Any]]) -> list[_Event]:
    """Take from each node with a body what the nodes of the body took: they count themselves."""
    found: list[_Event] = []
    open_ones: list[_Event] = []
    for raw in sorted(events, key=lambda e: (e["ts"], -e["dur"])):
        about = raw["args"]
        name = str(raw["name"]).removesuffix(_SUFFIX)
        key = (name, str(about.get("op_name", "")), str(about.get("node_index", "")))
        event = _Event(key, raw["ts"], raw["ts"] + raw["dur"], raw["dur"])
        while open_ones and open_ones[-1].end <= event.start:
            open_ones.pop()
        if open_ones and event.end <= open_ones[-1].end:
            open_ones[-1].own -= raw["dur"]
        open_ones.append(event)
        found.append(event)
    return found
