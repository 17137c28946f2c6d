"""What a model wants to be fed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from irtools.errors import UnsupportedError
from irtools.model import Model

__all__ = ["InputSpec", "fixed_batch", "required_inputs"]


@dataclass(frozen=True)
class InputSpec:
    """An input that callers must feed.

    Attributes:
        dtype: Element type as numpy sees it (`object` for strings).
        shape: Sizes; a name or None where dynamic; None where the rank is unknown.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        sizes = "?" if self.shape is None else ",".join(str(size or "?") for size in self.shape)
        return f"{self.name} {self.dtype}[{sizes}]"


def fixed_batch(specs: Iterable[InputSpec]) -> int | None:
    """Return how many samples the model takes at a time; None: any number.

    An input without axes holds for the whole batch, so its samples go one by one.
    """
    specs = tuple(specs)
    if any(spec.shape == () for spec in specs):
        return 1
    return next((s.shape[0] for s in specs if s.shape and isinstance(s.shape[0], int)), None)


def required_inputs(model: Model | ir.Model) -> tuple[InputSpec, ...]:
    """Return the inputs without a default value, in order.

    Raises:
        UnsupportedError: An input that is no tensor.
    """
    graph = (model.ir if isinstance(model, Model) else model).graph
    return tuple(_spec(value) for value in graph.inputs if value.name not in graph.initializers)


def _spec(value: ir.Value) -> InputSpec:
    if not isinstance(value.type, ir.TensorType) or value.dtype is None:
        raise UnsupportedError(
            f"input '{value.name}' is of type {value.type}, and data can be given for tensors only"
        )
    shape = None if value.shape is None else tuple(_size(size) for size in value.shape)
    return InputSpec(value.name or "", value.dtype.numpy(), shape)


def _size(size: int | ir.SymbolicDim) -> int | str | None:
    return size if isinstance(size, int) else size.value
