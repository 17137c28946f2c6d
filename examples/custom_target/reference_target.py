"""A target of one's own: the reference evaluator of onnx, found by name through an entry point.

pip install ./examples/custom_target
irc targets
irc bench model.onnx --target reference
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from irtools import Model
from irtools.errors import UnsupportedError
from irtools.targets import (
    Capabilities,
    InputSlot,
    PackagedTarget,
    Runner,
    RunnerOptions,
    SessionRunner,
)


@dataclass(frozen=True)
class Reference(PackagedTarget):
    """The reference evaluator of onnx: every operator as the standard says it, slowly."""

    name: ClassVar[str] = "reference"
    summary: ClassVar[str] = "the reference evaluator of onnx, for small models"
    package: ClassVar[str] = "onnx"

    @property
    def runs_here(self) -> bool:
        return True  # numpy decides by itself what the CPU can do.

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(max_opset=26, max_ir_version=13, int8_is_fast=False)

    def runner(self, model: Model | Path, options: RunnerOptions = RunnerOptions()) -> Runner:
        self.check_available()
        return ReferenceRunner(onnx.load(model) if isinstance(model, Path) else model.to_proto())


class ReferenceRunner(SessionRunner):
    """The evaluator with checked feeds."""

    runtime = "the reference evaluator"
    failures = (RuntimeError, ValueError, IndexError, TypeError)

    def __init__(self, proto: onnx.ModelProto) -> None:
        try:
            evaluator = ReferenceEvaluator(proto)
        except NotImplementedError as error:
            raise UnsupportedError(f"{self.runtime} refuses the model: {error}") from error
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = [value for value in proto.graph.input if value.name not in weights]
        super().__init__(
            evaluator, [_slot(value) for value in inputs], [v.name for v in proto.graph.output]
        )

    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        found: Sequence[np.ndarray] = self.session.run(list(wanted), dict(feeds))
        return found


def _slot(value: onnx.ValueInfoProto) -> InputSlot:
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return InputSlot(value.name, np.dtype(dtype), sizes)
