"""One running model whose stored weights are given again in each trial.

Writing a quantized model, starting a runtime on it and running it takes three to four times as long
as running it. What is stored and expanded is just another weight: as inputs of one session, all
combinations of 8, 16 and 32 bits cost a run each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.passes.quantization.forms.base import Form, WeightDecision
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.sites.stored import StoredWeight, find_stored
from irtools.passes.quantization.trial_run import Session, TrialRun
from irtools.passmanager import Decision

__all__ = ["Switchboard"]


class Switchboard:
    """Measures combinations of decisions about how weights are stored.

    Args:
        model: With everything done that is not storage. It is changed: its stored weights become
            inputs.
        trial: Runs it.

    Raises:
        UnsupportedError: The target does not run it.
    """

    def __init__(self, model: ir.Model, trial: TrialRun) -> None:
        found = find_stored(model).weights
        self._weights = {weight.key: weight for weight in found if "::" not in weight.scope}
        self._inputs = {key: _as_input(model, weight) for key, weight in self._weights.items()}
        self._arrays: dict[int, tuple[Decision, np.ndarray]] = {}
        self._stack = ExitStack()
        self._session: Session = self._stack.enter_context(trial.session(model))

    @staticmethod
    def serves(decisions: Iterable[WeightDecision]) -> bool:
        """Whether all weights can be inputs: a function reads nothing from outside."""
        return not any("::" in decision.scope for decision in decisions)

    def close(self) -> None:
        """Stop the runtime."""
        self._stack.close()

    def measure(self, decisions: Sequence[Decision], *, first: bool) -> float | None:
        """As `Session.sqnr_db`, of the model with these weights stored so and the rest as is."""
        arrays: dict[str, np.ndarray] = {
            self._inputs[key]: weight.array() for key, weight in self._weights.items()
        }
        for decision in decisions:
            made = read_decision(decision)
            weight = self._weights[made.key]
            arrays[self._inputs[made.key]] = self._stored(decision, made.form, weight)
        return self._session.sqnr_db(arrays, first=first)

    def _stored(self, decision: Decision, form: Form[Any], weight: StoredWeight) -> np.ndarray:
        """Return what a weight is once it was stored; kept, with what it belongs to."""
        known = self._arrays.get(id(decision))
        if known is None:
            assert isinstance(form, StoredForm)
            known = self._arrays[id(decision)] = (decision, form.decoded(weight))
        return known[1]


def _as_input(model: ir.Model, weight: StoredWeight) -> str:
    """Make an input of a weight; returns its name."""
    value, graph = weight.value, model.graph
    if not weight.scope and value.producer() is None:
        graph.inputs.append(value)
        return weight.name
    name = f"switch_{len(graph.inputs)}_{weight.name}"
    new = ir.Value(
        name=name,
        type=ir.TensorType(weight.tensor.dtype),
        shape=ir.Shape(weight.tensor.shape.numpy()),
    )
    graph.inputs.append(new)
    ir.convenience.replace_all_uses_with(value, new)
    return name
