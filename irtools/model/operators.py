"""What the ONNX standard says of an operator: arity and attributes, by version."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

__all__ = ["STANDARD_DOMAINS", "OperatorSchema", "find_schema", "node_fault"]

STANDARD_DOMAINS: Mapping[str, str] = {
    "": "",
    "ai.onnx": "",
    "ai.onnx.ml": "ai.onnx.ml",
    "ai.onnx.preview": "ai.onnx.preview",
    "ai.onnx.preview.training": "ai.onnx.preview.training",
    "ai.onnx.training": "ai.onnx.training",
}
"""Domains whose operators the ONNX standard defines, with the one spelling we use."""


@dataclass(frozen=True)
class OperatorSchema:
    """The parts of an ONNX operator schema that can be checked without types.

    Attributes:
        since: Opset that introduced this version of the operator.
        attributes: Attribute name to `onnx.AttributeProto` type number.
        required: Attributes without a default.
    """

    since: int
    min_inputs: int
    max_inputs: int
    min_outputs: int
    max_outputs: int
    attributes: Mapping[str, int]
    required: frozenset[str]


@functools.cache
def find_schema(domain: str, op_type: str, version: int) -> OperatorSchema | None:
    """Return the schema of an operator at an opset, or None where the standard has none."""
    try:
        schema = onnx.defs.get_schema(op_type, version, STANDARD_DOMAINS.get(domain, domain))
    except onnx.defs.SchemaError:
        return None
    attributes = {name: int(a.type.value) for name, a in schema.attributes.items()}
    required = frozenset(name for name, a in schema.attributes.items() if a.required)
    return OperatorSchema(
        schema.since_version,
        schema.min_input,
        schema.max_input,
        schema.min_output,
        schema.max_output,
        attributes,
        required,
    )


def node_fault(
    schema: OperatorSchema,
    num_inputs: int,
    num_outputs: int,
    attributes: Iterable[tuple[str, int]],
) -> str:
    """Say what of a node does not fit its operator; empty where all fits.

    Args:
        schema: The operator.
        num_inputs: Inputs, absent ones in between counted.
        num_outputs: Outputs, likewise.
        attributes: Name and type number of each attribute.
    """
    if not schema.min_inputs <= num_inputs <= schema.max_inputs:
        return f"has {_count(num_inputs, 'input')}, expected " + _range(
            schema.min_inputs, schema.max_inputs
        )
    if not schema.min_outputs <= num_outputs <= schema.max_outputs:
        return f"has {_count(num_outputs, 'output')}, expected " + _range(
            schema.min_outputs, schema.max_outputs
        )
    seen: set[str] = set()
    for name, kind in attributes:
        if name in seen:
            return f"has attribute {name!r} twice"
        if name not in schema.attributes:
            return f"has an attribute {name!r} that the operator does not know"
        if kind != schema.attributes[name]:
            expected = onnx.AttributeProto.AttributeType.Name(schema.attributes[name])
            return f"has an attribute {name!r} of another type than {expected}"
        seen.add(name)
    missing = sorted(schema.required - seen)
    return f"lacks its attribute {missing[0]!r}" if missing else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _range(low: int, high: int) -> str:
    if low == high:
        return str(low)
    return f"{low} or more" if high > 10**6 else f"{low} to {high}"
