"""8-bit weights that are multiplied by 8-bit activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from irtools.passes.quantization.forms.weights import (
    LOOKUPS,
    PRODUCTS,
    Loss,
    WeightForm,
    kinds_of,
)
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import PerAxis, WeightRange, weight_spec
from irtools.passes.quantization.sites.uses import Weight

__all__ = ["ROUNDED_FOR_DATA", "Multiplied", "counted_for_data"]

_ROUNDED = "num-rounded-for-data"
ROUNDED_FOR_DATA: Mapping[str, str] = MappingProxyType(
    {_ROUNDED: "weights whose codes are chosen for calibration data"}
)
"""The counter of forms with a rounding for data."""

_NARROW: Mapping[WeightRange, str] = {
    "full": "",
    "pairs": " (pairs within 16 bits)",
    "7-bit": " (7 bits)",
}
_NOTES: Mapping[WeightRange, str] = {
    "full": "",
    "pairs": "weights keep less than 8 bits where sums of neighbouring products could leave 16 "
    "bits, which saturate on CPUs without VNNI",
    "7-bit": "weights keep 7 bits, so that products do not saturate on CPUs without VNNI",
}


def counted_for_data(rounding: str) -> Counter[str]:
    """Return what a weight adds to the counter of those that are rounded for data."""
    return Counter({_ROUNDED: 1} if rounding else {})


@dataclass(frozen=True)
class Multiplied(WeightForm):
    """s8 weights with a scale for each output channel.

    Attributes:
        weight_range: How much of 8 bits they use.
    """

    counters: ClassVar[dict[str, str]] = {
        PRODUCTS: "MatMul and Gemm nodes in int8",
        LOOKUPS: "embedding tables in 8 or 4 bits",
    }
    rounds_activations: ClassVar[bool] = True

    weight_range: WeightRange = "full"

    @property
    def weights(self) -> str:
        """The form of the weights, in words."""
        return f"s8 per channel{_NARROW[self.weight_range]}"

    @property
    def note(self) -> str:
        return _NOTES[self.weight_range]

    def stored_bytes(self, weight: Weight) -> int:
        return weight.size + 4 * int(weight.tensor.shape.numpy()[weight.uses[0].axis])

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) <= {"matmul", "gemm"}

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        axis = weight.uses[0].axis
        return Loss.of(weight.array(), weight_spec(PerAxis(axis), self.weight_range), axis)
