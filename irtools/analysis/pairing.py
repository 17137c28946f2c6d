"""Which nodes of one model do the work of which nodes of another one.

Passes keep the names of values that others read, and note at a node the nodes that it replaces.
What is left without a partner belongs to the one group that reads all of it: operators that a
fusion took in on the one side, quantization pairs that were put in front of a product on the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from irtools.analysis.provenance import module_name, module_of
from irtools.editing import REPLACED
from irtools.model import iter_nodes

__all__ = ["Match", "Pairing", "node_ids", "pair_models"]


@dataclass(frozen=True)
class Match:
    """Nodes that do the same work.

    Attributes:
        module: Module of the source that they come from; empty where no name shows it.
        left: Ids of nodes of the first model, in its order.
        right: Ids of nodes of the second.
    """

    module: str
    left: tuple[str, ...]
    right: tuple[str, ...]


@dataclass(frozen=True)
class Pairing:
    """Two models side by side.

    Attributes:
        matches: Groups with nodes on both sides, in the order of the first model.
        gone: Ids of nodes that the first model alone has.
        new: Ids of nodes that the second alone has.
        modules: Id to module, of both models; one of the second takes that of its partners, and
            one of the first without a module that of its group.
    """

    matches: tuple[Match, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    modules: tuple[Mapping[str, str], Mapping[str, str]]

    @cached_property
    def left(self) -> Mapping[str, int]:
        """Id of a node of the first model to the number of its match."""
        return {name: n for n, match in enumerate(self.matches) for name in match.left}

    @cached_property
    def right(self) -> Mapping[str, int]:
        """The same of the second model."""
        return {name: n for n, match in enumerate(self.matches) for name in match.right}


def node_ids(model: ir.Model) -> dict[ir.Node, str]:
    """Return a name for every node of every graph, its own where it has one; all are different."""
    found: dict[ir.Node, str] = {}
    taken: set[str] = set()
    for number, node in enumerate(iter_nodes(model)):
        outputs = [value.name for value in node.outputs if value.name]
        stem = node.name or next(iter(outputs), "") or f"{node.op_type}_{number}"
        name, count = stem, 1
        while name in taken:
            count += 1
            name = f"{stem}#{count}"
        taken.add(name)
        found[node] = name
    return found


def pair_models(left: ir.Model, right: ir.Model) -> Pairing:
    """Pair the nodes of two models by names of nodes and values, and by what passes noted."""
    ids = node_ids(left), node_ids(right)
    groups = _Groups()
    for node, partner in _same(ids[0], ids[1]):
        groups.join((0, ids[0][partner]), (1, ids[1][node]))
    for side in (0, 1):
        _take_in(ids[side], side, groups)
    return _pairing(ids, groups)


def _same(
    left: Mapping[ir.Node, str], right: Mapping[ir.Node, str]
) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Yield nodes of the second model with a node of the first that they share a name with."""
    by_name = {node.name: node for node in left if node.name}
    by_value = {value.name: node for node in left for value in node.outputs if value.name}
    for node in right:
        replaced = node.metadata_props.get(REPLACED, "").split(",")
        for name in (node.name or "", *replaced):
            if name and name in by_name:
                yield node, by_name[name]
        for value in node.outputs:
            if value.name and value.name in by_value:
                yield node, by_value[value.name]


def _take_in(ids: Mapping[ir.Node, str], side: int, groups: _Groups) -> None:
    """Add nodes without a partner to the group that reads all they make."""
    for node in reversed(list(ids)):
        key = (side, ids[node])
        if groups.known(key):
            continue
        if any(value.is_graph_output() for value in node.outputs):
            continue
        users = [use.node for value in node.outputs for use in value.uses()]
        readers = [(side, ids[user]) for user in users if user in ids]
        if not readers or not all(map(groups.known, readers)):
            continue
        if len({groups.root(reader) for reader in readers}) == 1:
            groups.join(readers[0], key)


class _Groups:
    """Sets of nodes of both sides that belong together."""

    def __init__(self) -> None:
        self._parents: dict[tuple[int, str], tuple[int, str]] = {}

    def known(self, key: tuple[int, str]) -> bool:
        """Whether a node is in a set."""
        return key in self._parents

    def root(self, key: tuple[int, str]) -> tuple[int, str]:
        """Return the node that stands for a set."""
        while (parent := self._parents.setdefault(key, key)) != key:
            self._parents[key] = self._parents[parent]
            key = parent
        return key

    def join(self, one: tuple[int, str], other: tuple[int, str]) -> None:
        """Make one set of two."""
        self._parents[self.root(other)] = self.root(one)


def _pairing(ids: tuple[Mapping[ir.Node, str], Mapping[ir.Node, str]], groups: _Groups) -> Pairing:
    members: dict[tuple[int, str], tuple[list[str], list[str]]] = {}
    alone: tuple[list[str], list[str]] = ([], [])
    for side in (0, 1):
        for name in ids[side].values():
            if not groups.known((side, name)):
                alone[side].append(name)
                continue
            members.setdefault(groups.root((side, name)), ([], []))[side].append(name)
    own = tuple({name: _module(node) for node, name in names.items()} for names in ids)
    taken = dict(own[0]), dict(own[1])
    matches = []
    for left, right in members.values():
        module = _first(own[0], left) or _first(own[1], right)
        taken[0].update((name, module) for name in left if module and not own[0][name])
        taken[1].update((name, module) for name in right if module)
        matches.append(Match(module, tuple(left), tuple(right)))
    return Pairing(tuple(matches), tuple(alone[0]), tuple(alone[1]), taken)


def _first(modules: Mapping[str, str], names: list[str]) -> str:
    """Return the module of the last node that has one: a product counts more than its inputs."""
    return next((modules[name] for name in reversed(names) if modules[name]), "")


def _module(node: ir.Node) -> str:
    """Return the module of a node; a guess from its parameters, but not its own name."""
    known = module_of(node)
    if known:
        return known
    guess = module_name(node)
    own = {node.name, node.op_type, *(value.name for value in node.outputs)}
    return "" if guess in own else guess
