"""Forms of weights whose readers are rewritten: products and lookups of the main graph."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import onnx_ir as ir

from irtools.errors import UsageError
from irtools.model import release_tensor
from irtools.passes.quantization.forms.base import Form, Key, WeightDecision
from irtools.passes.quantization.forms.decisions import UseDecision
from irtools.passes.quantization.ranges.arithmetic import dequantize, quantize_weight
from irtools.passes.quantization.ranges.blocks import SLAB_ELEMENTS
from irtools.passes.quantization.ranges.cost import matrix_view, relative_error
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import QuantSpec
from irtools.passes.quantization.sites.find import find_sites
from irtools.passes.quantization.sites.names import names_of
from irtools.passes.quantization.sites.reasons import OPERATOR, Reason
from irtools.passes.quantization.sites.uses import Use, Weight
from irtools.passmanager import Decision
from irtools.targets import Capabilities

__all__ = ["LOOKUPS", "PRODUCTS", "Loss", "WeightForm", "even_rows", "kinds_of", "vector_refusal"]

PRODUCTS = "num-quantized-matmul"
LOOKUPS = "num-quantized-embedding"
_COUNTERS = {"matmul": PRODUCTS, "gemm": PRODUCTS, "conv": "num-quantized-conv", "gather": LOOKUPS}


@dataclass(frozen=True, eq=False)
class Loss:
    """What rounding takes from a weight, or from some of its output channels.

    Attributes:
        values: [K, N] or [N, K], of a Conv [O, I/g, ..].
        error: Values minus what is stored for them, of the same shape.
        axis: The output-channel axis.
    """

    values: np.ndarray
    error: np.ndarray
    axis: int

    @classmethod
    def of(cls, values: np.ndarray, spec: QuantSpec, axis: int) -> Loss:
        """Round values as a spec says."""
        return cls(values, values - dequantize(*quantize_weight(values, spec)), axis)


@dataclass(frozen=True)
class WeightForm(Form[Weight]):
    """What the weight of products or lookups can become, together with what reads it."""

    rounds_for_data: ClassVar[bool] = False
    """Its codes are chosen so that errors make up for each other, where a pass is asked to."""

    is_table: ClassVar[bool] = False
    """It is for what is looked up in: an option may leave such weights alone."""

    @property
    def note(self) -> str:
        """What a reader of the report must know of a model that has such weights; or ''."""
        return ""

    @staticmethod
    def find(model: ir.Model) -> dict[Key, Weight]:
        return {("", weight.name): weight for weight in find_sites(model).weights}

    def fitted(self, weight: Weight, evidence: Evidence) -> Self | Reason:
        """Return the form with its fields as this weight needs them."""
        return self

    @property
    @abstractmethod
    def action(self) -> str:
        """What is done, in words."""

    @abstractmethod
    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        """Return what is lost of the weight, or of a fair sample of its output channels."""

    @abstractmethod
    def stored_bytes(self, weight: Weight) -> int:
        """Return the bytes of all that takes the place of the weight."""

    def use(self, use: Use, loss: Loss, evidence: Evidence) -> UseDecision:
        """Return what happens at one reader."""
        return UseDecision(use.output.name or "")

    def cost(self, use: Use, loss: Loss, evidence: Evidence) -> float:
        """Predict the relative squared error of one reader's output."""
        if use.kind == "gather":
            return relative_error(loss.values, loss.error, None, 0.0)
        groups = use.node.attributes.get_int("group", 1)
        return relative_error(
            matrix_view(loss.values, loss.axis, groups),
            matrix_view(loss.error, loss.axis, groups),
            evidence.square(use.activation),
            0.0,
            remaining=evidence.remaining.get(use.activation) if self.rounds_for_data else None,
        )

    def decide(self, weight: Weight, evidence: Evidence) -> Decision | Reason:
        form = self.fitted(weight, evidence)
        if isinstance(form, Reason):
            return form
        loss = form.rounded(weight, evidence)
        release_tensor(weight.tensor)
        return form.decision(weight, loss, evidence)

    def decision(self, weight: Weight, loss: Loss, evidence: Evidence) -> Decision:
        """Return the decision for this form, fitted to a weight of which so much is lost."""
        uses = tuple(self.use(use, loss, evidence) for use in weight.uses)
        cost = max(self.cost(use, loss, evidence) for use in weight.uses)
        return Decision(
            subject=next(names_of(weight)),
            action=self.action,
            cost=float(f"{cost:.4g}"),
            gain=float(weight.tensor.nbytes - self.stored_bytes(weight)),
            data=WeightDecision(weight.name, self, uses).to_data(),
        )

    def count(self, weight: Weight) -> Counter[str]:
        found = Counter(_COUNTERS[use.kind] for use in weight.uses)
        if found[LOOKUPS]:
            found[LOOKUPS] = 1
        return found

    def match(self, made: WeightDecision, weights: Mapping[Key, Weight]) -> Weight:
        weight = weights.get(made.key)
        wanted = {use.output for use in made.uses}
        if weight is None or {use.output.name for use in weight.uses} != wanted:
            raise UsageError(
                f"the plan does not fit the model: it has no float32 weight {made.weight!r} read "
                f"by {', '.join(repr(use.output) for use in made.uses)}; make a new plan"
            )
        return weight


def kinds_of(weight: Weight) -> set[str]:
    """Return what reads a weight: `matmul`, `gemm`, `conv`, `gather`."""
    return {use.kind for use in weight.uses}


def vector_refusal(weight: Weight, capabilities: Capabilities) -> Reason | None:
    """Return why a weight that a vector is multiplied by, x [K] @ W [K, N], is left alone."""
    shapes = (use.activation.shape for use in weight.uses if use.kind == "matmul")
    if capabilities.int8_vectors or all(shape is None or len(shape) != 1 for shape in shapes):
        return None
    return OPERATOR


def even_rows(array: np.ndarray, axis: int) -> np.ndarray:
    """Return about 130,000 numbers of a matrix: some output channels as rows [R, K], evenly spread.

    Args:
        axis: The output-channel axis.
    """
    channels, inner = array.shape[axis], array.shape[1 - axis]
    count = min(channels, max(SLAB_ELEMENTS // max(inner, 1), 1))
    rows = np.arange(count) * channels // count
    return np.ascontiguousarray(array[rows] if axis == 0 else array[:, rows].T)
