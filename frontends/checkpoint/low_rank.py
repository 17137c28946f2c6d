"""Low-rank adapters next to the weights of an exported model, as optional inputs.

    y = x W   ->   y = x W + (x A) B        A [K, r], B [r, N], the factor alpha / r in B

A and B are graph inputs with a default of zeros, so the model without an adapter is the base, and
no pass takes them for weights: W is quantized and A and B are not. Products that read the same x
share one A, [K, n r], whose result is split (one product for query, key and value): a decoder
spends as long on starting so small a product as on computing it. Each keeps a B of its own: one
product for all of them, by B as blocks of [n r, N1 + N2 ..], starts fewer nodes but reads n times
as much, and takes as long or longer. Nor is a Gemm that adds what the base gives worth it: it takes
matrices, and the Reshapes around it take about as long as the Add. Factors in float16 with a Cast,
in 8 bits with DynamicQuantizeMatMul, or A as [n r, K] with a product that transposes it, take as
long as these on ONNX Runtime: the start of so many nodes is half of what they cost. The rank is an
open size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.analysis.adapters import ADAPTERS, down_name, up_name
from irtools.analysis.provenance import module_of
from irtools.editing import Editor, Place
from irtools.errors import UnsupportedError
from irtools.words import counted

__all__ = ["Branch", "LowRank", "attach_inputs", "packed", "settle"]

_RANK = "adapter_rank"
_SPLIT_COUNTS_OUTPUTS = 18


@dataclass(frozen=True)
class LowRank:
    """What an adapter adds to one linear layer.

    Attributes:
        down: A, [K, r].
        up: B with the factor of the adapter, [r, N].
    """

    down: np.ndarray
    up: np.ndarray


@dataclass(frozen=True)
class Branch:
    """Linear layers that read the same value.

    Attributes:
        down: Input with A of all of them, [K, n r].
        modules: Their names, in the order in which A has them.
        width: K.
        outputs: N of each.
    """

    down: str
    modules: tuple[str, ...]
    width: int
    outputs: tuple[int, ...]

    def up(self, module: str) -> str:
        """Return the input with B of a module."""
        return up_name(module)


def attach_inputs(model: ir.Model, modules: Sequence[str], where: str) -> tuple[Branch, ...]:
    """Add the inputs for some linear layers in place.

    Args:
        modules: Names of the layers, as torch has them.
        where: What a message calls the model.

    Raises:
        UnsupportedError: A layer is not one product in the graph.
    """
    editor = Editor(model, "adapters")
    found = dict(_products(model, frozenset(modules)))
    absent = [name for name in modules if name not in found]
    if absent:
        raise UnsupportedError(
            f"{where} computes {counted(len(absent), 'layer')} of the adapter in another way than "
            f"by one product, {absent[0]!r} first: merge the adapter"
        )
    groups: dict[ir.Value, list[str]] = {}
    for name, node in found.items():
        read = node.inputs[0]
        assert read is not None
        groups.setdefault(read, []).append(name)
    opset = model.graph.opset_imports.get("", 0)
    branches = tuple(_attach(editor, opset, found, names) for names in groups.values())
    model.metadata_props[ADAPTERS] = "inputs"
    return branches


def packed(branches: Sequence[Branch], factors: Mapping[str, LowRank]) -> dict[str, np.ndarray]:
    """Return what an adapter gives to the inputs; layers that it leaves alone get nothing.

    Within a branch all layers have the largest rank, filled with zeros.

    Args:
        branches: As `attach_inputs` made them.
        factors: By module.
    """
    made: dict[str, np.ndarray] = {}
    for branch in branches:
        ranks = [factors[name].down.shape[1] for name in branch.modules if name in factors]
        if not ranks:
            continue
        rank = max(ranks)
        down = np.zeros((branch.width, len(branch.modules), rank), np.float32)
        for index, (name, width) in enumerate(zip(branch.modules, branch.outputs, strict=True)):
            up = np.zeros((rank, width), np.float32)
            if name in factors:
                own = factors[name]
                down[:, index, : own.down.shape[1]] = own.down
                up[: own.up.shape[0]] = own.up
            made[branch.up(name)] = up
        made[branch.down] = down.reshape(branch.width, -1)
    return made


def settle(model: ir.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Make an adapter the default of its inputs, so that the model holds it."""
    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.tensor(array, name=name)
    model.metadata_props[ADAPTERS] = "constants"


def _products(model: ir.Model, modules: frozenset[str]) -> Iterator[tuple[str, ir.Node]]:
    for node in model.graph:
        if node.op_type in ("MatMul", "Gemm") and _is_weight(node.inputs[1]):
            name = module_of(node)
            if name in modules:
                yield name, node


def _is_weight(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and not value.is_graph_input()


def _attach(
    editor: Editor, opset: int, found: Mapping[str, ir.Node], names: Sequence[str]
) -> Branch:
    nodes = [found[name] for name in names]
    read = nodes[0].inputs[0]
    widths = [_sizes(node) for node in nodes]
    branch = Branch(down_name(names), tuple(names), widths[0][0], tuple(n for _, n in widths))
    count = len(names)
    down = _input(editor, branch.down, (branch.width, count), (branch.width, _down_rank(count)))
    place = Place(editor, nodes[0])
    low = place.value("MatMul", [read, down])
    parts = [low]
    if count > 1:
        form = {"num_outputs": count} if opset >= _SPLIT_COUNTS_OUTPUTS else {}
        parts = list(place.node("Split", [low], {"axis": -1, **form}, count))
    for name, node, part, width in zip(names, nodes, parts, branch.outputs, strict=True):
        up = _input(editor, branch.up(name), (1, width), (_RANK, width))
        _add(editor, node, part, up)
    return branch


def _add(editor: Editor, node: ir.Node, low: ir.Value, up: ir.Value) -> None:
    """Add `low @ up` to what a product gives."""
    (product,) = node.outputs
    users = tuple(product.uses())
    graph = node.graph
    assert graph is not None
    inner = editor.node("MatMul", [low, up], origin=node)
    total = editor.node("Add", [product, inner.outputs[0]], origin=node)
    graph.insert_after(node, [inner, total])
    total.outputs[0].shape, total.outputs[0].type = product.shape, product.type
    for user, index in users:
        user.replace_input_with(index, total.outputs[0])
    if product.is_graph_output():
        editor.replace_output(product, total.outputs[0], f"{product.name}/base")


def _sizes(node: ir.Node) -> tuple[int, int]:
    weight = node.inputs[1]
    assert weight is not None and weight.shape is not None
    first, last = (int(size) for size in weight.shape.numpy())
    turned = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    return (last, first) if turned else (first, last)


def _down_rank(count: int) -> str:
    return _RANK if count == 1 else f"{count}*{_RANK}"


def _input(
    editor: Editor, name: str, default: tuple[int, int], shape: tuple[int | str, int | str]
) -> ir.Value:
    value = editor.constant(name, np.zeros(default, np.float32))
    value.shape = ir.Shape(shape)
    editor.graph.inputs.append(value)
    return value
