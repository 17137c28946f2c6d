"""One repeated block of a model, such as a layer, before and after passes: small enough to draw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import onnx_ir as ir

from irtools.analysis.block_pair import BlockNode, BlockPair, Change
from irtools.analysis.pairing import Pairing, node_ids, pair_models
from irtools.model import dtype_text

__all__ = ["MOST_NODES", "find_block"]

MOST_NODES = 90
_LEAST_NODES = 2


_Ids: TypeAlias = Mapping[str, ir.Node]
_Sides: TypeAlias = tuple[list[str], list[str]]


def find_block(left: ir.Model, right: ir.Model) -> BlockPair | None:
    """Return the block that shows most of a model; None: no block has 90 nodes or fewer.

    A block is a module of a numbered list, `encoder.layer.0`. Of lists with several members that
    which holds most nodes is shown, by the first one of the members that most look like. Models
    without such a list are shown whole.
    """
    pairing = pair_models(left, right)
    nodes = _drawn(left), _drawn(right)
    module, alike, sides = _choose(pairing, nodes)
    if not sides[0] or max(map(len, sides)) > MOST_NODES:
        return None
    changes = _changes(pairing, nodes)
    before = tuple(_block_nodes(sides[0], nodes[0], changes[0]))
    after = tuple(_block_nodes(sides[1], nodes[1], changes[1]))
    return BlockPair(module, alike, before, after)


def _drawn(model: ir.Model) -> dict[str, ir.Node]:
    """Return the nodes of the main graph by id, without constants."""
    ids = node_ids(model)
    return {ids[node]: node for node in model.graph if node.op_type != "Constant"}


def _choose(pairing: Pairing, nodes: tuple[_Ids, _Ids]) -> tuple[str, int, _Sides]:
    lists: dict[str, dict[str, _Sides]] = {}
    for side, modules in enumerate(pairing.modules):
        for name in nodes[side]:
            for parent, member in _members(modules.get(name, "")):
                lists.setdefault(parent, {}).setdefault(member, ([], []))[side].append(name)
    best: tuple[int, str, int, _Sides] | None = None
    for members in lists.values():
        fitting = {m: s for m, s in members.items() if _fits(s)}
        if len(fitting) < _LEAST_NODES:
            continue
        looks = {member: _look(sides, nodes) for member, sides in fitting.items()}
        look, alike = Counter(looks.values()).most_common(1)[0]
        member = next(member for member, own in looks.items() if own == look)
        total = sum(len(sides[0]) for sides in fitting.values())
        if best is None or total > best[0]:
            best = total, member, alike, fitting[member]
    if best is None:
        return "", 1, (list(nodes[0]), list(nodes[1]))
    return best[1:]


def _members(module: str) -> Iterator[tuple[str, str]]:
    """Yield of a dotted name each list and its member: `a.0.b.1` is in `a.0` and in `a.0.b.1`."""
    parts = module.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            yield ".".join(parts[:place]), ".".join(parts[: place + 1])


def _fits(sides: _Sides) -> bool:
    return len(sides[0]) >= _LEAST_NODES and max(map(len, sides)) <= MOST_NODES


def _look(sides: _Sides, nodes: tuple[_Ids, _Ids]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        tuple(ids[name].op_type for name in side) for side, ids in zip(sides, nodes, strict=True)
    )


def _changes(
    pairing: Pairing, nodes: tuple[_Ids, _Ids]
) -> tuple[dict[str, Change], dict[str, Change]]:
    """Return what became of each node: within a match nodes of equal operators are partners."""
    before: dict[str, Change] = dict.fromkeys(nodes[0], "gone")
    after: dict[str, Change] = dict.fromkeys(nodes[1], "new")
    for match in pairing.matches:
        left = [name for name in match.left if name in nodes[0]]
        for name in match.right:
            if name not in nodes[1]:
                continue
            partner = next((one for one in left if _same(nodes, one, name)), None)
            if partner is not None:
                left.remove(partner)
                equal = _weights(nodes[0][partner]) == _weights(nodes[1][name])
                before[partner] = after[name] = "same" if equal else "changed"
    return before, after


def _same(nodes: tuple[_Ids, _Ids], left: str, right: str) -> bool:
    one, other = nodes[0][left], nodes[1][right]
    return (one.domain, one.op_type) == (other.domain, other.op_type)


def _block_nodes(
    names: Sequence[str], ids: _Ids, changes: Mapping[str, Change]
) -> Iterator[BlockNode]:
    makers: dict[ir.Value, int] = {}
    for number, name in enumerate(names):
        node = ids[name]
        read = (makers[value] for value in node.inputs if value is not None and value in makers)
        inputs = tuple(dict.fromkeys(read))
        yield BlockNode(node.op_type, name, _weights(node), inputs, changes[name])
        makers.update((value, number) for value in node.outputs)


def _weights(node: ir.Node) -> str:
    """Return types and sizes of what a node reads of the model, single numbers left out."""
    found = []
    for value in node.inputs:
        tensor = None if value is None else value.const_value
        if tensor is not None and tensor.size > 1:
            found.append(f"{dtype_text(tensor.dtype)} {'x'.join(map(str, tensor.shape))}")
    return ", ".join(found)
