"""The modules of the source as a tree: what each holds before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from irtools.pages.blocks import Block, Hint, Paragraph, Section, Tree, TreeRow
from irtools.report.document import Report
from irtools.report.entries import ModuleEntry, ReportData
from irtools.report.page.block import block
from irtools.words import size_text

__all__ = ["modules"]

_MOST_ROWS = 400
_DEEPEST = 12
_HEADINGS = ("module", "nodes", "weights", "types")


@dataclass
class _Node:
    """A module with the modules in it.

    Attributes:
        own: The module by itself; None where it has no node of its own.
        parts: By the next part of the name.
    """

    own: ModuleEntry | None = None
    parts: dict[str, _Node] = field(default_factory=dict)

    @property
    def all(self) -> Iterator[ModuleEntry]:
        """The module, and those in it."""
        if self.own is not None:
            yield self.own
        for part in self.parts.values():
            yield from part.all

    @property
    def shape(self) -> object:
        """What two modules have in common that are alike before any pass."""
        own = None if self.own is None else (self.own.nodes[0], self.own.bytes[0])
        return own, tuple((name, part.shape) for name, part in self.parts.items())


def modules(report: Report) -> Section:
    """Return the section: the tree of modules, and a block before and after."""
    blocks: list[Block] = list(_tree(report))
    if report.block is not None:
        blocks += block(report.block)
    else:
        blocks.append(Hint("No block of the model is small enough to be drawn, or none repeats."))
    return Section("graph", "Graph", tuple(blocks))


def _tree(report: ReportData) -> Iterator[Block]:
    if not any(entry.name and entry.nodes[0] for entry in report.modules):
        yield Hint(
            "No module of the source is known: nodes are not named by them, as those of "
            "torch.onnx.export and irc export are."
        )
        return
    root = _Node()
    for entry in report.modules:
        place = root
        for part in entry.name.split(".", _DEEPEST) if entry.name else ["(no module)"]:
            place = place.parts.setdefault(part, _Node())
        place.own = entry
    yield Tree("The model, before → after", _HEADINGS, _cut(_rows([root]), _MOST_ROWS))
    yield Paragraph(
        "Layers in a row that were alike are shown once, with the range of what became of them. "
        "Weights that several modules read count once."
    )


def _rows(alike: Sequence[_Node]) -> tuple[TreeRow, ...]:
    """Return a row for each part of some modules that are alike."""
    groups: list[list[str]] = []
    parts = alike[0].parts
    for name, part in parts.items():
        before = groups[-1][-1] if groups else ""
        if name.isdigit() and before.isdigit() and part.shape == parts[before].shape:
            groups[-1].append(name)
        else:
            groups.append([name])
    return tuple(
        _row(names, [node.parts[name] for node in alike for name in names]) for names in groups
    )


def _row(names: Sequence[str], alike: Sequence[_Node]) -> TreeRow:
    name = names[0] if len(names) == 1 else f"{names[0]}–{names[-1]} (each)"
    return TreeRow(name, _cells(alike), _rows(alike))


def _cells(alike: Sequence[_Node]) -> tuple[str, ...]:
    found = [list(node.all) for node in alike]
    nodes = [[sum(e.nodes[i] for e in entries) for entries in found] for i in (0, 1)]
    sizes = [[sum(e.bytes[i] for e in entries) for entries in found] for i in (0, 1)]
    # The type of most of a module's weights: scales and indices say little.
    types = [
        dict.fromkeys(t for entries in found for e in entries for t in e.types[i][:1])
        for i in (0, 1)
    ]
    return (
        _change(*(_range(one, str) for one in nodes)),
        _change(*(_range(one, size_text) for one in sizes)) if any(map(any, sizes)) else "",
        _change(*(" ".join(one) or "-" for one in types)) if any(types) else "",
    )


def _range(numbers: Sequence[int], shown: Callable[[int], str]) -> str:
    low, high = shown(min(numbers)), shown(max(numbers))
    return low if low == high else f"{low}–{high}"


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _cut(rows: tuple[TreeRow, ...], most: int) -> tuple[TreeRow, ...]:
    """Leave out the deepest levels of a tree that has too many rows."""
    depth = _DEEPEST
    while depth > 1 and _count(rows) > most:
        depth -= 1
        rows = _to_depth(rows, depth)
    return rows


def _count(rows: Sequence[TreeRow]) -> int:
    return sum(1 + _count(row.parts) for row in rows)


def _to_depth(rows: Sequence[TreeRow], depth: int) -> tuple[TreeRow, ...]:
    parts = (() if depth == 1 else _to_depth(row.parts, depth - 1) for row in rows)
    return tuple(TreeRow(row.name, row.cells, own) for row, own in zip(rows, parts, strict=True))
