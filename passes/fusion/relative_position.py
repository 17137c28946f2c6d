"""Attention scores by relative position (DeBERTa), without a gather for every pair of tokens.

    A[i, j] = x_i . p[f(i - j)]        x: [S,D]  p: [N,D]  f: distance -> row, e.g. log buckets

is written as x p^T [S,N] and GatherElements with an index [S,S]. Only 2S - 1 distances occur, so
the rows of p are chosen first, R[e] = p[f(S - 1 - e)], and x R^T [S,2S] holds A[i, j] at
[i, j - i + S - 1]: read row by row with a stride of 2S - 1 instead of 2S, that is column S - 1 + j
of row i (the shift of Transformer-XL, Dai et al. 2019, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim
from irtools.editing import Editor, Place, only_user, producer_of, require, scalar_of
from irtools.passes.fusion.base import Fusion, FusionPass, FusionRule
from irtools.passes.fusion.constants import evaluate
from irtools.passes.fusion.distance import Distance, find_distance
from irtools.passes.fusion.operand import before_joining
from irtools.passes.fusion.sizes import size_of

__all__ = ["FuseRelativePosition"]

_SWAP = (0, 2, 1)
_FAR = 2**31 - 1


@dataclass(frozen=True)
class _Scores:
    """Gathered scores.

    Attributes:
        x: [B,H,S,D].
        table: p, [H,N,D].
        length: S.
        scale: A Mul or Div by a number that follows, if any.
    """

    x: ir.Value
    table: ir.Value
    length: Dim
    index: Distance
    scale: ir.Node | None


class _RelativePosition(FusionRule[_Scores]):
    anchors = ("GatherElements",)

    def find(self, anchor: ir.Node) -> _Scores:
        axis = anchor.attributes.get_int("axis", 0)
        product = producer_of(anchor.inputs[0], "MatMul")
        rank = self.facts.rank(anchor.inputs[0])
        is_last = rank == 3 and axis in (-1, 2)
        require(product is not None and is_last, "not scores by position", named=False)
        assert product is not None
        joined = before_joining(product.inputs[0], (0, 1, 2), self.facts)
        require(joined is not None, "x is not [B,H,S,D] with its first axes joined")
        table = self._table(product.inputs[1])
        require(table is not None, "the position embeddings are not repeated for each batch")
        assert joined is not None and table is not None
        x, _ = joined
        shape, rows = self.facts.shape(x), self.facts.shape(table)
        assert shape is not None and rows is not None
        require(rows[0] == shape[1], "the position embeddings have another number of heads")
        length = shape[2]
        index = find_distance(anchor.inputs[1], length, self.facts)
        return _Scores(x, table, length, index, _scale_after(anchor))

    def _table(self, value: ir.Value | None) -> ir.Value | None:
        """p [H,N,D] of Transpose(Tile(p, [B,1,1]))."""
        transpose = producer_of(value, "Transpose")
        if transpose is None or tuple(transpose.attributes.get_ints("perm") or ()) != _SWAP:
            return None
        tile = producer_of(transpose.inputs[0], "Tile")
        if tile is None:
            return None
        source = self.facts.shape(tile.inputs[0])
        times = self.facts.integers(tile.inputs[1])
        if source is None or times is None or len(source) != 3 or list(times[1:]) != [1, 1]:
            return None
        return tile.inputs[0]

    def build(self, editor: Editor, anchor: ir.Node, found: _Scores) -> None:
        last = producer_of(anchor.inputs[0])
        make = Place(editor, anchor, replaces=(anchor,) if last is None else (last, anchor))
        table = self._scaled(make, found)
        size = size_of(make, found.x, 2, found.length)
        distances = _distances(make, size, found.length)
        rows = make.shared("Gather", [table, found.index.of(make, distances)], {"axis": 1})
        columns = make.shared("Transpose", [rows], {"perm": list(_SWAP)})
        scores = make.shared("MatMul", [found.x, columns])
        shifted = _shifted(make, scores, size)
        batch, heads, *_ = self.facts.shape(found.x) or (1, 1)
        joined = make.shared(
            "Mul", [size_of(make, found.x, 0, batch), size_of(make, found.x, 1, heads)]
        )
        target = make.shared("Concat", [joined, size, size], {"axis": 0})
        editor.substitute(anchor.outputs[0], make.value("Reshape", [shifted, target]))
        if found.scale is not None:
            source = found.scale.inputs[0]
            assert source is not None
            editor.forward(found.scale.outputs[0], source)
        editor.drop_unread(found.scale, anchor)

    def _scaled(self, make: Place, found: _Scores) -> ir.Value:
        """p times the factor that follows, as a constant where it is one."""
        array = evaluate(found.table)
        node = found.scale
        number = None if node is None else scalar_of(node.inputs[1])
        if array is None:
            if node is None:
                return found.table
            return make.shared(node.op_type, [found.table, node.inputs[1]])
        if number is not None and node is not None:
            factor = np.asarray(number, array.dtype)
            array = array * factor if node.op_type == "Mul" else array / factor
        return make.constant(array)


@dataclass(frozen=True)
class FuseRelativePosition(FusionPass):
    """Compute DeBERTa's scores by relative position without GatherElements.

        GatherElements(x p^T, f(i - j))  ->  rows p[f(d)] for each distance d, a product, a shift

    which multiplies with 2S rows in place of all N (512 in DeBERTa-v3), makes indices for
    distances instead of pairs, and does not repeat p for the batch. Position embeddings that
    are projected by the weights of a layer do not depend on the input: they are computed once
    and stored (for each layer twice N x hidden numbers). Standard operators; the opset stays.
    Main graph and nested subgraphs.
    """

    name: ClassVar[str] = "fuse-relative-position"
    counters: ClassVar = {
        "num-fused-relative-position": "scores by relative position rewritten",
        "num-unfused-relative-position": "gathered scores that stayed, each named with its reason",
    }
    fusion: ClassVar[Fusion] = Fusion(
        "relative-position", "gathered scores", "", 13, _RelativePosition
    )


def _scale_after(anchor: ir.Node) -> ir.Node | None:
    """A Mul or Div by a number right behind, or behind a Transpose."""
    user = only_user(anchor.outputs[0])
    if user is not None and user.op_type == "Transpose":
        user = only_user(user.outputs[0])
    if user is None or user.op_type not in ("Div", "Mul") or user.domain != "":
        return None
    if scalar_of(user.inputs[1]) is None or user.outputs[0].is_graph_output():
        return None
    return user


def _distances(make: Place, size: ir.Value, length: Dim) -> ir.Value:
    """S - 1, ..., 0, ..., -S: every distance of two tokens, and one more."""
    one = make.constant(np.asarray(1, np.int64))
    number = make.shared("Squeeze", [size, make.integers([0])])
    start = make.shared("Sub", [number, one])
    end = make.shared("Sub", [make.shared("Neg", [number]), one])
    step = make.constant(np.asarray(-1, np.int64))
    return make.shared("Range", [start, end, step], key=("distances", length))


def _shifted(make: Place, scores: ir.Value, size: ir.Value) -> ir.Value:
    """[B,H,S,S] of scores [B,H,S,2S] by distance."""
    one, zero = make.integers([1]), make.integers([0])
    stride = make.shared("Sub", [make.shared("Add", [size, size]), one])
    flat = make.shared("Reshape", [scores, make.integers([0, 0, -1])])
    end = make.shared("Mul", [size, stride])
    cut = make.shared("Slice", [flat, zero, end, make.integers([2])])
    target = make.shared("Concat", [zero, zero, size, stride], {"axis": 0})
    grid = make.shared("Reshape", [cut, target])
    start = make.shared("Sub", [size, one])
    return make.shared("Slice", [grid, start, make.integers([_FAR]), make.integers([3])])
