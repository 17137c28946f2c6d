"""A pass of one's own: a frozen dataclass, found by name through an entry point.

pip install ./examples/custom_pass
irc passes clip-weights
irc optimize model.onnx --passes clip-weights:sigmas=5,int8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools import Decision, Exactness, PassContext, PassResult, Plan, PlanningPass, option
from irtools.errors import OptionError
from irtools.passmanager import pass_text


@dataclass(frozen=True)
class ClipWeights(PlanningPass):
    """Clip outliers of float32 matrices, so that an 8-bit grid spends its steps on the others.

    A weight further than `sigmas` standard deviations from the mean of its matrix is moved to
    that distance. Each matrix is one decision, the one that loses least first, so an accuracy
    budget (`--max-drop`) can keep some and leave the rest.
    """

    name: ClassVar[str] = "clip-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    # Clipping narrows the distribution, so a second run would find new outliers.
    idempotent: ClassVar[bool] = False
    counters: ClassVar[dict[str, str]] = {
        "num-clipped-matrices": "matrices with outliers",
        "num-clipped-weights": "weights moved",
    }

    sigmas: float = option(6.0, "Largest distance from the mean, in standard deviations.")

    def __post_init__(self) -> None:
        if not self.sigmas > 0:
            raise OptionError(f"sigmas is {self.sigmas:g}, expected a number above 0")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        decisions = []
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
                continue
            weight = tensor.numpy()
            clipped = self._clip(weight)
            moved = int(np.count_nonzero(clipped != weight))
            if moved:
                cost = float(np.linalg.norm(clipped - weight) / np.linalg.norm(weight))
                action = f"clip {moved} of {weight.size} weights"
                decisions.append(Decision(name, action, cost, moved, {"moved": moved}))
        decisions.sort(key=lambda decision: decision.cost)
        return Plan(pass_text(self), tuple(decisions), "relative L2 change", "weights")

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        for decision in plan.decisions:
            value = model.graph.initializers[decision.subject]
            assert value.const_value is not None
            # Tensors are shared with the caller's model: make a new one, never write into one.
            value.const_value = ir.tensor(
                self._clip(value.const_value.numpy()), name=decision.subject
            )
        counters = {
            "num-clipped-matrices": len(plan),
            "num-clipped-weights": int(sum(decision.gain for decision in plan.decisions)),
        }
        return PassResult(modified=len(plan) > 0, counters=counters, plan=plan)

    def _clip(self, weight: np.ndarray) -> np.ndarray:
        mean, reach = weight.mean(), self.sigmas * weight.std()
        return np.clip(weight, mean - reach, mean + reach).astype(np.float32)
