"""Where along the graph the numbers diverge, and weights that are not those of the first model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.worse.noise import falls, share_of_outputs
from irtools.causes.worse.stored import StoredWeight, compared_weights
from irtools.metrics import Fidelity
from irtools.words import printable, sqnr_text

__all__ = ["CoarseWeights", "NotFinite", "SpoiltLayer"]

_STEEP_DB = 6.0
_LEAST = 0.05
_SHOWN = 3
_SURE = 0.2
_PRUNED = 0.01
_FINE_DB = 30.0


class SpoiltLayer(Cause):
    """Tensors at which the SQNR falls."""

    name: ClassVar[str] = "spoilt-layer"
    gap: ClassVar[Gap] = Gap.WORSE
    is_place: ClassVar[bool] = True

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield the tensors that add most noise."""
        found = sorted(falls(facts), key=lambda one: -one[2])
        for tensor, before, share in found[:_SHOWN]:
            own = tensor.fidelity
            if share < _LEAST or before - own.sqnr_db < _STEEP_DB:
                return
            where = tensor.module if tensor.module not in ("", tensor.name) else tensor.name
            yield self.finding(
                f"SQNR falls from {_db(before)} to {_db(own.sqnr_db)} at {where} "
                f"({tensor.producer})",
                share,
                f"tensor {printable(tensor.name)}: {_figures(own)}",
                *_outputs(facts),
                command=commands.compare(facts),
                subjects=(where, tensor.name),
            )


class NotFinite(Cause):
    """Numbers that overflow to infinity, or are NaN."""

    name: ClassVar[str] = "not-finite"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield the first tensor that is finite in one of the models only."""
        if facts.comparison is None:
            return
        tensors = [(t.name, t.module, t.fidelity) for t in facts.comparison.layers]
        tensors += [(name, "", figure) for name, figure in facts.comparison.outputs.items()]
        for name, module, figure in tensors:
            if figure.nonfinite:
                yield self.finding(
                    f"{module or name} is NaN or infinite at {figure.nonfinite} places where the "
                    "other model is not",
                    1.0,
                    f"the first such tensor: {printable(name)}",
                    command=commands.compare(facts),
                    subjects=(name,),
                )
                return


class CoarseWeights(Cause):
    """Weights that the second model holds with a large error."""

    name: ClassVar[str] = "coarse-weights"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield the weights whose error explains most of the outputs' noise."""
        worst = sorted(compared_weights(facts), key=lambda weight: -weight.noise)
        for weight in worst[:_SHOWN]:
            share = share_of_outputs(facts, weight.noise)
            if share < _SURE or weight.sqnr_db > _FINE_DB or _is_usual(weight, worst):
                return
            yield self.finding(
                f"the weight of {weight.module or weight.node} is kept to "
                f"{weight.sqnr_db:.1f} dB: {_why(weight)}",
                share,
                f"{weight.first} against {weight.second}, {weight.form}",
                *([f"median of all weights: {_median(worst):.1f} dB"] if len(worst) > 2 else []),
                command=_answer(facts, weight),
                subjects=(weight.module or weight.node, weight.second),
            )


def _is_usual(weight: StoredWeight, others: list[StoredWeight]) -> bool:
    """Whether a weight is kept as well as most others: then no single one is the cause."""
    return len(others) > 2 and weight.sqnr_db > _median(others) - _STEEP_DB


def _median(weights: list[StoredWeight]) -> float:
    return float(np.median([min(weight.sqnr_db, 150.0) for weight in weights]))


def _answer(facts: Facts, weight: StoredWeight) -> str:
    if weight.is_quantized:
        return commands.sensitivity(facts, "cleanup,fuse,int8")
    if _is_pruned(weight):  # By what it does to the outputs, and with what is left refitted.
        return commands.optimize(facts, "cleanup,fuse,prune", "--calibrate", facts.data or "DATA")
    return commands.compare(facts)


def _is_pruned(weight: StoredWeight) -> bool:
    return weight.kept and weight.zeros > _PRUNED and not weight.same_as


def _why(weight: StoredWeight) -> str:
    if weight.same_as:
        return f"it holds the numbers of {printable(weight.same_as)}, another weight of A"
    if not weight.is_quantized and _is_pruned(weight):
        share = f"{100 * weight.zeros:.0f} %"
        return f"{share} of its numbers became zero and the others stayed as they were: pruned"
    if not weight.is_quantized:
        return "its numbers are other ones"
    if weight.spread > 10:
        return f"one scale for channels whose peaks differ {weight.spread:.0f}x"
    return f"{weight.form} are too few steps for it"


def _outputs(facts: Facts) -> Iterator[str]:
    if facts.comparison is not None:
        shown = ", ".join(
            f"{printable(name)} {sqnr_text(one.sqnr_db)}"
            for name, one in list(facts.comparison.outputs.items())[:3]
        )
        yield f"outputs: {shown} ({facts.comparison.samples} samples)"


def _figures(found: Fidelity) -> str:
    return (
        f"relative error {found.relative_l2:.3g}, largest {found.max_abs:.3g}, "
        f"cosine {found.cosine:.4f}"
    )


def _db(value: float) -> str:
    return "equal" if value >= 150 else f"{value:.1f} dB"
