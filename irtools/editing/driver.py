"""Running rules over a model: look first, then rewrite, and say what stayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from irtools.editing.editor import Editor
from irtools.editing.rule import Rule
from irtools.editing.veto import Veto
from irtools.model.walk import nested_graphs

__all__ = ["Rewritten", "Survey", "rewrite", "survey"]


@dataclass
class Survey:
    """What rules would do.

    Attributes:
        found: Anchors of matches, in graph order.
        refused: Anchors of near misses, and why.
        tried: Matches that were tried.
    """

    found: list[ir.Node] = field(default_factory=list)
    refused: list[tuple[ir.Node, Veto]] = field(default_factory=list)
    tried: int = 0


@dataclass
class Rewritten:
    """What rules did.

    Attributes:
        counts: Rule name to rewrites.
        refused: Anchors of near misses, and why.
        graphs: Graphs that changed, in order.
        tried: Matches that were tried.
    """

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[tuple[ir.Node, Veto]] = field(default_factory=list)
    graphs: dict[object, None] = field(default_factory=dict)
    tried: int = 0

    @property
    def total(self) -> int:
        """Rewrites of all rules."""
        return self.counts.total()


def survey(graph: ir.Graph, rules: Sequence[Rule[Any]]) -> Survey:
    """Look what rules would do in a graph and the graphs nested in it; changes nothing."""
    result, table = Survey(), _by_anchor(rules)
    for node in _anchors(graph, table):
        for rule in table[_operator(node)]:
            result.tried += 1
            match = rule.match(node)
            if not isinstance(match, Veto):
                result.found.append(node)
                break
            if match.named:
                result.refused.append((node, match))
    return result


def rewrite(
    editor: Editor, rules: Sequence[Rule[Any]], anchors: Iterable[ir.Node] | None = None
) -> Rewritten:
    """Apply to each anchor the first rule that matches it, once.

    One walk in graph order: what a rewrite makes in front of its anchor is not visited. Anchors
    that an earlier rewrite removed are skipped, and every match is made anew right before it is
    used, because an earlier rewrite may have invalidated it.

    Args:
        editor: Of the model.
        rules: In order of preference.
        anchors: Nodes to start from; all of the main graph and the graphs nested in it by default.
    """
    result, table = Rewritten(), _by_anchor(rules)
    for node in _anchors(editor.graph, table) if anchors is None else anchors:
        graph = node.graph
        if graph is None:
            continue
        for rule in table.get(_operator(node), ()):
            result.tried += 1
            match = rule.match(node)
            if isinstance(match, Veto):
                if match.named:
                    result.refused.append((node, match))
                continue
            own = editor.by(rule.name) if rule.name else editor
            rule.build(own, node, match)
            result.counts[own.rule] += 1
            result.graphs[graph] = None
            break
    return result


def _by_anchor(rules: Sequence[Rule[Any]]) -> Mapping[str, list[Rule[Any]]]:
    table: dict[str, list[Rule[Any]]] = {}
    for rule in rules:
        for operator in rule.anchors:
            table.setdefault(operator, []).append(rule)
    return table


def _operator(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type


def _anchors(graph: ir.Graph, table: Mapping[str, object]) -> Iterator[ir.Node]:
    for inner in nested_graphs(graph):
        yield from (node for node in inner if _operator(node) in table)
