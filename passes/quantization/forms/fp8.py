"""Stored in floats of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.stored import Codes, StoredForm
from irtools.passes.quantization.ranges.arithmetic import SCALE_FLOOR

__all__ = ["Fp8"]

_LARGEST = np.float32(448)


@dataclass(frozen=True)
class Fp8(StoredForm):
    """floats of 8 bits (e4m3fn), the largest weight that shares a scale at 448; from opset 19 on.

    Errors are a share of each weight, at most a 16th: 31 dB or more whatever their
    distribution, where integers lose small weights next to large ones.
    """

    name: ClassVar[str] = "fp8"
    dtype: ClassVar[ir.DataType] = ir.DataType.FLOAT8E4M3FN
    label: ClassVar[str] = "e4m3"

    @property
    def opset(self) -> int:
        return 19  # Cast from float8.

    def encode(self, array: np.ndarray) -> Codes:
        scale = np.maximum(self.largest(array) / _LARGEST, SCALE_FLOOR)
        return Codes((array.astype(np.float32) / scale).astype(self.dtype.numpy()), scale)
