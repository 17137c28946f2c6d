"""What a model must be fed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.model import Model

__all__ = ["InputSpec", "Shape", "required_inputs", "shape_of"]

Shape: TypeAlias = "tuple[int | str | None, ...]"


@dataclass(frozen=True)
class InputSpec:
    """An input that callers must feed.

    Attributes:
        dtype: Element type as numpy sees it (`object` for strings).
        shape: Sizes; a name or None where dynamic; None where the rank is unknown.
    """

    name: str
    dtype: np.dtype
    shape: Shape | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ",".join(str(size or "?") for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]"


def required_inputs(model: Model | ir.Model) -> tuple[InputSpec, ...]:
    """Return the inputs without a default value, in order.

    Raises:
        UnsupportedError: An input that is not a tensor.
    """
    graph = (model.ir if isinstance(model, Model) else model).graph
    return tuple(_spec(value) for value in graph.inputs if value.name not in graph.initializers)


def shape_of(value: ir.Value) -> Shape | None:
    """Return the sizes that a model states of a value; None where it does not state the rank."""
    return None if value.shape is None else tuple(_size(size) for size in value.shape)


def _spec(value: ir.Value) -> InputSpec:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        raise UnsupportedError(
            f"input '{value.name}' is of type {value.type}, and data can be given for tensors only"
        )
    return InputSpec(value.name or "", value.dtype.numpy(), shape_of(value))


def _size(size: int | ir.SymbolicDim) -> int | str | None:
    return size if isinstance(size, int) else size.value
