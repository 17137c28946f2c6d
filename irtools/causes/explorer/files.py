"""What `irc diff` writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irtools.analysis.pairing import Pairing
from irtools.causes.commands import quoted
from irtools.causes.explorer.graphs import graph_collection, main_graph_id
from irtools.causes.explorer.overlays import bytes_of, latencies, node_data, slowdowns, sqnr
from irtools.causes.facts import Facts

__all__ = ["ExplorerFiles", "explorer_files", "module_table"]

_FIRST, _SECOND = "A", "B"


@dataclass(frozen=True)
class ExplorerFiles:
    """JSON documents by file name, and how to open them.

    Attributes:
        documents: File name to document.
        nodes: Nodes of both models, and of how many a partner is known.
    """

    documents: Mapping[str, Mapping[str, Any]]
    nodes: Mapping[str, int]

    def command(self, folder: Path) -> str:
        """Return the line that opens the files in Model Explorer."""
        graphs = [str(folder / name) for name in ("a.json", "b.json")]
        overlays = [name for name in self.documents if name.split("-")[0] in _OVERLAYS]
        data = ",".join(str(folder / name) for name in sorted(overlays))
        return quoted("model-explorer", *graphs, "--node_data_paths", data)


_OVERLAYS = ("bytes", "latency", "slower", "sqnr")


def explorer_files(facts: Facts) -> ExplorerFiles:
    """Return the graphs of two models, the pairs of their nodes, and figures over both.

    Time and SQNR are left out where they were not measured.
    """
    pairing = facts.pairing
    first, second = facts.first.model, facts.second.model
    documents: dict[str, Mapping[str, Any]] = {
        "a.json": graph_collection(first.ir, _FIRST, pairing.modules[0]),
        "b.json": graph_collection(second.ir, _SECOND, pairing.modules[1]),
        "mapping.json": sync_navigation(pairing),
        "modules.json": module_table(facts),
    }
    documents |= dict(_overlays(facts))
    paired = {
        "first": sum(len(match.left) for match in pairing.matches if match.right),
        "second": sum(len(match.right) for match in pairing.matches if match.left),
        "gone": len(pairing.gone),
        "new": len(pairing.new),
    }
    return ExplorerFiles(documents, paired)


def sync_navigation(pairing: Pairing) -> dict[str, Any]:
    """Return the mapping that a split view of two graphs reads (Sync navigation, upload mapping).

    Nodes without a partner are outlined.
    """
    return {
        "type": "sync_navigation",
        "mappingEntries": [
            {"leftNodeIds": list(match.left), "rightNodeIds": list(match.right)}
            for match in pairing.matches
            if match.left and match.right
        ],
        "showDiffHighlights": True,
        "disableMappingFallback": True,
    }


def module_table(facts: Facts) -> dict[str, Any]:
    """Return modules with their nodes, milliseconds, least SQNR and bytes before and after."""
    times = latencies(facts) or ({}, {})
    levels, sizes = sqnr(facts), (bytes_of(facts.first.model), bytes_of(facts.second.model))
    rows: dict[str, dict[str, Any]] = {}
    for side, label in enumerate(("before", "after")):
        for name, module in facts.pairing.modules[side].items():
            row = rows.setdefault(module, {"module": module}).setdefault(
                label, {"nodes": 0, "ms": 0.0, "bytes": 0, "sqnr_db": None}
            )
            row["nodes"] += 1
            row["ms"] += times[side].get(name, 0.0)
            row["bytes"] += int(sizes[side].get(name, 0))
            level = levels[side].get(name)
            if level is not None:
                row["sqnr_db"] = level if row["sqnr_db"] is None else min(level, row["sqnr_db"])
    return {
        "format": "irtools-modules",
        "version": 1,
        "first": facts.first.name,
        "second": facts.second.name,
        "timed": facts.profiles is not None,
        "modules": list(rows.values()),
    }


def _overlays(facts: Facts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    ids = main_graph_id(_FIRST), main_graph_id(_SECOND)
    times = latencies(facts)
    if times is not None:
        for graph, values, name in zip(ids, times, ("latency-a", "latency-b"), strict=True):
            yield f"{name}.json", node_data(graph, "milliseconds", values)
        slower = slowdowns(facts)
        yield "slower-b.json", node_data(ids[1], "milliseconds more than in A", slower)
    for graph, values, name in zip(ids, sqnr(facts), ("sqnr-a", "sqnr-b"), strict=True):
        if values:
            yield f"{name}.json", node_data(graph, "SQNR in dB", values, high_is_good=True)
    for graph, model, name in zip(
        ids, (facts.first.model, facts.second.model), ("bytes-a", "bytes-b"), strict=True
    ):
        yield f"{name}.json", node_data(graph, "bytes of weights", bytes_of(model))
