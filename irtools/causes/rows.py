"""Profiles of two models joined by what their nodes do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from irtools.analysis.pairing import Pairing, node_ids
from irtools.causes.facts import Facts
from irtools.measure.profile import NodeProfile, Profile
from irtools.model import Model

__all__ = [
    "CASTS",
    "GEMMS",
    "INTEGER_MARKS",
    "LAYOUTS",
    "PRODUCTS",
    "QUANTIZERS",
    "Joined",
    "ModuleTimes",
    "Placed",
    "joined",
    "kernel_of",
    "total",
]

QUANTIZERS = frozenset(
    {"DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize", "QuantizeLinear"}
)
"""Kernels that only quantize or dequantize."""
LAYOUTS = frozenset(
    {"NhwcToNchw", "NchwToNhwc", "Reorder", "ReorderInput", "ReorderOutput", "Transpose"}
)
"""Kernels that only move data into another order."""
CASTS = frozenset({"Cast", "Convert"})
GEMMS = frozenset(
    {
        "Conv",
        "ConvTranspose",
        "Convolution",
        "Deconvolution",
        "FullyConnected",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
    }
)
"""Products in floating point; OpenVINO's names say nothing of the type, their kernels do."""
PRODUCTS = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", "QLinearConv"}
)
"""Operators that multiply by weights."""
_TAKEN_IN = 6
"""Operators that a runtime puts into a product's kernel, one after the other."""
INTEGER_MARKS = ("_I8", "_i8", "_u8")
"""Endings of OpenVINO's kernels on integers."""


def kernel_of(row: NodeProfile) -> str:
    """Return the kind of a row: `FullyConnected` of `FullyConnected brgemm_avx512_I8`."""
    return row.op.partition(" ")[0]


def total(rows: Iterable[NodeProfile]) -> float:
    """Return the milliseconds of rows."""
    return sum(row.ms for row in rows)


@dataclass(frozen=True)
class ModuleTimes:
    """One group of nodes that do the same work, or a module of them.

    Attributes:
        module: Its name.
        first_ms: Time of the first model.
        second_ms: Time of the second.
        first: Rows of the first model, the most expensive first.
        second: Rows of the second.
    """

    module: str
    first_ms: float
    second_ms: float
    first: tuple[NodeProfile, ...]
    second: tuple[NodeProfile, ...]

    @property
    def more_ms(self) -> float:
        """How much longer the second needs."""
        return self.second_ms - self.first_ms

    def kernels(self) -> Iterator[str]:
        """Say which kernel takes most of the time now, and which one did before."""
        if self.first and self.second:
            before, after = _heaviest(self.first), _heaviest(self.second)
            yield f"most of it in {after}; before in {before}"


@dataclass(frozen=True, eq=False)
class Placed:
    """The rows of one profile, and the node that each belongs to.

    Attributes:
        rows: All of them, the most expensive first.
        nodes: Per row the id of the node; empty where no name shows it.
    """

    rows: tuple[NodeProfile, ...]
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, profile: Profile, model: Model) -> Placed:
        """Place the rows of a profile of a model."""
        names = _known_names(model)
        ids = node_ids(model.ir)
        nodes = {name: node for node, name in ids.items()}
        places = []
        for row in profile.nodes:
            node = nodes.get(_place(row.node, names))
            if node is not None and kernel_of(row) in GEMMS:
                node = _product_before(node)
            places.append("" if node is None else ids[node])
        return cls(profile.nodes, tuple(places))

    def where(self, wanted: Callable[[NodeProfile], bool]) -> list[NodeProfile]:
        """Return some rows."""
        return [row for row in self.rows if wanted(row)]

    def of_kernels(self, kernels: Collection[str]) -> list[NodeProfile]:
        """Return the rows of some kinds of kernels."""
        return self.where(lambda row: kernel_of(row) in kernels)

    def of_nodes(self, ids: Collection[str]) -> list[NodeProfile]:
        """Return the rows of some nodes."""
        return [row for row, node in zip(self.rows, self.nodes, strict=True) if node in ids]


@dataclass(frozen=True, eq=False)
class Joined:
    """Two profiles joined.

    Attributes:
        first: Rows of the first model.
        second: Rows of the second.
        pairing: The nodes of both.
    """

    first: Placed
    second: Placed
    pairing: Pairing

    @cached_property
    def modules(self) -> tuple[ModuleTimes, ...]:
        """Times by module, where the second needs most more than the first at the head.

        A group of nodes without a module stands under the name of its first node.
        """
        found: dict[str, tuple[list[NodeProfile], list[NodeProfile]]] = {}
        for side, placed in enumerate((self.first, self.second)):
            for row, node in zip(placed.rows, placed.nodes, strict=True):
                key = self.module_of(side, node) or f"({kernel_of(row)}, no module)"
                found.setdefault(key, ([], []))[side].append(row)
        times = (
            ModuleTimes(name, total(first), total(second), tuple(first), tuple(second))
            for name, (first, second) in found.items()
        )
        return tuple(sorted(times, key=lambda one: -one.more_ms))

    def module_of(self, side: int, node: str) -> str:
        """Return the module of a node of one of the models; else its group; else ''."""
        if not node:
            return ""
        module = self.pairing.modules[side].get(node, "")
        if module:
            return module
        number = (self.pairing.left, self.pairing.right)[side].get(node)
        if number is None:
            return ""
        match = self.pairing.matches[number]
        return match.module or match.left[-1]

    def of_modules(self, modules: Collection[str]) -> ModuleTimes:
        """Return the time of several modules together."""
        some = [one for one in self.modules if one.module in modules]
        first = tuple(row for one in some for row in one.first)
        second = tuple(row for one in some for row in one.second)
        return ModuleTimes("", total(first), total(second), first, second)

    def growth(self, kernels: Collection[str], outside: Collection[str] = ()) -> float:
        """Return how much longer the second spends in some kinds of kernels.

        Args:
            kernels: Their kinds.
            outside: Modules that do not count.
        """
        spent = [
            sum(
                row.ms
                for row, node in zip(placed.rows, placed.nodes, strict=True)
                if kernel_of(row) in kernels and self.module_of(side, node) not in outside
            )
            for side, placed in enumerate((self.first, self.second))
        ]
        return spent[1] - spent[0]


def _heaviest(rows: tuple[NodeProfile, ...]) -> str:
    by_op: dict[str, list[NodeProfile]] = {}
    for row in rows:
        by_op.setdefault(row.op, []).append(row)
    op = max(by_op, key=lambda one: total(by_op[one]))
    return f"{op} ({len(by_op[op])}, {total(by_op[op]):.2f} ms)"


def joined(facts: Facts) -> Joined | None:
    """Join the profiles of two models; None where there are none."""
    if facts.profiles is None:
        return None
    first, second = facts.profiles
    return Joined(
        Placed.of(first, facts.first.model), Placed.of(second, facts.second.model), facts.pairing
    )


def _known_names(model: Model) -> Mapping[str, str]:
    """Return ids by the names that runtimes give to what they fused: of a node or a value."""
    found: dict[str, str] = {}
    ids = node_ids(model.ir)
    for node, name in ids.items():
        for value in node.outputs:
            if value.name:
                found.setdefault(value.name, name)
    return {**found, **{name: name for name in ids.values()}}


def _place(name: str, known: Mapping[str, str]) -> str:
    """Return the node that a row belongs to: of its name, or of the longest name it begins with.

    ONNX Runtime adds to names what it did (`_nchwc`, `_token_12`), OpenVINO names a copy by both of
    its ends (`SOURCE_f32_bf16_TARGET`).
    """
    return next((known[part] for part in _heads(name) if part in known), "")


def _product_before(node: ir.Node) -> ir.Node:
    """Return the product whose kernel took in what comes after it, and goes by the last name."""
    found: ir.Node | None = node
    for _ in range(_TAKEN_IN):
        if found is None or not found.inputs:
            break
        if found.op_type in PRODUCTS:
            return found
        value = found.inputs[0]
        found = None if value is None else value.producer()
    return node


def _heads(name: str) -> Iterator[str]:
    yield name
    for place in range(len(name) - 1, 0, -1):
        if name[place] in "_/.:":
            yield name[:place]
