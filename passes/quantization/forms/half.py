"""Stored in float16."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.stored import Codes, StoredForm
from irtools.passes.quantization.sites.reasons import DTYPE, Reason
from irtools.passes.quantization.sites.stored import StoredWeight
from irtools.targets import Capabilities

__all__ = ["Half"]


@dataclass(frozen=True)
class Half(StoredForm):
    """float16 without a scale: for weights whose outputs would suffer from fewer bits."""

    name: ClassVar[str] = "f16"
    dtype: ClassVar[ir.DataType] = ir.DataType.FLOAT16
    label: ClassVar[str] = "float16"
    counters: ClassVar[dict[str, str]] = {
        "num-stored-half": "weights stored in 16 bits, because outputs would suffer from 8"
    }
    has_scale: ClassVar[bool] = False
    most_error: ClassVar[float] = 1e-6
    """60 dB; float16 loses more where most of a weight is below 1e-7."""

    def encode(self, array: np.ndarray) -> Codes:
        with np.errstate(over="ignore"):
            return Codes(array.astype(np.float16), None)

    def fits(self, weight: StoredWeight, capabilities: Capabilities) -> Reason | None:
        if weight.tensor.dtype != ir.DataType.FLOAT:
            return DTYPE
        return super().fits(weight, capabilities)

    def count(self, weight: StoredWeight) -> Counter[str]:
        return Counter(["num-stored-half"])
