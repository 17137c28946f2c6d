"""Handing a model to ONNX Runtime without copying its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.model import Model

__all__ = ["ModelSource"]

_SHARED_FROM = 64 * 1024
# The runtime reads shapes, axes, scales and zero points while it optimizes; those stay in the
# file. What it only multiplies with is large.

_SHARED_TYPES = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.DOUBLE,
        ir.DataType.INT8,
        ir.DataType.UINT8,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)


@dataclass(frozen=True)
class ModelSource:
    """A model as the runtime takes it.

    Attributes:
        content: Path of a file, or a serialized model without its large weights.
        weights: Those weights by name; the session reads them where they are, so they must
            outlive it. A model of any size fits, also above protobuf's 2 GB.
    """

    content: str | bytes
    weights: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model | Path) -> ModelSource:
        """Prepare a file or a model in memory."""
        return cls(str(model)) if isinstance(model, Path) else cls._of_model(model.clone().ir)

    @classmethod
    def _of_model(cls, model: ir.Model) -> ModelSource:
        import onnxruntime as ort

        _read_external(model)
        weights: dict[str, Any] = {}
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not _is_shared(tensor):
                continue
            array = np.ascontiguousarray(tensor.numpy())
            weights[name] = ort.OrtValue.ortvalue_from_numpy(array)
            value.const_value = _placeholder(tensor)
        return cls(_serialize(model), weights)

    def share_weights(self, options: Any) -> None:
        """Lend the weights to a session that is about to be made with `options`."""
        if self.weights:
            options.add_external_initializers(list(self.weights), list(self.weights.values()))


def _is_shared(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype in _SHARED_TYPES and tensor.nbytes >= _SHARED_FROM


def _placeholder(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        "weights",
        0,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=tensor.name or "",
    )


def _read_external(model: ir.Model) -> None:
    """Put what still lies in files into the model: bytes have no folder to look in."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and not _is_shared(tensor):
                array = np.array(tensor.numpy())
                value.const_value = ir.Tensor(array, dtype=tensor.dtype, name=tensor.name)


def _serialize(model: ir.Model) -> bytes:
    try:
        content: bytes = ir.to_proto(model).SerializeToString()
    except ValueError as error:
        raise UnsupportedError(
            "more than 2 GB of weights are neither float nor int8 and cannot be handed to "
            "ONNX Runtime in memory; save the model with external data and run the file"
        ) from error
    return content
