"""What a model file may hold, seen without reading it as a model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from irtools.model.files import MappedFile
from irtools.model.wire import cut_weights

__all__ = ["may_use"]


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
