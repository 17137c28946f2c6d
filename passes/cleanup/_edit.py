"""Edits that all clean-up passes share, and what they ask of a node before they touch it."""

from __future__ import annotations

import onnx_ir as ir

from irtools.model import subgraphs
from irtools.operators import find_op

__all__ = ["can_substitute", "is_deterministic", "substitute"]

_TRAINING_OPS = frozenset({"Dropout", "BatchNormalization"})


def is_deterministic(node: ir.Node) -> bool:
    """Whether a node is a standard operator that gives one answer for one input.

    Control flow, functions and operators of other domains are opaque, so the answer is no.
    """
    op = find_op(node.domain, node.op_type)
    if node.domain != "" or op is None or op.random or _may_train(node):
        return False
    refers = any(attribute.is_ref() for attribute in node.attributes.values())
    return not refers and not any(True for _ in subgraphs(node))


def _may_train(node: ir.Node) -> bool:
    if node.op_type not in _TRAINING_OPS:
        return False
    return len(node.inputs) > 2 if node.op_type == "Dropout" else len(node.outputs) > 1


def can_substitute(old: ir.Value, new: ir.Value) -> bool:
    """Whether `new` can stand wherever `old` is used, and for its public name.

    A graph output keeps its name, and a value has one name: so `new` must then be an ordinary
    value made in the same graph. An input, an outer value or another output cannot be an
    output's new producer; Scan and Loop bodies in particular would change their meaning.
    """
    if old is new:
        return False
    if not old.is_graph_output():
        return True
    maker, former = new.producer(), old.producer()
    return (
        maker is not None
        and former is not None
        and maker.graph is former.graph
        and not new.is_graph_output()
    )


def substitute(old: ir.Value, new: ir.Value) -> None:
    """Use `new` wherever `old` was; `can_substitute` must hold. The old node stays, unused."""
    if old.is_graph_output():
        name, old.name = old.name, None
        new.name = name
        new.type = new.type if old.type is None else old.type
        new.shape = new.shape if old.shape is None else old.shape
    old.replace_all_uses_with(new, replace_graph_outputs=True)
