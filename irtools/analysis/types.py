"""Element types of tensors whose type is not declared."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import onnx_ir as ir

__all__ = ["element_type"]

_MAX_DEPTH = 64

_TYPE_ATTRIBUTES = frozenset({"to", "dtype", "output_dtype"})
_MADE_OF_FLOATS = frozenset({"ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform"})
"""Operators that make float32 unless an attribute says another type."""

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


@dataclass(frozen=True)
class _OutputType:
    """What the standard says of the type of one output.

    Attributes:
        fixed: The only type that it can have, or None.
        inputs: Inputs of the same type variable.
        repeats: Whether the last of them may stand for any number of inputs.
    """

    fixed: ir.DataType | None
    inputs: tuple[int, ...]
    repeats: bool = False


def element_type(value: ir.Value | None) -> ir.DataType | None:
    """Return the element type of a tensor: declared, or followed back through the operators.

    Which input gives an output its type is what the standard's schema says of that output: the
    mask of a Dropout is of another type than its data. None where nothing tells; exporters without
    `value_info` leave most types open.
    """
    for _ in range(_MAX_DEPTH):
        if value is None or value.dtype is not None:
            return None if value is None else value.dtype
        node = value.producer()
        if node is None:
            return None if value.const_value is None else value.const_value.dtype
        if node.domain != "":
            return None
        made = _type_by_attribute(node)
        if made is not None:
            return made
        rule = _rule(node.op_type, _opset(node), node.outputs.index(value))
        if rule is None or rule.fixed is not None:
            return None if rule is None else rule.fixed
        sources = _inputs(node, rule)
        value = next((v for v in sources if v.dtype is not None), sources[0] if sources else None)
    return None


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
    if node.op_type == "EyeLike":
        return None  # As its input, by the schema's text but not by its type variables.
    return ir.DataType.FLOAT if node.op_type in _MADE_OF_FLOATS else None


def _inputs(node: ir.Node, rule: _OutputType) -> list[ir.Value]:
    last = len(node.inputs) if rule.repeats else 0
    places = [*rule.inputs, *range(rule.inputs[-1] + 1, last)] if rule.inputs else []
    found = (node.inputs[place] for place in places if place < len(node.inputs))
    return [value for value in found if value is not None]


def _opset(node: ir.Node) -> int:
    """The version of the standard operators at a node; 0 where its graph does not say it."""
    graph = node.graph
    return 0 if graph is None else graph.opset_imports.get("", 0)


@functools.cache
def _rule(op_type: str, opset: int, output: int) -> _OutputType | None:
    """What the schema says of an output; without an opset, what all its versions agree on."""
    if opset:
        try:
            versions: Sequence[onnx.defs.OpSchema] = [onnx.defs.get_schema(op_type, opset, "")]
        except onnx.defs.SchemaError:
            return None
    else:
        versions = _history().get(op_type, ())
    rules = [_read(schema, output) for schema in versions]
    found = [rule for rule in rules if rule is not None]
    if not found or len(found) < len(rules) or len({rule.fixed for rule in found}) > 1:
        return None
    shared = set.intersection(*(set(rule.inputs) for rule in found))
    repeats = all(rule.repeats for rule in found)
    return _OutputType(found[0].fixed, tuple(sorted(shared)), repeats)


@functools.cache
def _history() -> Mapping[str, Sequence[onnx.defs.OpSchema]]:
    found: dict[str, list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema)
    return found


def _read(schema: onnx.defs.OpSchema, output: int) -> _OutputType | None:
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    if not schema.outputs:
        return None
    formal = schema.outputs[min(output, len(schema.outputs) - 1)]
    if formal.option == variadic and not formal.is_homogeneous:
        return None
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    kinds = allowed.get(formal.type_str, [formal.type_str])
    if len(kinds) == 1:
        fixed = _TENSORS.get(kinds[0])
        return None if fixed is None else _OutputType(fixed, ())
    if not any(kind in _TENSORS for kind in kinds):
        return None
    same = [i for i, formal_in in enumerate(schema.inputs) if formal_in.type_str == formal.type_str]
    repeats = bool(
        same
        and schema.inputs[same[-1]].option == variadic
        and schema.inputs[same[-1]].is_homogeneous
    )
    return _OutputType(None, tuple(same), repeats)


_TENSORS: Mapping[str, ir.DataType] = MappingProxyType(
    {
        f"tensor({name})": dtype
        for name, dtype in {
            **{d.name.lower(): d for d in ir.DataType if d != ir.DataType.UNDEFINED},
            "float": ir.DataType.FLOAT,
            "double": ir.DataType.DOUBLE,
        }.items()
    }
)
"""Type strings of the standard's schemas."""
