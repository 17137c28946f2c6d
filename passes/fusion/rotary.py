"""Rotary position embedding in single operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from irtools.analysis.dims import Dim, multiply
from irtools.analysis.shapes import Shape, SymbolicShapes
from irtools.editing import (
    Editor,
    Place,
    Veto,
    attribute_values,
    only_user,
    other_input,
    producer_of,
    require,
    scalar_of,
)
from irtools.passes.fusion.algebra import require_float
from irtools.passes.fusion.base import Fusion, FusionPass, FusionRule
from irtools.passes.fusion.rotary_table import (
    HalfTable,
    expanded_batch,
    half_table,
    squeezed,
)

__all__ = ["FuseRotary"]

_HEADS_SECOND = (0, 2, 1, 3)
_TO_END = 2**31 - 1


@dataclass(frozen=True)
class _Flat:
    """x as the linear layer has it: [B,S,H*D]."""

    value: ir.Value
    heads: int


@dataclass(frozen=True)
class _Rotated:
    """What is rotated.

    Attributes:
        shape: Of x, [B,H,S,D].
        flat: x before its heads were taken apart, where it was.
    """

    x: ir.Value
    shape: Shape
    flat: _Flat | None


@dataclass(frozen=True)
class _Rotary(_Rotated):
    """A rotary embedding in its parts."""

    cos: HalfTable
    sin: HalfTable
    output: ir.Value


@dataclass(frozen=True)
class _Written:
    """A RotaryEmbedding that an exporter wrote, to be improved.

    Attributes:
        expands: Its tables have a batch size of 1 where x has another.
    """

    node: ir.Node
    shape: Shape
    flat: _Flat | None
    expands: bool


class _RotaryRule(FusionRule[_Rotary | _Written]):
    anchors = ("Neg", "RotaryEmbedding")

    def find(self, anchor: ir.Node) -> _Rotary | _Written:
        if anchor.op_type == "RotaryEmbedding":
            return self._written(anchor)
        x = self._rotated(anchor)
        turned = only_user(anchor.outputs[0])
        assert turned is not None
        sine, cosine, output = _sum_of_products(turned.outputs[0], x)
        shape = self.facts.shape(x)
        if shape is None or len(shape) != 4:
            raise Veto("x is not known to have 4 dimensions")
        require(isinstance(shape[3], int), "the width of x is not known")
        require_float(x)
        tables = []
        for value, name in ((cosine, "cos"), (sine, "sin")):
            table = self.facts.shape(value)
            fits = table is not None and (1,) * (4 - len(table)) + table in (
                (shape[0], 1, *shape[2:]),
                (1, 1, *shape[2:]),
            )
            found = "unknown shape" if table is None else table
            wanted = "{} is of {}, expected [{} or 1, 1, {}, {}]"
            require(fits, wanted, name, found, shape[0], *shape[2:])
            tables.append(half_table(value, name, self.facts))
        cos, sin = tables
        return _Rotary(x, shape, self._flat(x, shape), cos, sin, output)

    def build(self, editor: Editor, anchor: ir.Node, found: _Rotary | _Written) -> None:
        if isinstance(found, _Written):
            self._improve(editor, found)
            return
        last = found.output.producer()
        assert last is not None
        make = Place(editor, last, replaces=(anchor, last))
        sized = found.x if found.flat is None else found.flat.value
        tables = [
            self._table(make, table, sized, found.shape[0]) for table in (found.cos, found.sin)
        ]
        editor.substitute(found.output, _embedded(make, found, tables, {}))
        editor.drop_unread(last)

    def _table(self, make: Place, table: HalfTable, x: ir.Value, batch: Dim) -> ir.Value:
        made = squeezed(make, table.build(make), table.rank)
        return made if table.batch == batch else expanded_batch(make, made, x, batch)

    def _improve(self, editor: Editor, found: _Written) -> None:
        node, flat = found.node, found.flat
        x = node.inputs[0]
        assert x is not None
        make = Place(editor, node, replaces=(node,))
        tables = [value for value in node.inputs[1:3] if value is not None]
        if found.expands:
            sized = x if flat is None else flat.value
            tables = [expanded_batch(make, table, sized, found.shape[0]) for table in tables]
        rotated = _Rotated(x, found.shape, flat)
        result = _embedded(make, rotated, tables, attribute_values(node))
        editor.substitute(node.outputs[0], result)
        editor.drop_unread(node)

    def _written(self, node: ir.Node) -> _Written:
        x = node.inputs[0]
        shape = self.facts.shape(x)
        has_ids = len(node.inputs) > 3 and node.inputs[3] is not None
        known = shape is not None and len(shape) == 4 and not has_ids
        require(known, "x is not [B,H,S,D], or there are position ids", named=False)
        assert x is not None and shape is not None
        batches = {(self.facts.shape(value) or (None,))[0] for value in node.inputs[1:3]}
        expands, flat = shape[0] != 1 and batches == {1}, self._flat(x, shape)
        require(expands or flat is not None, "nothing to improve", named=False)
        return _Written(node, shape, flat, expands)

    def _rotated(self, negation: ir.Node) -> ir.Value:
        """x of concat(-x2, x1)."""
        turned = only_user(negation.outputs[0])
        require(
            turned is not None and turned.op_type == "Concat" and len(turned.inputs) == 2,
            "not half of a rotation",
            named=False,
        )
        assert turned is not None
        first, second = turned.inputs
        require(first is negation.outputs[0], "not half of a rotation", named=False)
        x = _source_of_half(negation.inputs[0], self.facts, upper=True)
        require(
            x is not None and x is _source_of_half(second, self.facts, upper=False),
            "not half of a rotation",
            named=False,
        )
        assert x is not None
        rank = self.facts.rank(x)
        axis = turned.attributes.get_int("axis", 0)
        is_last = axis == -1 or (rank is not None and axis == rank - 1)
        require(is_last, "not half of a rotation", named=False)
        return x

    def _flat(self, x: ir.Value, shape: Shape) -> _Flat | None:
        transpose = producer_of(x, "Transpose")
        if transpose is None or tuple(transpose.attributes.get_ints("perm") or ()) != _HEADS_SECOND:
            return None
        reshape = producer_of(transpose.inputs[0], "Reshape")
        heads = shape[1]
        if reshape is None or not isinstance(heads, int):
            return None
        value = reshape.inputs[0]
        merged = (shape[0], shape[2], multiply(heads, shape[3]))
        if value is None or self.facts.shape(value) != merged:
            return None
        return _Flat(value, heads)


@dataclass(frozen=True)
class FuseRotary(FusionPass):
    """Turn rotary position embedding into RotaryEmbedding (opset 23).

        x * cos + concat(-x2, x1) * sin  ->  RotaryEmbedding(x, cos, sin)

    (Su et al. 2021) with x1 and x2 the halves of the last axis of x [batch, heads, length,
    width], by Slice or Split. The operator wants tables of half the width: they are made where
    cos and sin provably repeat their first half, once for all layers. It also wants tables of
    the batch size of x, which not every runtime broadcasts, so tables of batch size 1 are
    expanded. Where x comes straight from a linear layer, the operator takes it as [batch, length,
    heads * width]. RotaryEmbedding nodes that an exporter wrote otherwise are brought to this
    form. Interleaved pairs (GPT-J) stay. Raises the opset to 23. Main graph and nested
    subgraphs.
    """

    name: ClassVar[str] = "fuse-rotary"
    counters: ClassVar = {
        "num-fused-rotary": "rotary embeddings fused, or brought to a better form",
        "num-unfused-rotary": "rotary embeddings that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion(
        "rotary", "rotary embeddings", "RotaryEmbedding", 23, _RotaryRule
    )


def _embedded(
    make: Place,
    found: _Rotated,
    tables: list[ir.Value],
    attributes: dict[str, object],
) -> ir.Value:
    """RotaryEmbedding of x, its heads taken apart afterwards where they are not yet."""
    if found.flat is None:
        return make.value("RotaryEmbedding", [found.x, *tables], attributes)
    heads, width = found.flat.heads, found.shape[3]
    assert isinstance(width, int)
    inputs = [found.flat.value, *tables]
    rotated = make.value("RotaryEmbedding", inputs, {**attributes, "num_heads": heads})
    split = make.value("Reshape", [rotated, make.integers([0, 0, heads, width])])
    return make.value("Transpose", [split], {"perm": list(_HEADS_SECOND)})


def _source_of_half(
    value: ir.Value | None, facts: SymbolicShapes, *, upper: bool
) -> ir.Value | None:
    """The tensor of whose last axis a value is the first or the second half."""
    node = producer_of(value, "Slice", "Split")
    if node is None or node.inputs[0] is None:
        return None
    shape = facts.shape(node.inputs[0])
    if not shape or not isinstance(shape[-1], int) or shape[-1] % 2:
        return None
    half, last = shape[-1] // 2, len(shape) - 1
    if node.op_type == "Split":
        is_last = node.attributes.get_int("axis", 0) in (-1, last)
        widths = [(facts.shape(output) or (None,))[-1] for output in node.outputs]
        fits = is_last and widths == [half, half] and value is node.outputs[int(upper)]
        return node.inputs[0] if fits else None
    bounds = [facts.integers(v) for v in [*node.inputs[1:], None, None][:4]]
    starts, ends, axes, steps = (None if b is None else b.reshape(-1).tolist() for b in bounds)
    steps_once = (len(node.inputs) < 5 or node.inputs[4] is None) or steps == [1]
    if axes not in ([-1], [last]) or not steps_once:
        return None
    if not upper:
        return node.inputs[0] if starts == [0] and ends == [half] else None
    reaches_end = ends is not None and isinstance(ends[0], int) and ends[0] >= shape[-1]
    return node.inputs[0] if starts == [half] and reaches_end else None


def _sum_of_products(turned: ir.Value, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """sin, cos and the output of x * cos + turned * sin."""
    product = only_user(turned)
    if product is None or product.op_type != "Mul":
        raise Veto("no product with sin follows")
    sine = other_input(product, turned)
    total = only_user(product.outputs[0])
    if sine is None or total is None or total.op_type != "Add" or total.domain != "":
        raise Veto("the product with sin is not added to a product with cos")
    other = producer_of(other_input(total, product.outputs[0]), "Mul")
    if other is None or x not in other.inputs:
        raise Veto("the product with sin is not added to a product with cos")
    cosine = other_input(other, x)
    if cosine is None or scalar_of(cosine) is not None:
        raise Veto("the product with sin is not added to a product with cos")
    return sine, cosine, total.outputs[0]
