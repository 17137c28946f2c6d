"""`prune`: remove what the outputs miss least."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.analysis.channels import NO_RULE, BlockedGroup, ChannelGroup, ChannelGroups
from irtools.analysis.provenance import selects
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import require_weight, weight_of
from irtools.errors import OptionError, UnsupportedError, UsageError
from irtools.measure.own_machine import refuse_foreign
from irtools.operators import op_key
from irtools.passes.pruning.curves import Importance
from irtools.passes.pruning.evidence import Evidence, collect_evidence
from irtools.passes.pruning.idle import count_quantized, why_nothing
from irtools.passes.pruning.masks import (
    Prunable,
    blocked_mask,
    prunable_weights,
    smallest_mask,
    write_masked,
)
from irtools.passes.pruning.refit import cut_and_refit
from irtools.passes.pruning.sequence import refit_in_sequence
from irtools.passes.pruning.structured import (
    SelectionSettings,
    make_candidates,
    select_free,
    select_ratio,
    select_speedup,
)
from irtools.passmanager import (
    FOLLOWED_GRAPH,
    Decision,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.words import counted

__all__ = ["Prune", "blocked_notes"]

DEFAULT_RATIO = 0.25
_MAX_REASONS = 5
_RANK = "rank"
"""Word of every reason that a rule with shapes would have answered."""
_MAX_NAME = 60
_COUNTS = {"heads": "num-heads-removed", "neurons": "num-neurons-removed"}


@dataclass(frozen=True)
class Prune(PlanningPass):
    """Remove attention heads, feed-forward neurons and convolution channels.

    Structure is removed, so the model gets faster on every runtime. Units that belong together
    are found by following channels through the graph; what passes an operator without a channel
    rule is left alone and reported.

    With calibration data the units are ranked by the second-order error of the layer that sums
    them up (structured optimal brain surgeon), the layers are weighed against each other by how
    much the model's outputs move, and what stays is refitted by least squares. No training takes
    place. Without calibration data units are ranked by the norm of their weights, and unless
    `ratio` or `speedup` says how much, only those whose weights are zero go. With
    `sequential=true` each layer is refitted once more, to the inputs that the pruned layers before
    it give; on a MiniLM-L6 classifier with half of its prunable parameters gone that gained 0.6 dB
    (22.8 to 23.3 dB) and no accuracy, so it is not the default.

    Heads that share a key and a value head go together, and so do the units of layers that share
    their weights. Where all layers gather by one index of positions, as in DeBERTa, the same heads
    go from all of them; biases of positions (MPNet, T5) tie nothing.

    How much is removed is given as `ratio`, a share of the prunable parameters, or as `speedup`,
    a latency ratio on the target. Blocks of the model, timed once per shape, predict what a layer
    gains; the speed-up itself is measured on the whole pruned model.

    With `method=magnitude` single weights are set to zero instead. The file compresses better;
    ONNX Runtime and OpenVINO compute zeros like any other number, so nothing gets faster.
    """

    name: ClassVar[str] = "prune"
    idempotent: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[Mapping[str, str]] = {
        "num-heads-removed": "attention heads removed",
        "num-neurons-removed": "feed-forward neurons removed",
        "num-channels-removed": "convolution channels removed",
        "num-parameters-removed": "parameters removed",
        "num-weights-zeroed": "weights set to zero",
        "num-groups-blocked": "groups of channels that cannot be pruned",
        "num-lacking-channel-rule": "of these, because an operator has no channel rule",
        "num-skipped-quantized": "products left alone because their weights are integers",
        "num-skipped-no-blocks": "weights that are not a multiple of the N:M block",
    }

    method: Literal["structured", "magnitude"] = option(
        "structured", "Remove structure, or set single weights to zero."
    )
    ratio: float | None = option(
        None,
        f"Share of the prunable parameters to remove; none: {DEFAULT_RATIO} with calibration "
        "data, without it only units whose weights are zero.",
    )
    speedup: float | None = option(
        None, "Latency ratio to reach on the target, measured; excludes ratio."
    )
    importance: Literal["magnitude", "activation", "obs"] | None = option(
        None, "How units are ranked; none: obs with calibration data, magnitude without."
    )
    scope: Literal["global", "local"] = option(
        "global", "Choose levels over all layers together, or remove the same share from each."
    )
    round_to: int = option(16, "Widths that stay are multiples of this; heads are not rounded.")
    min_width: int = option(1, "Units of a group that always stay.")
    refit: bool = option(True, "Refit what stays by least squares on the calibration data.")
    sequential: bool = option(
        False,
        "Refit layer after layer, each to what the pruned layers before it give: up to twelve "
        "more sweeps of the calibration data, through both models.",
    )
    exclude: tuple[str, ...] = option(
        (), "Module patterns that are left alone (`layer.0`, `classifier*`)."
    )
    heads: bool = option(True, "Prune attention heads.")
    ffn: bool = option(True, "Prune feed-forward neurons.")
    conv: bool = option(True, "Prune convolution channels.")
    pattern: Literal["unstructured", "2:4", "4:8"] = option(
        "unstructured", "Where zeros may be, with method=magnitude."
    )

    def __post_init__(self) -> None:
        if self.ratio is not None and self.speedup is not None:
            raise OptionError("prune takes ratio or speedup, not both")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio of prune is {self.ratio:g}, expected 0 <= ratio < 1")
        if self.speedup is not None and not self.speedup >= 1:
            raise OptionError(f"speedup of prune is {self.speedup:g}, expected at least 1")
        if self.round_to < 1 or self.min_width < 1:
            raise OptionError("round-to and min-width of prune are at least 1")
        if self.method == "magnitude" and self.speedup is not None:
            raise OptionError("method=magnitude makes nothing faster; give ratio, not speedup")
        if self.method == "structured" and self.pattern != "unstructured":
            raise OptionError(f"pattern={self.pattern} needs method=magnitude")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        """Decide what goes, the least missed for its gain first."""
        if self.method == "magnitude":
            return self._plan_zeros(model)
        self._check_timing(ctx)
        groups = self._chosen_groups(model, ctx)
        return self._plan_structure(model, groups, self._evidence(model, groups, ctx), ctx)

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        """Remove what the plan names and refit what stays.

        Raises:
            UsageError: The plan is not for this model.
        """
        if self.method == "magnitude":
            return self._apply_zeros(model, plan)
        wanted = {d.subject for d in plan.decisions}
        groups = [g for g in ctx.analysis(ChannelGroups, model) if g.name in wanted]
        evidence = self._evidence(model, groups, ctx) if self.refit else Evidence()
        return self._apply_structure(model, plan, evidence, ctx)

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Plan and apply on one collection of statistics."""
        if self.method == "magnitude":
            return self._apply_zeros(model, self._plan_zeros(model))
        self._check_timing(ctx)
        groups = self._chosen_groups(model, ctx)
        evidence = self._evidence(model, groups, ctx)
        plan = self._plan_structure(model, groups, evidence, ctx)
        return self._apply_structure(model, plan, evidence if self.refit else Evidence(), ctx)

    def _check_timing(self, ctx: PassContext) -> None:
        """Refuse at once what would be refused after the statistics.

        Raises:
            UsageError: A speed-up on another machine than this one is asked for.
        """
        if self.speedup is not None:
            refuse_foreign(ctx.target, f"speedup={self.speedup:g}", "give ratio= instead")

    def _chosen_groups(self, model: ir.Model, ctx: PassContext) -> list[ChannelGroup]:
        wanted = {"heads": self.heads, "neurons": self.ffn, "channels": self.conv}
        return [
            g
            for g in ctx.analysis(ChannelGroups, model)
            if wanted[g.kind] and not self._is_excluded(g.name)
        ]

    def _is_excluded(self, name: str) -> bool:
        return selects(self.exclude, [name]) is not None

    def _importance(self, ctx: PassContext) -> Importance:
        return self.importance or ("magnitude" if ctx.calibration is None else "obs")

    def _evidence(
        self, model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext
    ) -> Evidence:
        # Data drawn from the signature may rank units, but weights are not bent towards it.
        needed = self._importance(ctx) != "magnitude" or (
            self.refit and ctx.calibration is not None
        )
        return collect_evidence(model, groups, ctx) if needed and groups else Evidence()

    def _plan_structure(
        self,
        model: ir.Model,
        groups: Sequence[ChannelGroup],
        evidence: Evidence,
        ctx: PassContext,
    ) -> Plan:
        notes = self._notes(model, ctx)
        if self.refit and ctx.calibration is not None:
            notes += evidence.notes
        blocked = ctx.analysis(ChannelGroups, model).blocked
        counts = {"num-groups-blocked": len(blocked)}
        if unruled := sum(group.reasons[0].text == NO_RULE for group in blocked):
            counts["num-lacking-channel-rule"] = unruled
        if quantized := count_quantized(model):
            counts["num-skipped-quantized"] = quantized
        importance = self._importance(ctx)
        unit = "output divergence" if ctx.calibration is not None else "relative squared error"
        if not groups:
            why = self._why_nothing(model, groups, ctx)
            if self.speedup is not None and self.speedup > 1:
                raise UnsupportedError(f"speedup={self.speedup:g} cannot be reached: {why}")
            reasons = _reasons(model, ctx)
            return Plan(pass_text(self), (), unit, "", (f"nothing pruned: {why}", *reasons), counts)
        selection = SelectionSettings(self.round_to, self.min_width, self.scope == "global")
        refits = evidence if self.refit else Evidence(evidence.problems)
        candidates = make_candidates(model, groups, importance, refits, selection, ctx)
        if self.speedup is not None:
            decisions, note = select_speedup(candidates, self.speedup, model, ctx)
            return Plan(pass_text(self), decisions, unit, "ms", (*notes, note), counts)
        if self._takes_nothing_of_worth(ctx):
            decisions, gain = select_free(candidates)
            if not decisions:
                notes = ("nothing pruned: no unit has only zeros as weights", *notes)
            return Plan(pass_text(self), decisions, unit, gain, notes, counts)
        ratio = DEFAULT_RATIO if self.ratio is None else self.ratio
        decisions, gain = select_ratio(candidates, ratio)
        if not decisions and ratio:
            notes = (f"nothing pruned: {self._why_nothing(model, groups, ctx)}", *notes)
        return Plan(pass_text(self), decisions, unit, gain, notes, counts)

    def _takes_nothing_of_worth(self, ctx: PassContext) -> bool:
        """Whether only units without weight go: nothing says how much else may."""
        return ctx.calibration is None and self.ratio is None and self.speedup is None

    def _why_nothing(
        self, model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext
    ) -> str:
        every = ctx.analysis(ChannelGroups, model)
        return why_nothing(
            model, found=len(every.groups), blocked=len(every.blocked), chosen=len(groups)
        )

    def _notes(self, model: ir.Model, ctx: PassContext) -> tuple[str, ...]:
        notes = _reasons(model, ctx)
        if self._takes_nothing_of_worth(ctx):
            notes.append(
                "no calibration data: only units whose weights are zero are removed; give data "
                f"(--calibrate) to remove {DEFAULT_RATIO:.0%} of the prunable parameters, or "
                "ratio= to remove a share unseen"
            )
        elif ctx.calibration is None:
            ranking = "their weights" if self._importance(ctx) == "magnitude" else "synthetic data"
            notes.append(
                f"no calibration data: units are ranked by {ranking} and nothing is refitted; "
                "expect a clear loss of accuracy"
            )
        return tuple(notes)

    def _apply_structure(
        self, model: ir.Model, plan: Plan, evidence: Evidence, ctx: PassContext
    ) -> PassResult:
        if not plan.decisions:
            return PassResult(False, dict(plan.counters), plan.notes, plan=plan)
        groups = ctx.analysis(ChannelGroups, model)
        counts = dict(plan.counters)
        kept: dict[str, tuple[int, ...]] = {}
        for decision in plan.decisions:
            group = groups.find(decision.subject)
            kept[decision.subject] = _kept_units(decision, group)
            assert group is not None
            removed = group.units - len(kept[decision.subject])
            name = _COUNTS.get(group.kind, "num-channels-removed")
            counts[name] = counts.get(name, 0) + removed
        before = _num_parameters(model)
        usable = evidence if ctx.calibration is not None else Evidence()
        dense = model.clone()
        layers = cut_and_refit(model, kept, usable)
        if self.sequential and usable.problems:
            refit_in_sequence(model, dense, layers, ctx)
        counts["num-parameters-removed"] = before - _num_parameters(model)
        return PassResult(True, counts, plan.notes, plan=plan)

    def _plan_zeros(self, model: ir.Model) -> Plan:
        weights = [w for w in prunable_weights(model) if not self._is_excluded(w.name)]
        ratio = DEFAULT_RATIO if self.ratio is None else self.ratio
        counts = _zero_counts(weights, ratio, self.scope == "global")
        decisions = []
        skipped = 0
        for weight, count in zip(weights, counts, strict=True):
            mask = _mask_of(weight, count, self.pattern)
            if mask is None:
                skipped += 1
                continue
            zeros = int(mask.sum())
            if not zeros:
                continue
            array = _contents(weight)
            lost = float(np.square(array[mask].astype(np.float64)).sum())
            total = float(np.square(array.astype(np.float64)).sum())
            decisions.append(
                Decision(
                    weight.value.name or weight.name,
                    f"zero {zeros} of {counted(array.size, 'weight')} of {weight.name}",
                    cost=lost / max(total, np.finfo(float).tiny),
                    gain=float(zeros),
                    data={"zeros": zeros, "pattern": self.pattern},
                )
            )
        note = "zeros make the file compress better; the runtimes compute them like any number"
        quantized = count_quantized(model)
        counters = {"num-skipped-no-blocks": skipped, "num-skipped-quantized": quantized}
        if not decisions and ratio:
            note = (
                f"nothing set to zero: {counted(quantized, 'product')} of quantized weights, which "
                "stay: prune before quantizing"
                if quantized and not weights
                else "nothing set to zero: no weight is left to choose from"
            )
        return Plan(
            pass_text(self),
            tuple(sorted(decisions, key=lambda d: (d.cost, d.subject))),
            "share of squared norm",
            "zeros",
            (note,),
            {name: count for name, count in counters.items() if count},
        )

    def _apply_zeros(self, model: ir.Model, plan: Plan) -> PassResult:
        weights = {w.value.name or w.name: w for w in prunable_weights(model)}
        masks = {}
        for decision in plan.decisions:
            weight = weights.get(decision.subject)
            count, pattern = decision.data.get("zeros"), decision.data.get("pattern")
            if weight is None or not isinstance(count, int) or not isinstance(pattern, str):
                raise UsageError(f"the plan names weight {decision.subject!r}, which is not there")
            mask = _mask_of(weight, count, pattern)
            assert mask is not None
            masks[weight.value] = mask
        zeroed = write_masked(model, masks)
        counts = {**plan.counters, "num-weights-zeroed": zeroed}
        return PassResult(zeroed > 0, counts, plan.notes, plan=plan)


def _reasons(model: ir.Model, ctx: PassContext) -> list[str]:
    """Say why groups stay, and which operators lack the rules that would let them go."""
    blocked = ctx.analysis(ChannelGroups, model).blocked
    notes = blocked_notes(blocked, _node_counts(model))
    if any(_RANK in reason.text for group in blocked for reason in group.reasons):
        notes += _shape_notes(ctx.analysis(SymbolicShapes, model))
    return notes


def blocked_notes(
    blocked: Sequence[BlockedGroup], nodes: Mapping[str, int] | None = None
) -> list[str]:
    """Say why groups stay: one line per reason, the commonest first, with one name each.

    Args:
        blocked: The groups.
        nodes: How many nodes the model has of an operator.
    """
    found: dict[tuple[str, str], list[BlockedGroup]] = {}
    for group in blocked:
        reason = group.reasons[0]
        found.setdefault((reason.op, reason.text), []).append(group)
    ordered = sorted(found.items(), key=lambda item: -len(item[1]))
    notes = []
    for (op, text), groups in ordered[:_MAX_REASONS]:
        if text == NO_RULE:
            users = counted((nodes or {}).get(op, 1), "node")
            stay = counted(len(groups), "group")
            notes.append(f"{users} of {_cut(op)}: no channel rule, {stay} could not be pruned")
            continue
        where = f"at {op}: " if op else ""
        count = counted(len(groups), "group")
        example = "such as " * (len(groups) > 1) + _cut(groups[0].name)
        notes.append(f"{count} not pruned, {where}{_cut(text, 2 * _MAX_NAME)} ({example})")
    rest = ordered[_MAX_REASONS:]
    if rest:
        groups_left = sum(len(groups) for _, groups in rest)
        reasons = counted(len(rest), "other reason")
        notes.append(f"{counted(groups_left, 'more group')} not pruned, for {reasons}")
    return notes


def _shape_notes(shapes: SymbolicShapes) -> list[str]:
    """Name the operators after which ranks are not known."""
    return [
        f"{counted(count, 'node')} of {_cut(op)}: no shape rule, what follows has no known rank"
        for op, count in sorted(shapes.without_rule.items())[:_MAX_REASONS]
    ]


def _node_counts(model: ir.Model) -> Counter[str]:
    return Counter(op_key(node.domain, node.op_type) for node in model.graph)


def _cut(text: str, limit: int = _MAX_NAME) -> str:
    """Shorten in the middle: the ends of a name say most."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[: half - 1]}…{text[-half:]}"


def _num_parameters(model: ir.Model) -> int:
    used = dict.fromkeys(v for node in model.graph for v in node.inputs if v is not None)
    tensors = (weight_of(value) for value in used)
    return sum(t.size for t in tensors if t is not None and t.dtype.is_floating_point())


def _kept_units(decision: Decision, group: ChannelGroup | None) -> tuple[int, ...]:
    kept = decision.data.get("kept")
    if group is None or not isinstance(kept, Sequence) or isinstance(kept, str):
        raise UsageError(f"the plan prunes {decision.subject!r}, which this model does not have")
    if decision.data.get("units") != group.units:
        raise UsageError(
            f"units of {decision.subject!r}: the plan expects {decision.data.get('units')}, "
            f"the model has {group.units}"
        )
    return tuple(int(u) for u in kept if isinstance(u, int))


def _contents(weight: Prunable) -> np.ndarray:
    tensor = require_weight(weight.value)
    return tensor.numpy()


def _zero_counts(weights: Sequence[Prunable], ratio: float, is_global: bool) -> list[int]:
    """Return how many entries of each weight go: the smallest of all, or the same share."""
    arrays = [np.abs(_contents(w).astype(np.float32)).reshape(-1) for w in weights]
    if not is_global or not arrays:
        return [int(a.size * ratio) for a in arrays]
    everything = np.concatenate(arrays)
    wanted = int(everything.size * ratio)
    if not wanted:
        return [0] * len(arrays)
    owner = np.repeat(np.arange(len(arrays)), [a.size for a in arrays])
    chosen = np.argsort(everything, kind="stable")[:wanted]
    return [int(n) for n in np.bincount(owner[chosen], minlength=len(arrays))]


def _mask_of(weight: Prunable, count: int, pattern: str) -> np.ndarray | None:
    array = _contents(weight)
    if pattern == "unstructured":
        return smallest_mask(array, count)
    zeros, block = (int(part) for part in pattern.split(":"))
    return blocked_mask(array, weight.axis, zeros, block)
