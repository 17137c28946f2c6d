"""Which weights are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import onnx_ir as ir

from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.ranges.blocks import is_finite
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.names import names_of_stored, selects
from irtools.passes.quantization.sites.reasons import (
    EMBEDDING,
    EXCLUDED,
    NONFINITE,
    SMALL,
    Reason,
    Skips,
)
from irtools.passes.quantization.sites.stored import REASONS as SITE_REASONS
from irtools.passes.quantization.sites.stored import StoredWeight, find_stored
from irtools.passmanager import Decision
from irtools.words import counted

__all__ = ["REASONS", "StoragePlanner"]

REASONS = (EXCLUDED, SMALL, EMBEDDING, NONFINITE, *SITE_REASONS)
"""Why a planner leaves a weight alone before its form is asked."""

_SHARE = 2000
_LEAST_SHARE = 16


@dataclass
class StoragePlanner:
    """Decides which weights are stored.

    Attributes:
        form: What they become.
        evidence: What is known of the target.
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay in floating point, in models much larger than that. Where
            all weights together have fewer than 2000 times as many, the limit is lower, down to a
            16th: what is a small weight of a large model is most of a small one.
        tables: Also tables that are looked up in.
        kernels_need_data: With calibration data, kernels of Conv would be multiplied in int8.
        skipped: What is left alone.
    """

    form: StoredForm
    evidence: Evidence
    exclude: tuple[str, ...]
    min_size: int
    tables: bool = True
    kernels_need_data: bool = False
    skipped: Skips = field(default_factory=Skips)

    def decide(self, model: ir.Model, taken: Collection[str]) -> tuple[Decision, ...]:
        """Make one decision per weight.

        Args:
            model: Stays as it is.
            taken: Names of weights of the main graph that have another form.
        """
        sites = find_stored(model, self.min_size)
        least = min(self.min_size, max(sites.total // _SHARE, self.min_size // _LEAST_SHARE))
        self.skipped.take(sites.skipped)
        made = []
        kernels = 0
        for weight in sites.weights:
            if not weight.scope and weight.name in taken:
                continue
            decision = self._refusal(weight, least) or self.form.decide(weight, self.evidence)
            if isinstance(decision, Reason):
                self.skipped.add(decision)
            else:
                made.append(decision)
                kernels += weight.kind == "conv"
        if kernels and self.kernels_need_data:
            self.skipped.note(
                f"stored in 8 bits and multiplied in float32: {counted(kernels, 'Conv weight')}; "
                "int8 kernels need ranges: give calibration data, or mode=static"
            )
        return tuple(made)

    def _refusal(self, weight: StoredWeight, least: int) -> Reason | None:
        names = names_of_stored(weight)
        if selects(self.exclude, names) is not None:
            return EXCLUDED
        if weight.kind == "lookup" and not self.tables:
            return EMBEDDING
        if weight.size < least:
            return SMALL
        if not is_finite(weight.array()):
            return NONFINITE.because(name=names[0])
        return self.form.fits(weight, self.evidence.capabilities)
