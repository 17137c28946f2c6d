"""Figures over nodes, as Model Explorer's node data.

Fields are those of `model_explorer/node_data_builder.py` (GraphNodeData, NodeDataResult,
GradientItem); a file holds them by the id of the graph (ModelNodeData).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from irtools.analysis.pairing import node_ids
from irtools.causes.facts import Facts
from irtools.causes.rows import Placed, joined
from irtools.causes.weights import weights_of
from irtools.causes.worse.noise import comparable
from irtools.model import Model

__all__ = ["bytes_of", "latencies", "node_data", "slowdowns", "sqnr"]

_GOOD, _MIDDLE, _BAD = "#1a9850", "#ffffbf", "#d73027"
_EQUAL_DB = 150.0


def node_data(
    graph: str, name: str, values: Mapping[str, float], *, high_is_good: bool = False
) -> dict[str, Any]:
    """Return one overlay of a graph.

    Args:
        graph: Id of the graph.
        name: What to call it.
        values: Id of a node to its figure.
        high_is_good: Colours turn: the least value is the bad one.
    """
    ends = (_BAD, _GOOD) if high_is_good else (_GOOD, _BAD)
    gradient = [
        {"stop": stop, "bgColor": colour}
        for stop, colour in ((0, ends[0]), (0.5, _MIDDLE), (1, ends[1]))
    ]
    results = {key: {"value": round(value, 6)} for key, value in values.items()}
    return {graph: {"name": name, "results": results, "gradient": gradient}}


def latencies(facts: Facts) -> tuple[dict[str, float], dict[str, float]] | None:
    """Return milliseconds by node of both models; what no name shows is left out."""
    both = joined(facts)
    return None if both is None else (_times(both.first), _times(both.second))


def slowdowns(facts: Facts) -> dict[str, float]:
    """Return how many milliseconds more each node of the second model takes with its partners.

    The time of a group is at its last node.
    """
    found: dict[str, float] = {}
    times = latencies(facts)
    if times is None:
        return found
    before, after = times
    for match in facts.pairing.matches:
        spent = [sum(side.get(n, 0.0) for n in names)
                 for side, names in ((before, match.left), (after, match.right))]  # fmt: skip
        if match.right and any(spent):
            found[match.right[-1]] = spent[1] - spent[0]
    return found


def sqnr(facts: Facts) -> tuple[dict[str, float], dict[str, float]]:
    """Return the SQNR in dB of what nodes make, by node of both models."""
    levels = comparable(facts)
    capped = {
        name: min(level, _EQUAL_DB) for name, level in levels.items() if not math.isnan(level)
    }
    first, second = (_by_node(one.model.ir, capped) for one in (facts.first, facts.second))
    return first, second


def bytes_of(model: Model) -> dict[str, float]:
    """Return the bytes of the weights that each node reads first."""
    found: dict[str, float] = {}
    for weight in weights_of(model):
        if weight.reader:
            found[weight.reader] = found.get(weight.reader, 0.0) + weight.bytes
    return found


def _times(placed: Placed) -> dict[str, float]:
    found: dict[str, float] = {}
    for row, node in zip(placed.rows, placed.nodes, strict=True):
        if node:
            found[node] = found.get(node, 0.0) + row.ms
    return found


def _by_node(model: ir.Model, levels: Mapping[str, float]) -> dict[str, float]:
    found: dict[str, float] = {}
    for node, name in node_ids(model).items():
        own = list(_known(node, levels))
        if own:
            found[name] = min(own)
    return found


def _known(node: ir.Node, levels: Mapping[str, float]) -> Iterable[float]:
    names = (value.name or "" for value in node.outputs)
    return [levels[name] for name in names if name in levels]
