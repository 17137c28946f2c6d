"""What a plan says about one reader of a weight, as an object and as JSON.

A plan is applied to a model other than the one it was made on (a clone, or the same file read
again), so everything is referred to by value names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.arithmetic import QParams
from irtools.passes.quantization.ranges.spec import PerTensor, QuantSpec
from irtools.passmanager import Json

__all__ = ["UseDecision"]


@dataclass(frozen=True, eq=False)
class UseDecision:
    """What happens at one reader of a weight.

    Attributes:
        output: Name of the reader's first output.
        activation: Parameters of the tensor that is multiplied; None where it stays in float.
        integer_bias: The bias becomes int32 in steps of s_x * s_w.
        shift: Added to the bias, float32 [N]; None for none.
        result: Parameters of the value that a quantized Conv outputs; None for none.
    """

    output: str
    activation: QParams | None = None
    integer_bias: bool = False
    shift: np.ndarray | None = None
    result: QParams | None = None

    def to_data(self) -> Mapping[str, Json]:
        """Write the decision as JSON values. `from_data` reads it back."""
        data: dict[str, Json] = {"output": self.output}
        if self.activation is not None:
            data["activation"] = _qparams_data(self.activation)
        if self.integer_bias:
            data["integer_bias"] = True
        if self.shift is not None:
            data["shift"] = [float(f"{x:.5g}") for x in self.shift]
        if self.result is not None:
            data["result"] = _qparams_data(self.result)
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> UseDecision:
        """Read what `to_data` wrote."""
        shift: Sequence[float] | None = data.get("shift")
        return cls(
            data["output"],
            _qparams_from(data.get("activation")),
            data.get("integer_bias", False),
            None if shift is None else np.asarray(shift, dtype=np.float32),
            _qparams_from(data.get("result")),
        )


def _qparams_data(q: QParams) -> Mapping[str, Json]:
    return {
        "dtype": q.spec.dtype.name,
        "symmetric": q.spec.symmetric,
        "scale": float(q.scale),
        "zero_point": int(q.zero_point),
    }


def _qparams_from(data: Mapping[str, Any] | None) -> QParams | None:
    if data is None:
        return None
    spec = QuantSpec(ir.DataType[data["dtype"]], PerTensor(), symmetric=data["symmetric"])
    zero = np.asarray(data["zero_point"], dtype=spec.dtype.numpy())
    return QParams(np.asarray(data["scale"], dtype=np.float32), zero, spec)
