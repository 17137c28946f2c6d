"""Large weights in a serialized model: found without parsing, put in without serializing.

A protobuf library copies every weight, more than once. This walks the wire format of the main
graph's initializers only. Reading, it cuts each large `raw_data` out and remembers where it was,
so that the weights can be mapped from the file and the parser sees a small message; whatever looks
unusual is left for the parser. Writing, it puts the bytes back in between.
(Wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx.proto3.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from irtools.errors import ModelError

__all__ = ["LARGE", "Bytes", "Skeleton", "cut_weights", "insert_weights"]

LARGE = 4096
"""Weights of more bytes than this are worth the trouble."""

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_BYTES = 2
"""Wire type of length-delimited fields."""

Bytes: TypeAlias = "bytes | memoryview"


@dataclass(frozen=True)
class Skeleton:
    """A serialized model without its large weights.

    Attributes:
        message: The model; a weight that was cut out has empty `raw_data`.
        spans: Position of the initializer in the main graph to (offset, length) of its bytes.
    """

    message: bytes
    spans: dict[int, tuple[int, int]]


def cut_weights(data: memoryview) -> Skeleton:
    """Cut large weights out of a serialized model.

    Raises:
        ModelError: The file ends before the last field does, or is not a protobuf message.
    """
    spans: dict[int, tuple[int, int]] = {}

    def cut(position: int, tensor: _Field) -> list[Bytes]:
        fields = list(_fields(data, tensor.body, tensor.end))
        raw = [field for field in fields if field.is_bytes(_TENSOR_RAW_DATA)]
        if len(raw) != 1 or raw[0].end - raw[0].body <= LARGE:
            return [data[tensor.start : tensor.end]]
        spans[position] = (raw[0].body, raw[0].end - raw[0].body)
        kept = [data[f.start : f.end] for f in fields if f is not raw[0]]
        return _wrapped(_GRAPH_INITIALIZER, [*kept, *_wrapped(_TENSOR_RAW_DATA, [])])

    return Skeleton(b"".join(_rewritten(data, cut)), spans)


def insert_weights(message: memoryview, weights: Mapping[int, Bytes]) -> list[Bytes]:
    """Return the parts of a serialized model with weights put in, none of them copied.

    Args:
        message: The model; the initializers concerned have no data.
        weights: Position of the initializer in the main graph to its bytes.
    """

    def insert(position: int, tensor: _Field) -> list[Bytes]:
        raw = weights.get(position)
        if raw is None:
            return [message[tensor.start : tensor.end]]
        fields = list(_fields(message, tensor.body, tensor.end))
        # In the order of field numbers, as the library would write it.
        before = [message[f.start : f.end] for f in fields if f.number < _TENSOR_RAW_DATA]
        after = [message[f.start : f.end] for f in fields if f.number > _TENSOR_RAW_DATA]
        parts = [*before, *_wrapped(_TENSOR_RAW_DATA, [raw]), *after]
        return _wrapped(_GRAPH_INITIALIZER, parts)

    return _rewritten(message, insert)


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    start: int
    body: int
    end: int

    def is_bytes(self, number: int) -> bool:
        return self.number == number and self.kind == _BYTES


def _rewritten(data: memoryview, change: Callable[[int, _Field], list[Bytes]]) -> list[Bytes]:
    """Return a model in parts, each initializer of the main graph as `change` returns it."""
    parts: list[Bytes] = []
    position = 0
    for field in _fields(data, 0, len(data)):
        if not field.is_bytes(_MODEL_GRAPH):
            parts.append(data[field.start : field.end])
            continue
        inner: list[Bytes] = []
        for item in _fields(data, field.body, field.end):
            if item.is_bytes(_GRAPH_INITIALIZER):
                inner += change(position, item)
                position += 1
            else:
                inner.append(data[item.start : item.end])
        parts += _wrapped(_MODEL_GRAPH, inner)
    return parts


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        tag, body = _varint(data, position, end)
        kind, stop = tag & 7, 0
        match kind:
            case 0:
                stop = _varint(data, body, end)[1]
            case 1:
                stop = body + 8
            case 2:
                length, body = _varint(data, body, end)
                stop = body + length
            case 5:
                stop = body + 4
            case _:
                raise ModelError("not an ONNX model: the file is not a protobuf message")
        if stop > end:
            raise ModelError(
                f"the file ends early: {stop - end} bytes of it are missing, or it is damaged"
            )
        yield _Field(tag >> 3, kind, position, body, stop)
        position = stop


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        value |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return value, position
        shift += 7
    raise ModelError("the file ends early, or is damaged: a number in it is not complete")


def _wrapped(number: int, parts: list[Bytes]) -> list[Bytes]:
    head = _encoded(number << 3 | _BYTES) + _encoded(sum(len(part) for part in parts))
    return [head, *parts]


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
