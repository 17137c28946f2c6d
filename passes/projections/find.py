"""Which products read one input, and how far they can be one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from irtools.editing import Editor, Rule, Veto, constant_of, only_user, other_input, require
from irtools.passes.projections.tree import BLOCKS, Joined, Made, plan_tree
from irtools.passes.projections.write import write

__all__ = ["Found", "MergeRule"]

_MOST = 4
"""Products in one. A decoder's keys and values of all layers read the encoder's states: as one they
would all be in memory at once."""

_AFTER = ("Add", "Sub", "Mul", "Cast")
"""What may follow products before they are taken apart again."""

_WEIGHT = 1
"""Input of every product that is its weight."""


@dataclass(frozen=True)
class Found:
    """Results of products, and how all of them are made as one.

    Attributes:
        results: [.., N] each.
        columns: N of each.
        rows: K, the numbers that each column multiplies.
        form: How weights are stored, in words.
        tree: What makes them all.
    """

    results: tuple[ir.Value, ...]
    columns: tuple[int, ...]
    rows: int
    form: str
    tree: Made

    @property
    def kind(self) -> str:
        """What such products have in common: they are timed and decided together."""
        return f"{' + '.join(map(str, self.columns))} columns from {self.rows}, {self.form}"

    @property
    def work(self) -> int:
        """Multiplications for each row of the input."""
        return self.rows * sum(self.columns)


class MergeRule(Rule[Found]):
    """x Wq + bq, x Wk + bk, x Wv + bv  ->  Split(x [Wq Wk Wv] + [bq bk bv])

    Args:
        wanted: Which of them; all by default.
    """

    anchors = ("MatMul", "MatMulInteger", "Gemm", f"{BLOCKS}::MatMulNBits")

    def __init__(self, wanted: Callable[[Found], bool] = lambda found: True) -> None:
        self._wanted = wanted

    def find(self, anchor: ir.Node) -> Found:
        products = _siblings(anchor)
        try:
            found = _longest(tuple(product.outputs[0] for product in products))
        except Veto as veto:
            # Said once for all of them.
            if veto.named and anchor is products[0]:
                raise Veto("{}", veto.reason) from None
            raise Veto("as the first of them", named=False) from None
        require(self._wanted(found), "not asked for", named=False)
        return found

    def build(self, editor: Editor, anchor: ir.Node, found: Found) -> None:
        write(editor, anchor, found.tree, found.results, found.columns)


def _siblings(anchor: ir.Node) -> list[ir.Node]:
    """Return the products of one input to which the anchor belongs.

    Raises:
        Veto: There are no others.
    """
    x = anchor.inputs[0]
    if x is None or not _has_weight(anchor):
        raise Veto("not a product with a weight", named=False)
    readers = dict.fromkeys(use.node for use in x.uses() if use.idx == 0)
    alike = [
        node
        for node in readers
        if (node.domain, node.op_type, node.graph) == (anchor.domain, anchor.op_type, anchor.graph)
        and _has_weight(node)
        and not _is_split(node)
    ]
    require(anchor in alike, "taken apart already", named=False)
    first = alike.index(anchor) // _MOST * _MOST
    near = alike[first : first + _MOST]
    require(len(near) > 1, "the only product of its input", named=False)
    return near


def _has_weight(node: ir.Node) -> bool:
    """Whether a product's weight is made of constants alone."""
    weight = node.inputs[_WEIGHT] if len(node.inputs) > _WEIGHT else None
    while weight is not None and constant_of(weight) is None:
        maker = weight.producer()
        if maker is None or maker.op_type not in ("DequantizeLinear", "Mul", "Cast", "Identity"):
            return False
        weight = maker.inputs[0]
    tensor = constant_of(weight)
    return tensor is not None and len(tensor.shape) > 1


def _is_split(node: ir.Node) -> bool:
    """Whether a product is taken apart again, as merged ones are."""
    value = node.outputs[0]
    while (user := only_user(value)) is not None and user.op_type in _AFTER:
        value = user.outputs[0]
    return user is not None and user.op_type == "Split"


def _longest(products: tuple[ir.Value, ...]) -> Found:
    """Return what is made as one, as far down from the products as they go alike.

    Raises:
        Veto: Not even products alone.
    """
    for results in reversed([*_downwards(products)][1:]):
        try:
            return _found(results, plan_tree(results), products)
        except Veto:
            continue
    alone = _found(products, plan_tree(products), products)
    try:
        return _with_some_biases(alone)
    except Veto:
        return alone


def _with_some_biases(alone: Found) -> Found:
    """Return the same with the biases that only some of the products have: others get zeros.

    Raises:
        Veto: None has one.
    """
    adds = [user if _is_bias(user := only_user(v), v) else None for v in alone.results]
    nodes = tuple(node for node in adds if node is not None)
    require(nodes, "no bias", named=False)
    biases = tuple(
        None if node is None else other_input(node, value)
        for node, value in zip(adds, alone.results, strict=True)
    )
    results = tuple(
        value if node is None else node.outputs[0]
        for node, value in zip(adds, alone.results, strict=True)
    )
    return _found(results, Made(nodes, (alone.tree, Joined(biases, -1))), alone.results)


def _is_bias(node: ir.Node | None, product: ir.Value) -> bool:
    if node is None or (node.domain, node.op_type) != ("", "Add"):
        return False
    tensor = constant_of(other_input(node, product))
    return tensor is not None and len(tensor.shape) == 1 and tensor.size > 1


def _downwards(products: tuple[ir.Value, ...]) -> Iterator[tuple[ir.Value, ...]]:
    results = products
    yield results
    while True:
        users = [only_user(value) for value in results]
        kinds = {None if u is None else (u.domain, u.op_type) for u in users}
        if len(kinds) > 1 or None in kinds or len(set(users)) < len(users):
            return
        results = tuple(user.outputs[0] for user in users if user is not None)
        if next(iter(kinds)) not in {("", op) for op in _AFTER}:
            return
        yield results


def _found(results: tuple[ir.Value, ...], tree: Made, products: tuple[ir.Value, ...]) -> Found:
    parts = list(tree.parts)
    inside = {node for part in parts if isinstance(part, Made) for node in part.nodes}
    require({p.producer() for p in products} <= inside, "another product", named=False)
    made = {value for node in inside for value in node.outputs} - set(results)
    require(all(_read_in(v, inside) for v in made), "a result on the way is read elsewhere")
    joined = [part for part in parts if isinstance(part, Joined)]
    weights = {v for part in joined for v in part.values if v is not None}
    require(all(_read_in(v, inside) for v in weights), "other nodes read a weight of theirs too")
    makers = {value.producer() for value in products}
    one = next(part for part in parts if isinstance(part, Made) and part.nodes[0] in makers)
    columns, rows, form = _sizes(one)
    for part in joined:
        require(_is_of(part, columns), "scales or biases that do not fit the columns")
    return Found(results, columns, rows, form, tree)


def _read_in(value: ir.Value, nodes: set[ir.Node]) -> bool:
    return not value.is_graph_output() and all(use.node in nodes for use in value.uses())


def _sizes(product: Made) -> tuple[tuple[int, ...], int, str]:
    """Return columns of each product, rows, and how their weights are stored."""
    first = product.nodes[0]
    if first.op_type == "MatMulNBits":
        columns = tuple(node.attributes["N"].as_int() for node in product.nodes)
        return columns, first.attributes["K"].as_int(), f"{first.attributes['bits'].as_int()} bits"
    weight = product.inputs[_WEIGHT]
    while isinstance(weight, Made):
        weight = weight.inputs[0]
    if not isinstance(weight, Joined) or weight.values[0] is None:
        raise Veto("no weight of their own")
    tensor = constant_of(weight.values[0])
    assert tensor is not None
    columns = tuple(size for size in weight.sizes if size is not None)
    return columns, tensor.size // columns[0], tensor.dtype.name.lower()


def _is_of(part: Joined, columns: tuple[int, ...]) -> bool:
    """Whether the parts are as long as the columns, or all by the same factor longer."""
    pairs = [(s, n) for s, n in zip(part.sizes, columns, strict=True) if s is not None]
    size, count = pairs[0]
    return all(own * count == n * size for own, n in pairs)
