"""`sparsify`: set weights to zero, and keep every shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import onnx_ir as ir

from irtools.analysis.provenance import selects
from irtools.errors import OptionError, UsageError
from irtools.passes.pruning.left_alone import count_quantized
from irtools.passes.pruning.shares import pooled_shares, weighed_shares
from irtools.passes.pruning.sparse_weights import (
    SparseWeight,
    Zeros,
    cost_of,
    find_weights,
    in_waves,
    set_zeros,
)
from irtools.passes.pruning.zeros import Method, Pattern
from irtools.passmanager import (
    FOUND_WEIGHTS,
    Decision,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.words import counted

__all__ = ["Sparsify"]

DEFAULT_RATIO = 0.25
_NOTE = "zeros make the file compress better; the runtimes compute them like any number"


@dataclass(frozen=True)
class Sparsify(PlanningPass):
    """Set weights of MatMul, Gemm and Conv to zero, and keep every shape.

    The file compresses better: ONNX Runtime and OpenVINO compute zeros like any other number, so
    nothing gets faster, and the file itself keeps its size. Structure is removed by `prune`.

    With calibration data the weights go that the output of their layer misses least (`sparsegpt`,
    Frantar & Alistarh 2023), what stays is refitted by least squares, and layers whose errors move
    the model's outputs least give most. Without data the smallest weights go (`magnitude`). `wanda`
    (Sun et al. 2023) multiplies a weight by the size of its input. Products whose inputs are not
    observed, such as wide convolutions, are ranked by magnitude in any case and not refitted.

    `pattern=2of4` leaves two of four neighbouring inputs (2:4), `4of8` four of eight; then half of
    each weight goes.
    """

    name: ClassVar[str] = "sparsify"
    requires: ClassVar[tuple[str, ...]] = FOUND_WEIGHTS
    counters: ClassVar[Mapping[str, str]] = {
        "num-weights-zeroed": "weights set to zero",
        "num-ranked-by-magnitude": "tensors ranked by magnitude, as their inputs are not observed",
        "num-skipped-no-blocks": "tensors whose inputs are not a multiple of the N:M block",
        "num-skipped-quantized": "products left alone because their weights are integers",
        "num-skipped-shared": "tensors left alone because other operators read them as well",
    }

    ratio: float | None = option(
        None, f"Share of the weights that become zero, {DEFAULT_RATIO} if not given; N:M say it."
    )
    method: Literal["magnitude", "wanda", "sparsegpt"] | None = option(
        None, "How they are chosen; none: sparsegpt with calibration data, magnitude without."
    )
    pattern: Literal["unstructured", "2of4", "4of8"] = option(
        "unstructured", "Where zeros may be: anywhere, or so many of each block of inputs."
    )
    scope: Literal["global", "local"] = option(
        "global", "Take more from layers that matter less, or the same share from each."
    )
    refit: bool = option(True, "Refit what stays by least squares on the calibration data.")
    exclude: tuple[str, ...] = option(
        (), "Module patterns that are left alone (`layer.0`, `classifier*`)."
    )

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio of sparsify is {self.ratio:g}, expected 0 <= ratio < 1")
        if self.pattern == "unstructured":
            return
        if self.ratio is not None:
            raise OptionError(f"pattern={self.pattern} says how many weights go; leave out ratio")
        if self.scope == "local":
            raise OptionError(
                f"pattern={self.pattern} takes the same share from each; leave out scope"
            )

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        """Decide how many zeros each weight gets, the least missed first.

        Raises:
            UsageError: The method needs calibration data, and there is none.
        """
        method = self._method(ctx)
        every, shared = find_weights(model)
        chosen = [w for w in every if selects(self.exclude, [w.module, w.name]) is None]
        pattern = Pattern.parse(self.pattern)
        weights = [w for w in chosen if pattern.fits(w.inputs)]
        zeros: Mapping[str, Zeros] = {
            w.name: Zeros(
                self._count(w, pattern),
                pattern,
                method if w.is_observable else "magnitude",
                self.refit and w.is_observable and ctx.calibration is not None,
            )
            for w in weights
        }
        zeros, costs, unit = self._shared_out(model, weights, zeros, ctx)
        quantized = count_quantized(model)
        by_magnitude = sum(z.method != method for z in zeros.values())
        counters = {
            "num-ranked-by-magnitude": by_magnitude,
            "num-skipped-no-blocks": len(chosen) - len(weights),
            "num-skipped-quantized": quantized,
            "num-skipped-shared": shared,
        }
        decisions = [
            _decision(weight, zeros[weight.name], cost)
            for weight, cost in zip(weights, costs, strict=True)
            if zeros[weight.name].count
        ]
        note = _NOTE
        if not decisions and self.ratio != 0:
            note = f"nothing set to zero: {_why_nothing(chosen, quantized)}"
        return Plan(
            pass_text(self),
            tuple(sorted(decisions, key=lambda d: (d.cost, d.subject))),
            unit,
            "zeros",
            (note,),
            {name: count for name, count in counters.items() if count},
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        """Set to zero what the plan names.

        Raises:
            UsageError: The plan is not for this model, or needs calibration data.
        """
        zeros = {d.subject: _zeros_of(d) for d in plan.decisions}
        weights, _ = find_weights(model, zeros)
        _check(zeros, weights)
        if ctx.calibration is None and any(found.needs_data for found in zeros.values()):
            raise UsageError("the plan was made with calibration data: give it (--calibrate)")
        dense, zeroed, notes = model.clone(), 0, list(plan.notes)
        for wave, evidence in in_waves(dense, find_weights(dense, zeros)[0], zeros, ctx):
            zeroed += set_zeros(model, {w.name: zeros[w.name] for w in wave}, evidence)
            notes.extend(evidence.notes)
        counts = {**plan.counters, "num-weights-zeroed": zeroed}
        return PassResult(zeroed > 0, counts, tuple(dict.fromkeys(notes)), plan=plan)

    def _method(self, ctx: PassContext) -> Method:
        found = self.method or ("magnitude" if ctx.calibration is None else "sparsegpt")
        if found != "magnitude" and ctx.calibration is None:
            raise UsageError(
                f"method={found} of sparsify needs calibration data: give it (--calibrate), or "
                "method=magnitude"
            )
        return found

    def _count(self, weight: SparseWeight, pattern: Pattern) -> int:
        size = weight.array().size
        return pattern.count(size) if pattern.block else int(size * self._share)

    @property
    def _share(self) -> float:
        return DEFAULT_RATIO if self.ratio is None else self.ratio

    def _shared_out(
        self,
        model: ir.Model,
        weights: Sequence[SparseWeight],
        zeros: Mapping[str, Zeros],
        ctx: PassContext,
    ) -> tuple[Mapping[str, Zeros], list[float], str]:
        """Return the zeros of each weight, what they cost, and in which unit.

        Args:
            model: The model.
            weights: The weights.
            zeros: By name; the same share of each.
            ctx: As of the pass.
        """
        known = any(found.method != "magnitude" for found in zeros.values())
        if self.pattern == "unstructured" and self.scope == "global":
            if known:
                counts, costs = weighed_shares(model, weights, zeros, self._share, ctx)
                return _with_counts(zeros, counts), costs, "output divergence"
            zeros = _with_counts(zeros, pooled_shares(weights, self._share))
        costs = [
            cost_of(weight, zeros[weight.name], evidence)
            for wave, evidence in in_waves(model, weights, zeros, ctx)
            for weight in wave
        ]
        return zeros, costs, "relative squared error" if known else "share of squared norm"


def _with_counts(zeros: Mapping[str, Zeros], counts: Sequence[int]) -> dict[str, Zeros]:
    pairs = zip(zeros.items(), counts, strict=True)
    return {name: replace(found, count=count) for (name, found), count in pairs}


def _decision(weight: SparseWeight, zeros: Zeros, cost: float) -> Decision:
    size = weight.array().size
    return Decision(
        weight.name,
        f"zero {zeros.count} of {counted(size, 'weight')} of {weight.module}",
        cost=cost,
        gain=float(zeros.count),
        data={
            "zeros": zeros.count,
            "pattern": str(zeros.pattern),
            "method": zeros.method,
            "refit": zeros.refit,
        },
    )


def _zeros_of(decision: Decision) -> Zeros:
    data = decision.data
    methods: tuple[Method, ...] = get_args(Method)
    try:
        count, method = data["zeros"], next(m for m in methods if m == data["method"])
        pattern = Pattern.parse(str(data["pattern"]))
        if not isinstance(count, int) or count < 0:
            raise ValueError(count)
    except (KeyError, StopIteration, ValueError) as error:
        raise UsageError(
            f"the plan does not say how {decision.subject!r} becomes sparse"
        ) from error
    return Zeros(count, pattern, method, data.get("refit") is True)


def _check(zeros: Mapping[str, Zeros], weights: Sequence[SparseWeight]) -> None:
    """Refuse the plan of another model.

    Raises:
        UsageError: A weight is not there, is smaller, or has no such blocks.
    """
    if missing := set(zeros) - {weight.name for weight in weights}:
        raise UsageError(f"the plan names weight {min(missing)!r}, which is not there")
    for weight in weights:
        found, size = zeros[weight.name], weight.array().size
        if found.count > size or not found.pattern.fits(weight.inputs):
            raise UsageError(
                f"weight {weight.name!r}: the plan sets {found.count} numbers to zero "
                f"({found.pattern}), and it has {size} for {weight.inputs} inputs"
            )


def _why_nothing(weights: Sequence[SparseWeight], quantized: int) -> str:
    if quantized and not weights:
        return (
            f"{counted(quantized, 'product')} {'is' if quantized == 1 else 'are'} quantized "
            "already, and only weights in floating point become zero: sparsify before quantizing"
        )
    return "no weight is left to choose from"
