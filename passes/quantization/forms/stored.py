"""Forms of weights that are stored in fewer bits and multiplied in floating point.

Such a form is a type and a way to get codes of it: where weights are, how they are written, what
they cost and how much must be kept of them is the same for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from irtools.errors import UsageError
from irtools.model import release_tensor
from irtools.passes.quantization.forms.base import Form, Key, WeightDecision
from irtools.passes.quantization.forms.decisions import UseDecision
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.names import names_of_stored
from irtools.passes.quantization.sites.reasons import PRECISION, TARGET, Reason
from irtools.passes.quantization.sites.stored import StoredWeight, find_stored
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.hidden_codes import misleads
from irtools.passes.quantization.write.stored import StorageWriter
from irtools.passmanager import Decision
from irtools.targets import Capabilities

__all__ = ["Codes", "StoredForm"]


_KEPT_BITS = 8


@dataclass(frozen=True, eq=False)
class Codes:
    """A weight as it is stored.

    Attributes:
        numbers: Of the form's type and the weight's shape.
        scale: float32, what they are multiplied by, of a shape that broadcasts; None: nothing.
    """

    numbers: np.ndarray
    scale: np.ndarray | None

    def values(self) -> np.ndarray:
        """Return what they stand for, in float32."""
        found = self.numbers.astype(np.float32)
        if self.scale is not None:
            found *= self.scale
        return found


@dataclass(frozen=True)
class StoredForm(Form[StoredWeight]):
    """Codes and a scale, which a runtime expands when it loads the model.

    Attributes:
        axes: Axes along which scales differ.
    """

    reasons: ClassVar[tuple[Reason, ...]] = (PRECISION, TARGET)
    counters: ClassVar[dict[str, str]] = {
        "num-stored-conv": "kernels of Conv and ConvTranspose stored in fewer bits",
        "num-stored-recurrent": "weights of LSTM, GRU and RNN stored in fewer bits",
        "num-stored-other": "other weights stored in fewer bits",
        "num-stored-subgraph": "weights in subgraphs and functions stored in fewer bits",
    }
    keeps_readers: ClassVar[bool] = True

    dtype: ClassVar[ir.DataType]
    """Of the codes; what `Capabilities.stored_types` names."""

    label: ClassVar[str]
    """The codes in a few letters, for `action`."""

    most_error: ClassVar[float] = 1e-3
    """Relative squared error of a weight beyond which it is left alone: 30 dB. What keeps less is
    mostly the work of a few large elements."""

    has_scale: ClassVar[bool] = True
    """Codes are multiplied by something; else they are the numbers themselves."""

    axes: tuple[int, ...] = ()

    @staticmethod
    def find(model: ir.Model) -> dict[Key, StoredWeight]:
        return {weight.key: weight for weight in find_stored(model).weights}

    @abstractmethod
    def encode(self, array: np.ndarray) -> Codes:
        """Return the codes of a weight, with scales along `axes`."""

    def largest(self, array: np.ndarray) -> np.ndarray:
        """Return the largest magnitude of what shares a scale: float32, of a shape that broadcasts.

        1 where all weights are zero, so that it can be divided by.
        """
        others = tuple(axis for axis in range(array.ndim) if axis not in self.axes)
        top = np.abs(array).max(axis=others, initial=0.0, keepdims=True).astype(np.float32)
        return np.where(top > 0, top, np.float32(1))

    def cast_through(self, weight: StoredWeight, capabilities: Capabilities) -> ir.DataType | None:
        """Return a type that codes are cast to on their way to float32; None: to none.

        Codes of 8 bits are hidden where a target would not expand them, or misread them.
        """
        if not capabilities.hides_stored_codes or self.dtype.bitwidth > _KEPT_BITS:
            return None
        if self.dtype.is_floating_point():
            return ir.DataType.FLOAT16
        return ir.DataType.INT32 if misleads(weight, self.axes) else None

    def arithmetic(self, weight: StoredWeight, capabilities: Capabilities) -> str:
        """Return what a target does with the weight, in words."""
        return "stored, expanded at loading"

    def decoded(self, weight: StoredWeight) -> np.ndarray:
        """Return what readers of a weight see once it is stored so."""
        array = weight.array()
        return self.encode(array).values().astype(array.dtype)

    def serves(self, weight: StoredWeight) -> bool:
        return True

    def fits(self, weight: StoredWeight, capabilities: Capabilities) -> Reason | None:
        return None if self.dtype.name.lower() in capabilities.stored_types else TARGET

    def decide(self, weight: StoredWeight, evidence: Evidence) -> Decision | Reason:
        array, tensor = weight.array(), weight.tensor
        found = {form: form.lost(array) for form in self._choices(weight)}
        form = min(found, key=lambda form: found[form])
        release_tensor(tensor)
        if not found[form] <= self.most_error:
            return PRECISION
        arithmetic = form.arithmetic(weight, evidence.capabilities)
        uses = tuple(UseDecision(node.outputs[0].name or "") for node in weight.readers)
        return Decision(
            subject=names_of_stored(weight)[0],
            action=f"{form.label}{form._granularity(weight)}, {arithmetic}",
            cost=float(f"{found[form]:.4g}"),
            gain=float(tensor.nbytes - form._stored_bytes(weight)),
            data=WeightDecision(weight.name, form, uses, weight.scope).to_data(),
        )

    def lost(self, array: np.ndarray) -> float:
        """Return the relative squared error of a weight."""
        difference = self.encode(array).values().reshape(-1)
        values = array.astype(np.float32, copy=False).reshape(-1)
        difference -= values
        # In units of the largest value: squares of weights near the float limit overflow.
        top = np.float32(max(values.max(initial=0.0), -values.min(initial=0.0))) or np.float32(1)
        values, difference = values / top, difference / top
        signal = float(np.dot(values, values))
        return float(np.dot(difference, difference)) / signal if signal else 0.0

    def write(self, desk: Desk, weight: StoredWeight, made: WeightDecision) -> None:
        codes = self.encode(weight.array())
        through = self.cast_through(weight, desk.capabilities)
        numbers = ir.Tensor(codes.numbers, self.dtype)
        desk.writer(StorageWriter).write(weight, numbers, codes.scale, through)

    def count(self, weight: StoredWeight) -> Counter[str]:
        if weight.scope:
            return Counter(["num-stored-subgraph"])
        known = {"conv": "num-stored-conv", "recurrent": "num-stored-recurrent"}
        return Counter([known.get(weight.kind, "num-stored-other")])

    def match(self, made: WeightDecision, weights: Mapping[Key, StoredWeight]) -> StoredWeight:
        weight = weights.get(made.key)
        wanted = {use.output for use in made.uses}
        if weight is None or {node.outputs[0].name for node in weight.readers} != wanted:
            where = f" in {made.scope!r}" if made.scope else ""
            raise UsageError(
                f"the plan does not fit the model: it has no floating-point weight "
                f"{made.weight!r}{where} read by {', '.join(map(repr, sorted(wanted)))}; make a "
                "new plan"
            )
        rank = len(weight.tensor.shape)
        if any(not 0 <= axis < rank for axis in self.axes):
            raise UsageError(
                f"the plan does not fit the model: {made.weight!r} has {rank} axes, the plan "
                f"scales it along {list(self.axes)}; make a new plan"
            )
        return weight

    def _choices(self, weight: StoredWeight) -> list[StoredForm]:
        if not self.has_scale:
            return [self]
        return [replace(self, axes=axes) for axes in weight.proposals]

    def _stored_bytes(self, weight: StoredWeight) -> int:
        shape = weight.tensor.shape.numpy()
        scales = int(np.prod([shape[axis] for axis in self.axes])) if self.has_scale else 0
        return weight.size * self.dtype.bitwidth // 8 + 4 * scales

    def _granularity(self, weight: StoredWeight) -> str:
        if not self.has_scale:
            return ""
        if weight.kind == "recurrent" and self.axes == (0, 1):
            return " per gate row"
        return {0: " per tensor", 1: f" per index of axis {self.axes[0] if self.axes else 0}"}.get(
            len(self.axes), f" per index of axes {', '.join(map(str, self.axes))}"
        )
