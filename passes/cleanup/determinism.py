"""What clean-up passes ask of a node before they touch it."""

from __future__ import annotations

import onnx_ir as ir

from irtools.model import subgraphs
from irtools.operators import find_op

__all__ = ["is_deterministic"]

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
