"""Products of one input by several matrices in blocks as one.

    x @ Wq, x @ Wk, x @ Wv  ->  Split(x @ [Wq Wk Wv])

Query, key and value read one input, and so do gate and up of a gated layer. The kernel quantizes
that input at each product, and a decoder that writes one token spends as long on starting small
products as on computing some of them. Every column keeps its codes and scales, so every sum has the
terms that it had. What is added to each result goes along: a bias, or the product of block sums by
the minima of blocks.

Made last, so that passes and their decisions know each product by its name. Not made by default: no
whole model was seen to gain 1 % (`python -m benchmarks run merged`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.backends.block_tables import DOMAIN
from irtools.editing import (
    Editor,
    Rule,
    Veto,
    attribute_values,
    constant_of,
    only_user,
    require,
    require_constant,
)

__all__ = ["MergeProducts"]

_SIZES_AS_INPUT = 13
"""The opset from which Split takes its sizes as an input."""

_MOST = 4
"""Products in one. A decoder's keys and values of all layers read the encoder's states: as one they
would all be in memory at once."""

_LAST, _SAME = -1, None

_AXES: Mapping[tuple[str, str], tuple[int | None, ...]] = MappingProxyType(
    {
        ("", "Add"): (_LAST, _LAST),
        ("", "Cast"): (_LAST,),
        ("", "DequantizeLinear"): (_LAST, _LAST, _LAST),
        ("", "MatMul"): (_SAME, _LAST),
        ("", "Mul"): (_LAST, _LAST),
        (DOMAIN, "MatMulNBits"): (_SAME, 0, 0, 0, _SAME, 0),
    }
)
"""Operators whose result has the channels as its last axis, to the axis of them in each input."""


@dataclass(frozen=True, eq=False)
class _Joined:
    """Constants one after the other along an axis."""

    values: tuple[ir.Value, ...]
    axis: int

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(_shape(value)[self.axis] for value in self.values)


@dataclass(frozen=True, eq=False)
class _Made:
    """One node in place of several."""

    nodes: tuple[ir.Node, ...]
    inputs: tuple[_Joined | _Made | ir.Value | None, ...]

    @property
    def parts(self) -> Iterator[_Made | _Joined]:
        yield self
        for part in self.inputs:
            if isinstance(part, _Made):
                yield from part.parts
            elif isinstance(part, _Joined):
                yield part


_Tree: TypeAlias = "_Joined | _Made | ir.Value | None"
"""How a value for all channels is made; one that all have in common stands for itself."""


@dataclass(frozen=True)
class _Found:
    """Results of products, and how all of them are made as one.

    Attributes:
        results: [.., N] each.
        channels: N of each.
    """

    results: tuple[ir.Value, ...]
    channels: tuple[int, ...]
    tree: _Made


class MergeProducts(Rule[_Found]):
    """x @ Wq, x @ Wk, x @ Wv  ->  Split(x @ [Wq Wk Wv])

    where a weight is in blocks, the same operators with the same attributes make each result, and
    no other node reads what is merged.

    Args:
        opset: Of the model.
        in_blocks: Whether a weight must be in blocks.
    """

    name = "merged-products"
    anchors = ("MatMul", f"{DOMAIN}::MatMulNBits")

    def __init__(self, opset: int, *, in_blocks: bool = True) -> None:
        self._opset = opset
        self._in_blocks = in_blocks

    def find(self, anchor: ir.Node) -> _Found:
        x = anchor.inputs[0]
        if x is None or self._opset < _SIZES_AS_INPUT:
            raise Veto("no such Split", named=False)
        readers = dict.fromkeys(use.node for use in x.uses() if use.idx == 0)
        alike = [n for n in readers if _kind(n) == _kind(anchor) and not _is_merged(n)]
        near = [node.outputs[0] for node in alike if node.graph is anchor.graph][:_MOST]
        require(anchor.outputs[0] in near and len(near) > 1, "no other product", named=False)
        try:
            found = _found(tuple(_sum_of(product) for product in near))
        except Veto:
            found = _found(tuple(near))
        nodes = (part.nodes[0] for part in found.tree.parts if isinstance(part, _Made))
        fits = not self._in_blocks or any(_is_in_blocks(node) for node in nodes)
        require(fits, "weights are not in blocks", named=False)
        return found

    def build(self, editor: Editor, anchor: ir.Node, found: _Found) -> None:
        graph = anchor.graph
        assert isinstance(graph, ir.Graph)
        whole = _Writer(editor, anchor, graph).value(found.tree)
        assert whole is not None
        sizes = np.array(found.channels, np.int64)
        inputs = [whole, editor.constant(f"{whole.name}_sizes", sizes, graph=graph)]
        replaced = found.tree.nodes
        split = editor.node(
            "Split",
            inputs,
            {"axis": -1},
            outputs=len(replaced),
            origin=anchor,
            replaces=replaced,
        )
        graph.insert_before(anchor, split)
        for node, part in zip(replaced, split.outputs, strict=True):
            editor.substitute(node.outputs[0], part)
        editor.drop_unread(*replaced)


def _kind(node: ir.Node) -> tuple[str, str]:
    return node.domain, node.op_type


def _sum_of(product: ir.Value) -> ir.Value:
    """Return the sum that is all that a product is read by, else the product."""
    user = only_user(product)
    return user.outputs[0] if user is not None and _kind(user) == ("", "Add") else product


def _is_merged(node: ir.Node) -> bool:
    user = only_user(_sum_of(node.outputs[0]))
    return user is not None and _kind(user) == ("", "Split")


def _found(results: tuple[ir.Value, ...]) -> _Found:
    """Return how results are made as one.

    Raises:
        Veto: They are not, or nothing is gained.
    """
    tree = _Plan().tree(results, _LAST)
    if not isinstance(tree, _Made) or len(set(results)) < len(results):
        raise Veto("results of one node", named=False)
    parts = list(tree.parts)
    made = [part for part in parts if isinstance(part, _Made)]
    inside = {node for part in made for node in part.nodes}
    values = {v for node in inside for v in node.outputs} - set(results)
    values |= {v for part in parts if isinstance(part, _Joined) for v in part.values}
    require(all(_read_in(value, inside) for value in values), "read elsewhere", named=False)
    sizes = {part.sizes for part in parts if isinstance(part, _Joined)}
    require(len(sizes) == 1, "channels differ", named=False)
    return _Found(results, sizes.pop(), tree)


def _is_in_blocks(node: ir.Node) -> bool:
    return node.op_type == "MatMulNBits" or node.attributes.get_int("block_size", 0) > 0


def _read_in(value: ir.Value, nodes: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())


class _Plan:
    """Finds how values are made as one; what is read twice is made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[ir.Value | None, ...], _Tree] = {}

    def tree(self, values: tuple[ir.Value | None, ...], axis: int | None) -> _Tree:
        """Return how values are made as one along an axis; None: they must be the same.

        Raises:
            Veto: They are made in different ways.
        """
        first = values[0]
        if axis is _SAME and all(value is first for value in values):
            return first
        numbers = {_number(value) for value in values}
        if len(numbers) == 1 and () not in numbers:
            return first
        found = [value for value in values if value is not None]
        require(axis is not _SAME and len(found) == len(values), "not alike", named=False)
        assert axis is not None
        if values not in self._known:
            constant = constant_of(first) is not None
            make = self._joined if constant else self._made
            self._known[values] = make(tuple(found), axis)
        return self._known[values]

    def _joined(self, values: tuple[ir.Value, ...], axis: int) -> _Joined:
        require(len(set(values)) == len(values), "a weight that they share", named=False)
        forms = set()
        for tensor in map(constant_of, values):
            if tensor is None or tensor.size == 1:
                raise Veto("not a tensor each", named=False)
            shape = list(tensor.shape.numpy())
            shape[axis] = -1
            forms.add((tensor.dtype, *shape))
        require(len(forms) == 1, "not of one shape and type", named=False)
        return _Joined(values, axis)

    def _made(self, values: tuple[ir.Value, ...], axis: int) -> _Made:
        nodes = tuple(node for value in values if (node := value.producer()) is not None)
        require(len(nodes) == len(values) and axis == _LAST, "not made alike", named=False)
        axes = _AXES.get(_kind(nodes[0]))
        require(
            axes is not None and len({_form(node) for node in nodes}) == 1,
            "other forms",
            named=False,
        )
        require(not _is_by_row(nodes[0]), "scales of rows", named=False)
        assert axes is not None
        inputs = zip(*(node.inputs for node in nodes), strict=True)
        return _Made(nodes, tuple(map(self.tree, inputs, axes)))


def _form(node: ir.Node) -> tuple[object, ...]:
    """Return what nodes must have in common to be one."""
    attributes = sorted((n, str(a.value)) for n, a in node.attributes.items() if n != "N")
    return (*_kind(node), node.graph, len(node.inputs), len(node.outputs), *attributes)


def _is_by_row(node: ir.Node) -> bool:
    """Whether scales of a DequantizeLinear belong to rows of a weight, or blocks of columns."""
    axis = node.attributes.get_int("axis", 1)
    in_blocks = node.attributes.get_int("block_size", 0) > 0
    return node.op_type == "DequantizeLinear" and (axis == 0) != in_blocks


def _number(value: ir.Value | None) -> tuple[object, ...]:
    """Return a number with its type and rank; empty for what is not one."""
    tensor = constant_of(value)
    if value is None:
        return (None,)
    if tensor is None or tensor.size != 1:
        return ()
    return (tensor.dtype, tensor.shape.rank(), tensor.tobytes())


def _shape(value: ir.Value) -> tuple[int, ...]:
    tensor = constant_of(value)
    assert tensor is not None
    return tuple(tensor.shape.numpy())


class _Writer:
    """Makes the nodes and weights of a tree, each once."""

    def __init__(self, editor: Editor, anchor: ir.Node, graph: ir.Graph) -> None:
        self._editor, self._anchor, self._graph = editor, anchor, graph
        self._made: dict[_Joined | _Made, ir.Value] = {}

    def value(self, tree: _Tree) -> ir.Value | None:
        if tree is None or isinstance(tree, ir.Value):
            return tree
        if tree not in self._made:
            self._made[tree] = self._join(tree) if isinstance(tree, _Joined) else self._node(tree)
        return self._made[tree]

    def _join(self, tree: _Joined) -> ir.Value:
        tensors = [require_constant(value) for value in tree.values]
        stem = f"{tree.values[0].name}_merged"
        return self._editor.constant(stem, _concatenated(tensors, tree.axis), graph=self._graph)

    def _node(self, tree: _Made) -> ir.Value:
        first = tree.nodes[0]
        attributes = attribute_values(first)
        if "N" in attributes:
            attributes["N"] = sum(node.attributes["N"].as_int() for node in tree.nodes)
        inputs = [self.value(part) for part in tree.inputs]
        outputs = {f"{first.outputs[0].name}_merged": first.outputs[0].dtype}
        return self._editor.before(
            self._anchor, first.op_type, inputs, attributes, domain=first.domain, outputs=outputs
        )


def _concatenated(
    tensors: Sequence[ir.TensorProtocol], axis: int
) -> np.ndarray | ir.TensorProtocol:
    """Return tensors one after the other; codes of 4 bits stay two to a byte."""
    dtype, shapes = tensors[0].dtype, [tensor.shape.numpy() for tensor in tensors]
    if dtype.bitwidth != 4 or axis != _LAST or any(shape[-1] % 2 for shape in shapes):
        return np.concatenate([tensor.numpy() for tensor in tensors], axis)
    rows = [
        np.frombuffer(tensor.tobytes(), np.uint8).reshape(*shape[:-1], shape[-1] // 2)
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]
    size = sum(shape[-1] for shape in shapes)
    packed = np.concatenate(rows, axis)
    return ir.PackedTensor(packed, dtype, shape=ir.Shape([*shapes[0][:-1], size]))
