"""One block of the graph, before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from irtools.analysis.block import MOST_NODES
from irtools.analysis.block_pair import BlockNode, BlockPair
from irtools.pages.blocks import Block, Drawing, Paragraph, Table
from irtools.pages.charts import Box, Chart, layered

__all__ = ["block"]

_KINDS = {"same": "", "changed": "warning", "gone": "bad", "new": "good"}
_KEYS = (
    (("bad", "− gone"), ("warning", "~ other weights")),
    (("good", "+ new"), ("warning", "~ other weights")),
)


def block(found: BlockPair) -> Iterator[Block]:
    """Yield both drawings and a table of what they hold."""
    if max(len(found.before), len(found.after)) > MOST_NODES:
        return
    alike = f", which {found.alike} layers look like" if found.alike > 1 else ""
    name = found.module or "the whole model"
    yield Paragraph(
        f"Drawn is {name}{alike}: its operators with the weights that they read, each below what "
        "it reads. Constants are left out."
    )
    yield Drawing(_drawn("Before", name, found.before, _KEYS[0]))
    yield Drawing(_drawn("After", name, found.after, _KEYS[1]))
    yield _table(found)


def _drawn(
    when: str, name: str, nodes: Sequence[BlockNode], keys: Sequence[tuple[str, str]]
) -> Chart:
    boxes = [
        Box(one.op, one.weights, _title(one), _KINDS[one.change], tuple(one.inputs))
        for one in nodes
    ]
    return layered(f"{when}: {name}, {len(nodes)} nodes", boxes, keys)


def _title(one: BlockNode) -> str:
    weights = f", {one.weights}" if one.weights else ""
    said = {"same": "as before", "changed": "other weights"}.get(one.change, one.change)
    return f"{one.op} {one.name}{weights}: {said}"


def _table(found: BlockPair) -> Table:
    before, after = (Counter(one.op for one in side) for side in (found.before, found.after))
    ops = sorted({**before, **after}, key=lambda op: (before[op] == after[op], op))
    rows = [(op, str(before[op]), str(after[op]), f"{after[op] - before[op]:+d}") for op in ops]
    shown = [(op, b, a, change if b != a else "") for op, b, a, change in rows]
    return Table("Operators of the block", ("operator", "before", "after", "change"), shown)
