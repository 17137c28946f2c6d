"""Handing a model to ONNX Runtime without copying its weights."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irtools.errors import UnsupportedError

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.model import Model

__all__ = ["ModelSource"]

_SHARED_FROM = 64 * 1024
# The runtime reads shapes, axes, scales and zero points while it optimizes; those stay in the
# file. What it only multiplies with is large.

_SHARED_TYPES = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "INT8", "UINT8", "INT32", "INT64"})


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
        from irtools.backends.onnxruntime._library import import_onnxruntime

        ort = import_onnxruntime()
        weights: dict[str, Any] = {}
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or not _is_shared(tensor) or value.is_graph_input():
                continue
            array = np.ascontiguousarray(tensor.numpy())
            weights[name] = ort.OrtValue.ortvalue_from_numpy(array)
            value.const_value = _placeholder(tensor)
        _read_external(model, except_for=weights)
        return cls(_serialize(model), weights)

    def share_weights(self, options: Any) -> None:
        """Lend the weights to a session that is about to be made with `options`."""
        if self.weights:
            options.add_external_initializers(list(self.weights), list(self.weights.values()))


def _is_shared(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.name in _SHARED_TYPES and tensor.nbytes >= _SHARED_FROM


def _placeholder(tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    import onnx_ir as ir

    return ir.ExternalTensor(
        "weights",
        0,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.numpy().shape),
        name=tensor.name or "",
    )


def _read_external(model: ir.Model, except_for: Container[str]) -> None:
    """Put what still lies in files into the model: bytes have no folder to look in."""
    import onnx_ir as ir

    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor) and not (
                graph is model.graph and name in except_for
            ):
                value.const_value = _in_memory(value.const_value)
    for node in model.graph.all_nodes():
        for key, attribute in node.attributes.items():
            if isinstance(attribute.value, ir.ExternalTensor):
                node.attributes[key] = ir.AttrTensor(key, _in_memory(attribute.value))


def _in_memory(tensor: ir.ExternalTensor) -> ir.Tensor:
    import onnx_ir as ir

    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)


def _serialize(model: ir.Model) -> bytes:
    import onnx_ir as ir

    try:
        content: bytes = ir.to_proto(model).SerializeToString()
    except ValueError as error:
        raise UnsupportedError(
            "more than 2 GB of weights are neither float nor int8 and cannot be handed to "
            "ONNX Runtime in memory; save the model with external data and run the file"
        ) from error
    return content
