"""What the writers of one model share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import onnx_ir as ir

from irtools.editing import Editor
from irtools.passes.quantization.ranges.blocks import Rounding, quantize_rows
from irtools.passes.quantization.ranges.rounding import Moments
from irtools.passes.quantization.sites.uses import Weight
from irtools.targets import Capabilities

__all__ = ["Desk"]

W = TypeVar("W", covariant=True)


class _Maker(Protocol[W]):
    def __call__(self, desk: Desk, /) -> W: ...


class Desk:
    """A model that is being quantized, and the writers that work on it.

    Args:
        model: Changed in place.
        name: Of the pass.
        capabilities: What the target runs.
        rounding_of: How the weights of products in blocks are rounded; None: each to the nearest.
        moments_of: What weights are multiplied with, for those that are rounded for it.
    """

    def __init__(
        self,
        model: ir.Model,
        name: str,
        capabilities: Capabilities,
        rounding_of: Callable[[Weight], Rounding] | None = None,
        moments_of: Callable[[Weight], Moments] | None = None,
    ) -> None:
        self.model = model
        self.name = name
        self.editor = Editor(model, name)
        self.capabilities = capabilities
        self.moments_of = moments_of
        self._rounding_of = rounding_of
        self._writers: dict[object, Any] = {}

    def writer(self, kind: _Maker[W]) -> W:
        """Return the writer of a kind. One for the model: it knows what it has written before."""
        if kind not in self._writers:
            self._writers[kind] = kind(self)
        found: W = self._writers[kind]
        return found

    def rounding(self, weight: Weight) -> Rounding:
        """Return how a weight in blocks is rounded."""
        return quantize_rows if self._rounding_of is None else self._rounding_of(weight)
