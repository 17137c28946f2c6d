"""Where an encoder may be left: the values between two of its blocks.

A block is what surrounds one attention. After it the graph narrows to a single value, the
hidden state, through which everything passes that the attention has computed: a post-dominator of
the attention. The last such value in front of the next attention is the boundary, in post-norm
encoders (BERT) the output of a LayerNormalization, in pre-norm ones (ViT) that of the residual Add.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from irtools.model import subgraphs

__all__ = ["Boundary", "Encoder", "NotAnEncoderError", "find_encoder", "nodes_between"]

_FUSED = frozenset({"Attention", "MultiHeadAttention", "QAttention"})


class NotAnEncoderError(Exception):
    """Why a model cannot be left early."""


@dataclass(frozen=True)
class Boundary:
    """A hidden state [B, S, H] after `depth` blocks."""

    value: ir.Value
    depth: int


@dataclass(frozen=True)
class Encoder:
    """Attributes:
    boundaries: In order of depth; the one after the last block is not among them.
    depth: Blocks in all.
    output: Class scores [B, C].
    """

    boundaries: tuple[Boundary, ...]
    depth: int
    output: ir.Value


def find_encoder(graph: ir.Graph) -> Encoder:
    """Find the blocks of a classifier over a sequence.

    Raises:
        NotAnEncoderError: No such model; says why.
    """
    output = _scores(graph)
    nodes = list(graph)
    if any(True for node in nodes for _ in subgraphs(node)):
        raise NotAnEncoderError("it has control flow already")
    after = _post_dominators(nodes, output)
    anchors = [n for n in nodes if n in after and _is_attention(n)]
    if len(anchors) < 2:
        raise NotAnEncoderError(f"it has {len(anchors)} attention blocks, and leaving takes 2")
    chain = _chain(anchors[0], after)
    found: dict[ir.Value, int] = {}
    for anchor in anchors:
        if anchor in chain:
            continue  # A Softmax over the classes.
        before = set(nodes_between(anchor.inputs, None))
        passed = [value for node in chain if node in before for value in _only_output(node)]
        if passed:
            found.setdefault(passed[-1], len(found) + 1)
    if not found:
        raise NotAnEncoderError("its attention blocks do not follow one another")
    boundaries = tuple(Boundary(value, depth) for value, depth in found.items())
    for boundary in boundaries:
        _check_state(boundary.value, output)
    return Encoder(boundaries, len(boundaries) + 1, output)


def nodes_between(ends: Iterable[ir.Value | None], cut: ir.Value | None) -> Sequence[ir.Node]:
    """Return the nodes that `ends` need, in order, without those that only `cut` needs."""
    found: set[ir.Node] = set()
    pending = [value for value in ends if value is not None and value is not cut]
    while pending:
        node = pending.pop().producer()
        if node is None or node in found:
            continue
        found.add(node)
        pending.extend(v for v in node.inputs if v is not None and v is not cut)
    if not found:
        return ()
    graph = next(iter(found)).graph
    assert graph is not None
    return [node for node in graph if node in found]


def _scores(graph: ir.Graph) -> ir.Value:
    if len(graph.outputs) != 1:
        names = ", ".join(str(value.name) for value in graph.outputs)
        raise NotAnEncoderError(f"it has the outputs {names}; expected class scores alone")
    (output,) = graph.outputs
    if output.shape is None or len(output.shape) != 2:
        raise NotAnEncoderError(
            f"its output {output.name!r} has the shape {output.shape}, expected [batch, classes]"
        )
    if not isinstance(output.shape[1], int) or output.shape[1] < 2:
        raise NotAnEncoderError(
            f"its output {output.name!r} has no fixed number of classes above 1"
        )
    return output


def _only_output(node: ir.Node) -> list[ir.Value]:
    """The output that is read, where it is one: then it narrows the graph as the node does."""
    read = [value for value in node.outputs if value.uses()]
    return read if len(read) == 1 else []


def _check_state(value: ir.Value, output: ir.Value) -> None:
    shape = value.shape
    if shape is not None and len(shape) != 3:
        raise NotAnEncoderError(
            f"the state {value.name!r} between blocks has the shape {shape}, "
            "expected [batch, sequence, hidden]"
        )
    if shape is not None and output.shape is not None and shape[0] == 1 != output.shape[0]:
        raise NotAnEncoderError(
            f"the state {value.name!r} between blocks has the tokens of all texts in one row, as "
            "unpad writes them"
        )


def _is_attention(node: ir.Node) -> bool:
    if node.op_type in _FUSED:
        return True
    return node.op_type == "Softmax" and _reaches_matmul(node)


def _reaches_matmul(node: ir.Node, steps: int = 4) -> bool:
    """Whether what a Softmax makes is soon multiplied, as attention weights are."""
    values = list(node.outputs)
    for _ in range(steps):
        users = [use.node for value in values for use in value.uses()]
        if any(user.op_type in ("MatMul", "FusedMatMul", "Einsum") for user in users):
            return True
        values = [value for user in users for value in user.outputs]
    return False


def _post_dominators(nodes: Sequence[ir.Node], output: ir.Value) -> dict[ir.Node, ir.Node | None]:
    """Return for each node that `output` needs the next node that every path to it passes.

    One sweep is enough, because the graph has no cycles (Cooper, Harvey and Kennedy 2001).
    """
    last = output.producer()
    if last is None:
        raise NotAnEncoderError(f"its output {output.name!r} is computed by no node")
    order = {node: index for index, node in enumerate(nodes)}
    after: dict[ir.Node, ir.Node | None] = {last: None}
    for node in reversed(nodes):
        users = {u.node for v in node.outputs for u in v.uses() if u.node in after}
        if node is last or not users:
            continue
        common: ir.Node | None = None
        for user in users:
            common = user if common is None else _meet(common, user, after, order)
        after[node] = common
    return after


def _meet(
    a: ir.Node, b: ir.Node, after: dict[ir.Node, ir.Node | None], order: dict[ir.Node, int]
) -> ir.Node:
    while a is not b:
        if order[a] < order[b]:
            following = after[a]
            assert following is not None
            a = following
        else:
            following = after[b]
            assert following is not None
            b = following
    return a


def _chain(start: ir.Node, after: dict[ir.Node, ir.Node | None]) -> list[ir.Node]:
    """Return the nodes that everything from `start` passes, in order."""
    chain = []
    node = after[start]
    while node is not None:
        chain.append(node)
        node = after[node]
    return chain
