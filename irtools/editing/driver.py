"""Running rules over a model: look first, then rewrite, and say what stayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import onnx_ir as ir

from irtools.editing.editor import Editor
from irtools.editing.rule import Rule
from irtools.editing.veto import Veto
from irtools.model import nested_graphs

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
    for node, own in _anchors(_nodes(graph), table):
        for rule in own:
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
    nodes = _nodes(editor.graph) if anchors is None else anchors
    for node, own in _anchors(nodes, table):
        if (graph := node.graph) is None:
            continue
        for rule in own:
            result.tried += 1
            match = rule.match(node)
            if isinstance(match, Veto):
                if match.named:
                    result.refused.append((node, match))
                continue
            named = editor.by(rule.name) if rule.name else editor
            rule.build(named, node, match)
            result.counts[named.rule] += 1
            result.graphs[graph] = None
            break
    return result


_Table: TypeAlias = "Mapping[str, Mapping[str, list[Rule[Any]]]]"
"""Operator and its domain to the rules that start from it."""


def _by_anchor(rules: Sequence[Rule[Any]]) -> _Table:
    table: dict[str, dict[str, list[Rule[Any]]]] = {}
    for rule in rules:
        for anchor in rule.anchors:
            domain, _, op_type = anchor.rpartition("::")
            table.setdefault(op_type, {}).setdefault(domain, []).append(rule)
    return table


def _anchors(nodes: Iterable[ir.Node], table: _Table) -> Iterator[tuple[ir.Node, list[Rule[Any]]]]:
    """Yield the nodes that some rule starts from; most nodes of a model are none."""
    for node in nodes:
        own = table.get(node.op_type)
        if own is not None and (rules := own.get(node.domain)):
            yield node, rules


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for inner in nested_graphs(graph):
        yield from inner
