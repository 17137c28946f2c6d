"""What the ONNX standard says of an operator's results, read from its schema."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx
import onnx_ir as ir

__all__ = ["OutputType", "has_schema", "output_type"]


@dataclass(frozen=True)
class OutputType:
    """What the standard says of the type of one output.

    Attributes:
        fixed: The only type that it can have, or None.
        inputs: Inputs of the same type variable.
        repeats: Whether the last of them may stand for any number of inputs.
    """

    fixed: ir.DataType | None
    inputs: tuple[int, ...]
    repeats: bool = False


@functools.cache
def output_type(op_type: str, opset: int, output: int, domain: str = "") -> OutputType | None:
    """Return what the schema says of an output; without an opset, what all versions agree on.

    None where there is no schema, or where the schema leaves the type to an attribute.
    """
    if opset:
        try:
            versions: Sequence[onnx.defs.OpSchema] = [onnx.defs.get_schema(op_type, opset, domain)]
        except onnx.defs.SchemaError:
            return None
    else:
        versions = _history().get((domain, op_type), ())
    rules = [_read(schema, output) for schema in versions]
    found = [rule for rule in rules if rule is not None]
    if not found or len(found) < len(rules) or len({rule.fixed for rule in found}) > 1:
        return None
    shared = set.intersection(*(set(rule.inputs) for rule in found))
    repeats = all(rule.repeats for rule in found)
    return OutputType(found[0].fixed, tuple(sorted(shared)), repeats)


def has_schema(domain: str, op_type: str) -> bool:
    """Whether the onnx package knows any version of an operator."""
    return (domain, op_type) in _history()


@functools.cache
def _history() -> Mapping[tuple[str, str], Sequence[onnx.defs.OpSchema]]:
    found: dict[tuple[str, str], list[onnx.defs.OpSchema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def _read(schema: onnx.defs.OpSchema, output: int) -> OutputType | None:
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
        return None if fixed is None else OutputType(fixed, ())
    if not any(kind in _TENSORS for kind in kinds):
        return None
    same = [i for i, formal_in in enumerate(schema.inputs) if formal_in.type_str == formal.type_str]
    repeats = bool(
        same
        and schema.inputs[same[-1]].option == variadic
        and schema.inputs[same[-1]].is_homogeneous
    )
    return OutputType(None, tuple(same), repeats)


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
