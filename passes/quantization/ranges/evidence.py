"""What a form is decided by, apart from the weight itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.ranges.calibration import Facts
from irtools.passes.quantization.ranges.outliers import Channels
from irtools.targets import Capabilities

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """What is known of the target, and of what is multiplied.

    Attributes:
        capabilities: What the target runs.
        facts: What calibration says of activations, of what is left without the outliers.
        outliers: Channels of activations that are multiplied in float32.
        corrects_bias: Biases take up the mean error of their weights.
        remaining: Of activations whose weights are rounded for the data (GPTQ): what is left of
            E[x^2] per channel once the channels that are rounded later make up for it.
    """

    capabilities: Capabilities
    facts: Facts = field(default_factory=dict)
    outliers: Mapping[ir.Value, Channels] = field(default_factory=dict)
    corrects_bias: bool = True
    remaining: Mapping[ir.Value, np.ndarray] = field(default_factory=dict)

    def square(self, activation: ir.Value) -> np.ndarray | None:
        """Return E[x^2] per channel of an activation, [C], where it is known."""
        facts = self.facts.get(activation)
        return None if facts is None else facts.square
