"""Stored in 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.stored import Codes, StoredForm
from irtools.passes.quantization.ranges.arithmetic import quantize_weight
from irtools.passes.quantization.ranges.spec import PerAxes, weight_spec
from irtools.passes.quantization.sites.stored import StoredWeight
from irtools.targets import Capabilities

__all__ = ["Stored8"]


@dataclass(frozen=True)
class Stored8(StoredForm):
    """integers of 8 bits, in steps of a 127th of the largest weight that shares a scale."""

    name: ClassVar[str] = "s8"
    dtype: ClassVar[ir.DataType] = ir.DataType.INT8
    label: ClassVar[str] = "s8"

    def encode(self, array: np.ndarray) -> Codes:
        integers, q = quantize_weight(array, weight_spec(PerAxes(self.axes)))
        return Codes(integers, q.scale)

    def arithmetic(self, weight: StoredWeight, capabilities: Capabilities) -> str:
        if {node.op_type for node in weight.readers} <= capabilities.int8_recurrent:
            return "activations quantized at run time"
        return super().arithmetic(weight, capabilities)
