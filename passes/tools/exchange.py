"""Models as messages: handed to a tool, and taken back with what callers rely on unchanged."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from irtools.editing import RULE
from irtools.errors import IrtoolsError, UnsupportedError
from irtools.model import Interface, Model, iter_nodes, opset_of, raise_opset

__all__ = ["adopt", "hand_over", "mark_new_nodes", "take_back"]

_MOST_BYTES = 2**31 - 2**24
"""A message ends at 2 GiB, and the tool has to write the graph into it as well."""


def hand_over(model: ir.Model, tool: str, opset: int = 0) -> onnx.ModelProto:
    """Return a model as a message for a tool.

    Args:
        model: Stays as it is.
        tool: Its name, for messages.
        opset: The opset that it needs at least; the message is raised to it.

    Raises:
        UnsupportedError: It is too large for one, has weights that callers may replace, or cannot
            be raised.
    """
    size = Model(model).weight_bytes
    if size > _MOST_BYTES:
        raise UnsupportedError(
            f"{tool} takes models of less than 2 GiB, this one has weights of {size / 2**30:.1f} "
            "GiB; int8 and int4 have no such limit"
        )
    replaced = Interface.of(model).overridable
    if replaced:
        raise UnsupportedError(
            f"{tool} would quantize weights that callers may replace, since they are inputs too: "
            f"{', '.join(replaced)}"
        )
    raised = model.clone()
    change = raise_opset(raised, opset)
    if change.reason:
        raise UnsupportedError(
            f"{tool} needs opset {opset}, the model has {change.before} and cannot be raised: "
            f"{change.reason}"
        )
    message = Model(raised).to_proto()
    _name_nodes(message.graph.node)
    return message


def take_back(model: ir.Model, message: onnx.ModelProto, tool: str) -> tuple[str, ...]:
    """Give a model the graph that a tool made of it; return notes for the report.

    Inputs, outputs and metadata stay as callers know them; new nodes say what made them.

    Raises:
        UnsupportedError: The tool renamed inputs or outputs, or made a model that is not sound.
    """
    message.ir_version = max(message.ir_version, model.ir_version)
    try:
        made = Model.from_proto(message).ir
    except IrtoolsError as error:
        raise UnsupportedError(f"{tool} made a model that is not sound: {error}") from error
    _restore_interface(model, made, tool)
    known = {node.name for node in iter_nodes(model)}
    before = opset_of(model)
    adopt(model, made)
    mark_new_nodes(model, known, tool)
    after = opset_of(model)
    return () if after == before else (f"opset raised from {before} to {after}",)


def adopt(model: ir.Model, made: ir.Model) -> None:
    """Give a model the graph and the functions of another one, which is given up."""
    model.graph = made.graph
    model.functions.clear()
    model.functions.update(made.functions)
    model.ir_version = made.ir_version


def mark_new_nodes(model: ir.Model, known: Iterable[str | None], tool: str) -> None:
    """Note at every node whose name is not known what made it."""
    old = frozenset(known)
    for node in iter_nodes(model):
        if node.name not in old:
            node.metadata_props.setdefault(RULE, tool)


def _restore_interface(model: ir.Model, made: ir.Model, tool: str) -> None:
    for kind in ("inputs", "outputs"):
        old, new = getattr(model.graph, kind), getattr(made.graph, kind)
        names, found = [v.name for v in old], [v.name for v in new]
        if names != found:
            raise UnsupportedError(
                f"{tool} changed the {kind} from {', '.join(names)} to {', '.join(found)}"
            )
        for before, after in zip(old, new, strict=True):
            after.type, after.shape = before.type, before.shape
            after.metadata_props.update(before.metadata_props)
    made.graph.name, made.graph.doc_string = model.graph.name, model.graph.doc_string
    made.graph.metadata_props.clear()
    made.graph.metadata_props.update(model.graph.metadata_props)


def _name_nodes(nodes: Iterable[onnx.NodeProto]) -> None:
    """Give nodes without a name that of their output: tools choose nodes by name."""
    for node in nodes:
        if not node.name and node.output:
            node.name = node.output[0]
