"""Inputs and outputs that are maps, as ZipMap of scikit-learn exports makes them.

`onnx_ir` has no map types. They are kept with the model as messages, by the names of the inputs
and outputs, which no pass changes, and are put back when the model is written. Of inner values
they are dropped: a runtime infers them.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from irtools.model.preflight import iter_typed_values

__all__ = ["keep_map_types", "put_map_types", "take_map_types"]

_MAPS = "irtools.maps"
"""Key in the main graph's `meta`, which clones keep, of the types, serialized, by name."""


def take_map_types(proto: onnx.ModelProto) -> dict[str, bytes]:
    """Take the types of maps out of a message; returns those of inputs and outputs by name."""
    interface = (*proto.graph.input, *proto.graph.output)
    found = {info.name: info.type.SerializeToString() for info in interface if _is_map(info.type)}
    for info in iter_typed_values(proto):
        if _is_map(info.type):
            info.ClearField("type")
    return found


def keep_map_types(model: ir.Model, types: dict[str, bytes]) -> None:
    """Note at a model what was taken out of its message."""
    if types:
        model.graph.meta[_MAPS] = types


def put_map_types(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Put types back into the message that was written of a model."""
    types = model.graph.meta.get(_MAPS, {})
    for info in (*proto.graph.input, *proto.graph.output):
        if info.name in types and info.type.WhichOneof("value") is None:
            info.type.ParseFromString(types[info.name])


def _is_map(kind: onnx.TypeProto) -> bool:
    while True:
        match kind.WhichOneof("value"):
            case "sequence_type":
                kind = kind.sequence_type.elem_type
            case "optional_type":
                kind = kind.optional_type.elem_type
            case name:
                return bool(name == "map_type")
