"""What a model file may hold, seen without reading it as a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from irtools.model.files import MappedFile
from irtools.model.wire import cut_weights

__all__ = ["may_use", "weight_files"]

_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")
"""An entry of `TensorProto.external_data`: its key, and the length of its value."""


def may_use(path: Path, operators: Iterable[str]) -> bool:
    """Whether nodes of an ONNX file may apply some operators: whether the file has their names.

    Weights are skipped, nothing is checked, and no IR is made, so that it costs milliseconds. Any
    other string of the file may read so too: where it is True, the model must be read.

    Raises:
        FileError: The file is not there or cannot be read.
        ModelError: It is not a protobuf message.
    """
    message = cut_weights(MappedFile.open(path).data).message
    return any(operator.encode() in message for operator in operators)


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files next to an ONNX file that may hold its weights, without reading the model.

    Raises:
        FileError: The file is not there or cannot be read.
        ModelError: It is not a protobuf message.
    """
    message = bytes(cut_weights(MappedFile.open(path).data).message)
    names = {_value_after(message, match) for match in _LOCATION.finditer(message)}
    found = (path.parent / name.decode("utf-8", "replace") for name in names)
    return tuple(sorted(file for file in found if file.is_file()))


def _value_after(message: bytes, match: re.Match[bytes]) -> bytes:
    low, *high = match[1]
    length = (low & 0x7F) | (high[0] << 7 if high else 0)
    return message[match.end() : match.end() + length].replace(b"\0", b"")
