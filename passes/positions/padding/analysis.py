"""What every tensor of a model holds at padding, and which node reads that elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.analysis.shapes import SymbolicShapes
from irtools.model import subgraphs
from irtools.passes.positions.padding import PADDING
from irtools.passes.positions.padding.base import (
    MixedError,
    Number,
    Pad,
    Pads,
    TokenAxes,
    changed,
    pad_of,
)

__all__ = ["Clash", "Mask", "PaddingContents"]

_SCORES: Mapping[tuple[str, str], tuple[int, ...]] = MappingProxyType(
    {
        ("", "Attention"): (3,),
        ("", "Softmax"): (0,),
        ("com.microsoft", "MultiHeadAttention"): (4, 5),
    }
)
"""Inputs that say what gets no weight in attention."""

_MISFITS = (IndexError, ValueError)
"""What a rule raises where inputs or attributes do not fit the operator."""


@dataclass(frozen=True)
class Mask:
    """A tensor [B, S] that says which positions are padding.

    Attributes:
        value: The tensor.
        padding: What it holds there; anything else is a token.
        sizes: B and S.
    """

    value: ir.Value
    padding: Number
    sizes: tuple[Dim, Dim]

    @property
    def place(self) -> TokenAxes:
        """Where texts and positions lie in the mask, and in hidden states [B, S, H]."""
        return TokenAxes(None if self.sizes[0] == 1 else 0, 1)

    @property
    def joined(self) -> TokenAxes:
        """Where they lie in [B S, H]."""
        return TokenAxes(None if self.sizes[0] == 1 else 0, 0)


@dataclass(frozen=True)
class Clash:
    """A node that needs padding as it was.

    Attributes:
        node: The reader; None: the caller of the model.
        value: What it reads.
    """

    node: ir.Node | None
    value: ir.Value


@dataclass
class PaddingContents:
    """What tensors hold at padding, if some nodes no longer compute it.

    Attributes:
        facts: Of the model.
        mask: What is padding.
        packed: Results of nodes that do not compute padding, to the number that is put there; None:
            something finite is.
    """

    facts: SymbolicShapes
    mask: Mask
    packed: Mapping[ir.Value, Number | None] = field(default_factory=dict)
    _pads: dict[ir.Value, Pads] = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[Dim, Dim]:
        """Of texts and positions."""
        return self.mask.sizes

    def of(self, value: ir.Value | None) -> Pads:
        """Return what a tensor holds at padding."""
        return {} if value is None else self._pads.get(value, {})

    def number(self, value: ir.Value) -> Number | None:
        """Return the number that a tensor [B, S, ...] or [B S, ...] holds at padding, if known."""
        pads = self.of(value)
        pad = pads.get(self.mask.place) or pads.get(self.mask.joined)
        return None if pad is None else pad.number

    def visit(self, graph: ir.Graph) -> Clash | None:
        """Follow a graph and those inside it; stops at the first node that needs padding."""
        value = self.mask.value
        self._pads.setdefault(value, {self.mask.place: Pad(self.mask.padding)})
        for node in graph:
            for inner in subgraphs(node):
                clash = self.visit(inner) or self._result_clash(node, inner)
                if clash is not None:
                    return clash
            if node.outputs and node.outputs[0] in self.packed:
                self._put_packed(node)
            elif any(self.of(value) for value in node.inputs):
                clash = self._follow(node)
                if clash is not None:
                    return clash
        return None

    def closes(self, graph: ir.Graph) -> bool:
        """Whether attention gives no weight to what the mask marks, wherever it does."""
        return any(
            pad.closed or pad.number == 0
            for node in graph
            for index in _SCORES.get((node.domain, node.op_type), ())
            if index < len(node.inputs)
            for pad in self.of(node.inputs[index]).values()
        )

    def changed_results(self, graph: ir.Graph) -> Clash | list[ir.Value]:
        """Return the results of a model that have changed at padding, or one that must not."""
        found = []
        for value in graph.outputs:
            places = list(changed(self.of(value)))
            if places and places != [self.mask.place]:
                return Clash(None, value)
            if places:
                found.append(value)
        return found

    def _follow(self, node: ir.Node) -> Clash | None:
        rule = PADDING.of(node)
        changes = next((v for v in node.inputs if v is not None and changed(self.of(v))), None)
        if rule is None:
            return None if changes is None else Clash(node, changes)
        try:
            found = rule(node, self)
        except (MixedError, *_MISFITS):
            return None if changes is None else Clash(node, changes)
        for output, pads in zip(node.outputs, found, strict=False):
            known = {place: pad for place, pad in pads.items() if pad != Pad()}
            if known:
                self._pads[output] = known
        return None

    def _put_packed(self, node: ir.Node) -> None:
        for output in node.outputs:
            if output not in self.packed:
                continue
            number, rank = self.packed[output], self.facts.shape(output)
            assert rank is not None
            place = self.mask.place if rank[:2] == self.sizes else self.mask.joined
            self._pads[output] = {place: pad_of(number, number is not None)}

    def _result_clash(self, node: ir.Node, graph: ir.Graph) -> Clash | None:
        value = next((value for value in graph.outputs if changed(self.of(value))), None)
        return None if value is None else Clash(node, value)
