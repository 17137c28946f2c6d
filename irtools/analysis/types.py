"""Element types of tensors whose type is not declared."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import onnx_ir as ir

from irtools.model import MAX_OPSET
from irtools.operators import Op, OutputType, find_op, has_schema, output_type

__all__ = ["TypeSource", "element_type", "type_source"]

_MAX_DEPTH = 64

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype", "output_datatype"})
_CONTROL = frozenset({"If", "Loop", "Scan"})
_DEFAULTS: Mapping[str, ir.DataType] = MappingProxyType(
    dict.fromkeys(
        (
            *("ConstantOfShape", "RandomNormal", "RandomUniform", "SequenceEmpty"),
            *("BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"),
        ),
        ir.DataType.FLOAT,
    )
    | {"Multinomial": ir.DataType.INT32}
)
"""What operators make unless an attribute says another type."""

_ATTRIBUTE_TYPES: Mapping[str, ir.DataType] = MappingProxyType(
    {
        "value_float": ir.DataType.FLOAT,
        "value_floats": ir.DataType.FLOAT,
        "value_int": ir.DataType.INT64,
        "value_ints": ir.DataType.INT64,
        "value_string": ir.DataType.STRING,
        "value_strings": ir.DataType.STRING,
    }
)
"""Spellings of a Constant's value to the type that they make."""


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """Return the element type of a tensor: declared, or followed back through the operators.

    Which input gives an output its type is what the standard's schema says of that output: the
    mask of a Dropout is of another type than its data. Of an operator without a schema it is what
    its declaration says. Of a sequence it is the type of its elements. None where nothing says it;
    exporters without `value_info` leave most types open.
    """
    for _ in range(_MAX_DEPTH):
        if value is None or value.dtype is not None:
            return None if value is None else value.dtype
        node = value.producer()
        if node is None:
            return None if value.const_value is None else value.const_value.dtype
        made = _type_by_attribute(node) if node.domain == "" else None
        if made is not None:
            return made
        if node.domain == "" and node.op_type in _CONTROL:
            value = _made_by_body(node, node.outputs.index(value))
            continue
        rule = _rule(node, node.outputs.index(value))
        if rule is None or rule.fixed is not None:
            return None if rule is None else rule.fixed
        sources = _inputs(node, rule)
        value = next((v for v in sources if v.dtype is not None), sources[0] if sources else None)
    return None


TypeSource = Literal["schema", "attribute", "body", "declared"]


def type_source(op: Op) -> TypeSource | None:
    """Return what says the element type of an operator's first result, None where nothing does."""
    rule = output_type(op.name, 0 if op.domain else MAX_OPSET, 0, op.domain)
    if rule is not None and (rule.inputs or rule.fixed is not None):
        return "schema"
    if op.domain == "" and op.name in _CONTROL:
        return "body"
    if op.domain == "" and op.name in (*_DEFAULTS, "Constant", "Cast", "BitCast"):
        return "attribute"
    unsaid = op.typed_by is None and has_schema(op.domain, op.name)
    return None if unsaid else "declared"


def _type_by_attribute(node: ir.Node) -> ir.DataType | None:
    """The type that a node names itself; operators that do have one output."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name in _TYPE_ATTRIBUTES and attribute.type == ir.AttributeType.INT:
            return ir.DataType(attribute.as_int()) if attribute.as_int() else None
        if node.op_type in ("Constant", "ConstantOfShape") and name == "value":
            return attribute.as_tensor().dtype
        if node.op_type == "Constant" and name in _ATTRIBUTE_TYPES:
            return _ATTRIBUTE_TYPES[name]
    return _DEFAULTS.get(node.op_type)


def _inputs(node: ir.Node, rule: OutputType) -> list[ir.Value]:
    last = len(node.inputs) if rule.repeats else 0
    places = [*rule.inputs, *range(rule.inputs[-1] + 1, last)] if rule.inputs else []
    found = (node.inputs[place] for place in places if place < len(node.inputs))
    return [value for value in found if value is not None]


def _rule(node: ir.Node, output: int) -> OutputType | None:
    """What the schema says of an output, or for lack of one the operator's declaration."""
    graph = node.graph
    opset = 0 if graph is None else graph.opset_imports.get(node.domain, 0)
    rule = output_type(node.op_type, opset, output, node.domain)
    op = find_op(node.domain, node.op_type)
    if output or op is None or (rule is not None and (rule.inputs or rule.fixed is not None)):
        return rule
    if op.typed_by is None:
        return rule if has_schema(node.domain, node.op_type) else OutputType(None, (0,))
    return OutputType(None, (op.typed_by,))


def _made_by_body(node: ir.Node, output: int) -> ir.Value | None:
    """The value inside a branch or body that an output of control flow has its type from."""
    match node.op_type:
        case "If":
            body, place = node.attributes.get("then_branch"), output
        case "Loop":
            body, place = node.attributes.get("body"), output + 1
        case _:
            body, place = node.attributes.get("body"), output
    if body is None or body.is_ref():
        return None
    outputs = body.as_graph().outputs
    return outputs[place] if place < len(outputs) else None
