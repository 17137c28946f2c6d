"""Tables in 8 bits, a scale for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.passes.quantization.forms.base import WeightDecision
from irtools.passes.quantization.forms.weights import (
    LOOKUPS,
    Loss,
    WeightForm,
    even_rows,
    kinds_of,
)
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.ranges.spec import PerAxis, weight_spec
from irtools.passes.quantization.sites.uses import Weight
from irtools.passes.quantization.write.desk import Desk
from irtools.passes.quantization.write.embedding import write_embedding

__all__ = ["RowTable"]


@dataclass(frozen=True)
class RowTable(WeightForm):
    """s8 per row, dequantized after the lookup: Cast and Mul, of every opset."""

    name: ClassVar[str] = "rows"
    counters: ClassVar[dict[str, str]] = {LOOKUPS: "embedding tables in 8 or 4 bits"}
    is_table: ClassVar[bool] = True

    @property
    def action(self) -> str:
        return "s8 per row, dequantized after the lookup"

    def serves(self, weight: Weight) -> bool:
        return kinds_of(weight) == {"gather"}

    def rounded(self, weight: Weight, evidence: Evidence) -> Loss:
        return Loss.of(even_rows(weight.array(), 0), weight_spec(PerAxis(0)), 0)

    def stored_bytes(self, weight: Weight) -> int:
        return weight.size + 4 * int(weight.tensor.shape.numpy()[0])

    def write(self, desk: Desk, weight: Weight, made: WeightDecision) -> None:
        write_embedding(desk.editor, weight)
