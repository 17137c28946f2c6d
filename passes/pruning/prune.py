"""`prune`: remove what the outputs miss least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.analysis.channels import ChannelGroup, ChannelGroups
from irtools.analysis.provenance import selects
from irtools.editing import weight_of
from irtools.errors import OptionError, UnsupportedError, UsageError
from irtools.measure.own_machine import refuse_foreign
from irtools.passes.pruning.candidates import Candidates, SelectionSettings, make_candidates
from irtools.passes.pruning.cut import cut_units
from irtools.passes.pruning.evidence import Evidence, collect_evidence
from irtools.passes.pruning.left_alone import count_left, left_notes, why_nothing
from irtools.passes.pruning.linear import linear_layer
from irtools.passes.pruning.ranking import Importance
from irtools.passes.pruning.selection import Selected, select_free, select_ratio, select_speedup
from irtools.passes.pruning.sequence import refit_in_sequence
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

__all__ = ["Prune"]

DEFAULT_RATIO = 0.25
_DIVERGENCE = "output divergence"
_COUNTS = {"heads": "num-heads-removed", "neurons": "num-neurons-removed"}


@dataclass(frozen=True)
class Prune(PlanningPass):
    """Remove attention heads, feed-forward neurons and convolution channels.

    Structure is removed, so the model gets faster on every runtime. Units that belong together
    are found by following channels through the graph; what passes an operator without a channel
    rule is left alone and reported. Single weights are set to zero by `sparsify`.

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
    """

    name: ClassVar[str] = "prune"
    idempotent: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[Mapping[str, str]] = {
        "num-heads-removed": "attention heads removed",
        "num-neurons-removed": "feed-forward neurons removed",
        "num-channels-removed": "convolution channels removed",
        "num-parameters-removed": "parameters removed",
        "num-groups-blocked": "groups of channels that cannot be pruned",
        "num-lacking-channel-rule": "of these, because an operator has no channel rule",
        "num-skipped-quantized": "products left alone because their weights are integers",
        "num-skipped-subgraph": "products in subgraphs or functions, left alone",
    }

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

    def __post_init__(self) -> None:
        if self.ratio is not None and self.speedup is not None:
            raise OptionError("prune takes ratio or speedup, not both")
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise OptionError(f"ratio of prune is {self.ratio:g}, expected 0 <= ratio < 1")
        if self.speedup is not None and not self.speedup >= 1:
            raise OptionError(f"speedup of prune is {self.speedup:g}, expected at least 1")
        if self.round_to < 1 or self.min_width < 1:
            raise OptionError("round-to and min-width of prune are at least 1")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        """Decide what goes, the least missed for its gain first."""
        return self._plan(model, *self._known(model, ctx), ctx)

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        """Remove what the plan names and refit what stays.

        Raises:
            UsageError: The plan is not for this model.
        """
        wanted = {d.subject for d in plan.decisions}
        groups = [g for g in ctx.analysis(ChannelGroups, model) if g.name in wanted]
        evidence = self._evidence(model, groups, ctx) if self._refits(ctx) else Evidence()
        return self._apply(model, plan, evidence, ctx)

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        """Plan and apply on one collection of evidence, which may be too large to be kept."""
        groups, evidence = self._known(model, ctx)
        return self._apply(model, self._plan(model, groups, evidence, ctx), evidence, ctx)

    def _known(self, model: ir.Model, ctx: PassContext) -> tuple[list[ChannelGroup], Evidence]:
        """Return the groups that may get smaller, and what is known of them.

        Raises:
            UsageError: A speed-up on another machine than this one is asked for.
        """
        if self.speedup is not None:
            # Refused here and not when it is timed, after the statistics.
            refuse_foreign(ctx.target, f"speedup={self.speedup:g}", "give ratio= instead")
        wanted = {"heads": self.heads, "neurons": self.ffn, "channels": self.conv}
        groups = [
            group
            for group in ctx.analysis(ChannelGroups, model)
            if wanted[group.kind] and selects(self.exclude, [group.name]) is None
        ]
        return groups, self._evidence(model, groups, ctx)

    def _evidence(
        self, model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext
    ) -> Evidence:
        if self._importance(ctx) == "magnitude" and not self._refits(ctx):
            return Evidence()
        sinks = (sink for group in groups for sink in group.sinks if sink.input == 1)
        found = (linear_layer(sink.node) for sink in sinks)
        return collect_evidence(model, [layer for layer in found if layer is not None], ctx)

    def _importance(self, ctx: PassContext) -> Importance:
        return self.importance or ("magnitude" if ctx.calibration is None else "obs")

    def _refits(self, ctx: PassContext) -> bool:
        # Data drawn from the signature may rank units, but weights are not bent towards it.
        return self.refit and ctx.calibration is not None

    def _plan(
        self,
        model: ir.Model,
        groups: Sequence[ChannelGroup],
        evidence: Evidence,
        ctx: PassContext,
    ) -> Plan:
        selected, notes = Selected((), ""), tuple(left_notes(model, ctx))
        if groups:
            settings = SelectionSettings(self.round_to, self.min_width, self.scope == "global")
            importance = self._importance(ctx)
            found = make_candidates(model, groups, importance, evidence, settings, ctx)
            selected = self._select(found, model, ctx)
            notes = (*notes, *self._notes(evidence, ctx), *selected.notes)
        if not selected.decisions and (why := self._why_nothing(model, groups, ctx)):
            notes = (f"nothing pruned: {why}", *notes)
        return Plan(
            pass_text(self),
            selected.decisions,
            "relative squared error" if ctx.calibration is None else _DIVERGENCE,
            selected.gain_unit,
            notes,
            count_left(model, ctx),
        )

    def _select(self, candidates: Candidates, model: ir.Model, ctx: PassContext) -> Selected:
        if self.speedup is not None:
            return select_speedup(candidates, self.speedup, model, ctx)
        if self._takes_nothing_of_worth(ctx):
            return select_free(candidates)
        return select_ratio(candidates, DEFAULT_RATIO if self.ratio is None else self.ratio)

    def _takes_nothing_of_worth(self, ctx: PassContext) -> bool:
        """Whether only units without weight go: nothing says how much else may."""
        return ctx.calibration is None and self.ratio is None and self.speedup is None

    def _why_nothing(
        self, model: ir.Model, groups: Sequence[ChannelGroup], ctx: PassContext
    ) -> str:
        """Say why nothing goes; empty where that is what was asked for.

        Raises:
            UnsupportedError: A speed-up is asked for, and there is nothing to remove.
        """
        why = why_nothing(model, groups, ctx)
        if groups and self._takes_nothing_of_worth(ctx):
            return "no unit has only zeros as weights"
        if not groups and self.speedup is not None and self.speedup > 1:
            raise UnsupportedError(f"speedup={self.speedup:g} cannot be reached: {why}")
        return "" if groups and (self.speedup is not None or self.ratio == 0) else why

    def _notes(self, evidence: Evidence, ctx: PassContext) -> tuple[str, ...]:
        if self._takes_nothing_of_worth(ctx):
            return (
                "no calibration data: only units whose weights are zero are removed; give data "
                f"(--calibrate) to remove {DEFAULT_RATIO:.0%} of the prunable parameters, or "
                "ratio= to remove a share unseen",
            )
        if ctx.calibration is None:
            ranking = "their weights" if self._importance(ctx) == "magnitude" else "synthetic data"
            return (
                f"no calibration data: units are ranked by {ranking} and nothing is refitted; "
                "expect a clear loss of accuracy",
            )
        return evidence.notes if self.refit else ()

    def _apply(
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
            name = _COUNTS.get(group.kind, "num-channels-removed")
            counts[name] = counts.get(name, 0) + group.units - len(kept[decision.subject])
        before, dense = _num_parameters(model), model.clone()
        usable = evidence if self._refits(ctx) else Evidence()
        layers = cut_units(model, kept, usable)
        if self.sequential and usable.problems:
            refit_in_sequence(model, dense, layers, ctx)
        counts["num-parameters-removed"] = before - _num_parameters(model)
        notes = plan.notes
        if self.refit and ctx.calibration is None and plan.cost_unit == _DIVERGENCE:
            notes = (
                *notes,
                "the plan was made with calibration data; without it nothing is refitted",
            )
        return PassResult(True, counts, notes, plan=plan)


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
