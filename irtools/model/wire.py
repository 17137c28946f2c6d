"""Finding large weights in a serialized model without parsing them.

A protobuf parser copies every weight. This walks the wire format of the main graph's initializers
only, cuts each large `raw_data` out and remembers where it lies, so that the weights can be mapped
from the file and the parser sees a small message. Whatever looks unusual is left for the parser.
(Wire format: protobuf.dev/programming-guides/encoding; field numbers: onnx.proto3.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irtools.errors import ModelError

__all__ = ["Skeleton", "cut_weights"]

_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_LARGE = 4096
_BYTES = 2
"""Wire type of length-delimited fields."""


@dataclass(frozen=True)
class Skeleton:
    """A serialized model without its large weights.

    Attributes:
        message: The model; a weight that was cut out has empty `raw_data`.
        spans: Position of the initializer in the main graph to (offset, length) of its bytes.
    """

    message: bytes
    spans: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class _Field:
    number: int
    kind: int
    start: int
    body: int
    end: int


def cut_weights(data: memoryview) -> Skeleton:
    """Cut large weights out of a serialized model.

    Raises:
        ModelError: The file ends before the last field does, or is no protobuf message.
    """
    cutter = _Cutter(data)
    parts = cutter.model()
    return Skeleton(b"".join(parts), cutter.spans)


class _Cutter:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._count = 0
        self.spans: dict[int, tuple[int, int]] = {}

    def model(self) -> list[bytes | memoryview]:
        parts: list[bytes | memoryview] = []
        for field in self._fields(0, len(self._data)):
            if (field.number, field.kind) == (_MODEL_GRAPH, _BYTES):
                parts += _wrapped(_MODEL_GRAPH, self._graph(field))
            else:
                parts.append(self._data[field.start : field.end])
        return parts

    def _graph(self, graph: _Field) -> list[bytes | memoryview]:
        parts: list[bytes | memoryview] = []
        for field in self._fields(graph.body, graph.end):
            if (field.number, field.kind) == (_GRAPH_INITIALIZER, _BYTES):
                parts += self._initializer(field)
                self._count += 1
            else:
                parts.append(self._data[field.start : field.end])
        return parts

    def _initializer(self, tensor: _Field) -> list[bytes | memoryview]:
        if tensor.end - tensor.body <= _LARGE:
            return [self._data[tensor.start : tensor.end]]
        fields = list(self._fields(tensor.body, tensor.end))
        raw = [f for f in fields if (f.number, f.kind) == (_TENSOR_RAW_DATA, _BYTES)]
        if len(raw) != 1 or raw[0].end - raw[0].body <= _LARGE:
            return [self._data[tensor.start : tensor.end]]
        self.spans[self._count] = (raw[0].body, raw[0].end - raw[0].body)
        kept = [self._data[f.start : f.end] for f in fields if f is not raw[0]]
        return _wrapped(_GRAPH_INITIALIZER, [*kept, *_wrapped(_TENSOR_RAW_DATA, [])])

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        position = start
        while position < end:
            tag, body = self._varint(position, end)
            kind, stop = tag & 7, 0
            match kind:
                case 0:
                    stop = self._varint(body, end)[1]
                case 1:
                    stop = body + 8
                case 2:
                    length, body = self._varint(body, end)
                    stop = body + length
                case 5:
                    stop = body + 4
                case _:
                    raise ModelError("not an ONNX model: the file is no protobuf message")
            if stop > end:
                raise ModelError(
                    f"the file ends early: {stop - end} bytes of it are missing, or it is damaged"
                )
            yield _Field(tag >> 3, kind, position, body, stop)
            position = stop

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = self._data[position]
            value |= (byte & 127) << shift
            position += 1
            if byte < 128:
                return value, position
            shift += 7
        raise ModelError("the file ends early, or is damaged: a number in it is not complete")


def _wrapped(number: int, parts: list[bytes | memoryview]) -> list[bytes | memoryview]:
    head = _encoded(number << 3 | _BYTES) + _encoded(sum(len(part) for part in parts))
    return [head, *parts]


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
