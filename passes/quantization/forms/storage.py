"""Which weights are stored in fewer bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
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
from irtools.targets import Capabilities
from irtools.words import counted

__all__ = ["REASONS", "IntegerKernels", "StoragePlanner"]

REASONS = (EXCLUDED, SMALL, EMBEDDING, NONFINITE, *SITE_REASONS)
"""Why a planner leaves a weight alone before its form is asked."""

_SHARE = 2000
_LEAST_SHARE = 16


@dataclass(frozen=True)
class IntegerKernels:
    """Which weights the int8 kernels of a target take.

    Attributes:
        graph: The main graph; nodes elsewhere are not multiplied in int8.
        names: Weights of the main graph that could be multiplied in int8.
        need_ranges: Kernels of Conv take part only with ranges of activations, and there are none.
    """

    graph: ir.Graph
    names: Collection[str]
    need_ranges: bool

    def notes(self, weights: Iterable[StoredWeight], capabilities: Capabilities) -> Iterator[str]:
        """Say which of the weights that are stored are multiplied in floating point, and why."""
        waiting, halves, without = 0, Counter[str](), Counter[str]()
        for weight in weights:
            ops = {node.op_type for node in weight.readers}
            if weight.kind == "lookup" or ops <= capabilities.int8_recurrent:
                continue
            label = "/".join(sorted(ops))
            if any(node.graph is not self.graph for node in weight.readers):
                without[f"{label} in branches, loops or functions"] += 1
            elif weight.name in self.names:
                waiting += weight.kind == "conv"
            elif weight.tensor.dtype != ir.DataType.FLOAT:
                halves[weight.tensor.dtype.name.lower()] += 1
            else:
                without[label] += 1
        if waiting and self.need_ranges:
            yield (
                f"stored in 8 bits and multiplied in float32: {counted(waiting, 'Conv weight')}; "
                "int8 kernels need ranges: give calibration data, or mode=static"
            )
        for dtype, count in halves.items():
            yield (
                f"stored in 8 bits and multiplied in floating point: {counted(count, 'weight')} of "
                f"{dtype}; int8 kernels take weights of float32: start from the file in float32"
            )
        if without:
            found = ", ".join(f"{count} of {label}" for label, count in without.most_common())
            yield (
                "stored in 8 bits and multiplied in float32, since no int8 kernel takes them: "
                f"weights ({found})"
            )


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
        integers: Weights of the main graph that some int8 kernel of the target takes, and whether
            that of Conv waits for calibration data; None: products are not multiplied in integers.
        skipped: What is left alone.
    """

    form: StoredForm
    evidence: Evidence
    exclude: tuple[str, ...]
    min_size: int
    tables: bool = True
    integers: IntegerKernels | None = None
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
        in_floats = []
        for weight in sites.weights:
            if not weight.scope and weight.name in taken:
                continue
            decision = self._refusal(weight, least) or self.form.decide(weight, self.evidence)
            if isinstance(decision, Reason):
                self.skipped.add(decision)
            else:
                made.append(decision)
                in_floats.append(weight)
        if self.integers is not None:
            self.skipped.note(*self.integers.notes(in_floats, self.evidence.capabilities))
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
