"""What a quantization plan says about one weight, as an object and as JSON.

A plan is applied to a model other than the one it was made on (a clone, or the same file read
again), so everything is referred to by value names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.errors import UsageError
from irtools.passes.quantization.ranges.arithmetic import QParams
from irtools.passes.quantization.ranges.spec import (
    BlockSpec,
    PerTensor,
    QuantSpec,
    Scheme,
    WeightRange,
)
from irtools.passes.quantization.sites.find import Use, Weight
from irtools.passmanager import Decision, Json

__all__ = ["Form", "UseDecision", "WeightDecision", "find_weight"]

Form: TypeAlias = Literal["static", "dynamic", "weight-only", "embedding", "tied", "storage"]
"""`tied`: a table that is looked up and multiplied by, in blocks. `storage`: integers in the file
that the runtime expands once, when it loads the model."""


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


@dataclass(frozen=True, eq=False)
class WeightDecision:
    """What happens to one weight.

    Attributes:
        weight: Its value name.
        form: Which writer carries it out.
        bits: 8, 4, or 7 where products could saturate.
        block_size: Neighbours that share a scale along the input channels; 0 for one per channel.
        uses: Its readers, all of them.
        scheme: What the codes of a block mean.
        outliers: Input channels that are multiplied in float32.
        pair_safe: The scales keep sums of neighbours inside 16 bits.
        scope: Graph of the weight, as `scoped_graphs` calls it; empty for the main graph.
        axes: Axes along which scales differ, in the form `storage`.
    """

    weight: str
    form: Form
    bits: int
    uses: tuple[UseDecision, ...]
    block_size: int = 0
    scheme: Scheme = "symmetric"
    outliers: tuple[int, ...] = ()
    pair_safe: bool = False
    scope: str = ""
    axes: tuple[int, ...] = ()

    @property
    def weight_range(self) -> WeightRange:
        """How much of 8 bits the weight of a product uses."""
        if self.bits == 7:
            return "7-bit"
        return "pairs" if self.pair_safe else "full"

    @property
    def blocks(self) -> BlockSpec:
        """The form of a weight in blocks."""
        return BlockSpec(4 if self.bits == 4 else 8, self.block_size, self.scheme)

    def to_data(self) -> Mapping[str, Json]:
        """Write the decision as JSON values. `from_data` reads it back."""
        data: dict[str, Json] = {
            "weight": self.weight,
            "form": self.form,
            "bits": self.bits,
            "block_size": self.block_size,
            "scheme": self.scheme,
            "uses": [_use_data(use) for use in self.uses],
        }
        if self.outliers:
            data["outliers"] = list(self.outliers)
        if self.pair_safe:
            data["pair_safe"] = True
        if self.form == "storage":
            data["scope"], data["axes"] = self.scope, list(self.axes)
        return data

    @classmethod
    def from_data(cls, decision: Decision) -> WeightDecision:
        """Read what `to_data` wrote.

        Raises:
            UsageError: The decision was not made by this pass.
        """
        data: Any = decision.data
        try:
            uses = tuple(_use_from(use) for use in data["uses"])
            return cls(
                data["weight"],
                data["form"],
                data["bits"],
                uses,
                data["block_size"],
                data.get("scheme", "symmetric"),
                tuple(data.get("outliers", ())),
                data.get("pair_safe", False),
                scope=data.get("scope", ""),
                axes=tuple(int(axis) for axis in data.get("axes", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"the decision about {decision.subject!r} is not a decision about a quantized "
                f"weight: {error!r}"
            ) from error


def find_weight(decision: WeightDecision, weights: Mapping[str, Weight]) -> Weight:
    """Return the weight that a decision is about.

    Raises:
        UsageError: The model has no such weight, or it is read by other nodes.
    """
    weight = weights.get(decision.weight)
    if weight is None or {u.output.name for u in weight.uses} != {u.output for u in decision.uses}:
        raise UsageError(
            f"the plan does not fit the model: it has no float32 weight {decision.weight!r} read "
            f"by {', '.join(repr(u.output) for u in decision.uses)}; make a new plan"
        )
    return weight


def use_of(weight: Weight, decision: UseDecision) -> Use:
    """Return the reader that a decision is about. `find_weight` has checked that it is there."""
    return next(use for use in weight.uses if use.output.name == decision.output)


def _use_data(use: UseDecision) -> Mapping[str, Json]:
    data: dict[str, Json] = {"output": use.output}
    if use.activation is not None:
        data["activation"] = _qparams_data(use.activation)
    if use.integer_bias:
        data["integer_bias"] = True
    if use.shift is not None:
        data["shift"] = [float(f"{x:.5g}") for x in use.shift]
    if use.result is not None:
        data["result"] = _qparams_data(use.result)
    return data


def _use_from(data: Mapping[str, Any]) -> UseDecision:
    shift: Sequence[float] | None = data.get("shift")
    return UseDecision(
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
