"""The pass `early-exit`."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.data import Dataset, has_several_labels
from irtools.errors import OptionError, UnsupportedError, UsageError
from irtools.model import opset_of, raise_opset
from irtools.passes.exits.emit import MIN_OPSET, Exit, build_exits
from irtools.passes.exits.encoder import Boundary, Encoder, NotAnEncoderError, find_encoder
from irtools.passes.exits.features import collect
from irtools.passes.exits.heads import Head, Pool, Task, TrainedHeads, agrees, confidence, train
from irtools.passes.exits.policy import Candidate, Notch, judge, lower_thresholds
from irtools.passmanager import (
    FOLLOWED_GRAPH,
    Decision,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)

__all__ = ["EarlyExit"]

_MASKS = ("attention_mask", "input_mask")
_MIN_SAMPLES = 20
_FEW_SAMPLES = 500


@dataclass(frozen=True)
class EarlyExit(PlanningPass):
    """Let samples leave an encoder classifier early, where a small head is already sure.

    Behind chosen blocks a linear head on the hidden state imitates the whole model's decision
    (trained on the calibration data, no labels needed, the encoder stays frozen). A sample whose
    head is sure enough leaves; the others go on, without those that left: the remaining blocks
    run on fewer rows, inside an `If`, so the work is truly saved, at any batch size, on every
    runtime that runs `If`, `NonZero` and `ScatterND`. Thresholds are set so that on samples
    unseen by the heads the wanted share decides as the whole model does. Confidence is the
    largest probability (DeeBERT, Xin et al. 2020, uses the entropy); of multi-label scores, that
    of the least sure label.

    Run it last, behind `fuse` and `int8`: later passes leave what lies in branches alone.
    Latency then depends on the sample: where the data allows it, the benchmark runs real samples
    in turns instead of one drawn one. Left alone: models without class scores as their only
    output, without two attention blocks, with control flow, or with a fixed batch above 1.
    """

    name: ClassVar[str] = "early-exit"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[dict[str, str]] = {
        "num-built-exit": "exits built",
        "num-skipped-model": "models left alone because they cannot be left early",
    }

    agreement: float = option(
        0.99, "share of samples that must be decided as the whole model decides, such as 99%"
    )
    layers: tuple[str, ...] = option(
        (), "blocks behind which an exit may stand, counted from 1; empty: every block"
    )
    max_exits: int = option(2, "most exits to build; each costs its head for whoever passes it")
    pool: Literal["auto", "first", "mean"] = option(
        "auto", "what a head reads: the first position, the mean of all, or what does better"
    )
    task: Literal["auto", "multi-class", "multi-label"] = option(
        "auto", "one class or several labels; auto: as the labels of the data, or the export, say"
    )

    def __post_init__(self) -> None:
        if not 0 < self.agreement <= 1:
            raise OptionError(f"agreement is {self.agreement}, expected a share above 0, up to 1")
        if self.max_exits < 1:
            raise OptionError(f"max-exits is {self.max_exits}, expected 1 or more")
        for layer in self.layers:
            if not layer.isdecimal() or int(layer) < 1:
                raise OptionError(f"layers has {layer!r}, expected block numbers from 1, as 2+4")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        try:
            encoder = _encoder(model)
        except NotAnEncoderError as reason:
            note = f"left alone: the model cannot be left early, because {reason}"
            return Plan(pass_text(self), (), notes=(note,), counters={"num-skipped-model": 1})
        boundaries = self._boundaries(encoder)
        data = _data(ctx)
        task = self._task(model, ctx)
        pools: Sequence[Pool] = ("first", "mean") if self.pool == "auto" else (self.pool,)
        features = collect(model, encoder, boundaries, data, ctx, pools)
        heads = []
        for index, pooled in enumerate(features.pooled):
            ctx.progress.step("training exits", index, len(boundaries))
            heads.append(train(pooled, features.logits, task, ctx.seed))
        candidates = [
            Candidate(
                boundary.depth,
                confidence(head.unseen, task),
                agrees(head.unseen, features.logits, task),
            )
            for boundary, head in zip(boundaries, heads, strict=True)
        ]
        notches = list(lower_thresholds(candidates, encoder.depth, self.agreement, self.max_exits))
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(_decisions(notches, boundaries, heads, task, encoder.depth)),
            cost_unit="share of samples decided otherwise",
            gain_unit="blocks per sample",
            notes=tuple(_plan_notes(data, candidates, notches, self.agreement)),
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        if not plan.decisions:
            return PassResult(False, plan.counters, plan.notes, plan=plan)
        notes = list(plan.notes)
        change = raise_opset(model, MIN_OPSET)
        if change.reason:
            raise UnsupportedError(
                f"early-exit needs opset {MIN_OPSET}, the model has {opset_of(model)} and cannot "
                f"be raised: {change.reason}; export the model again with a newer opset"
            )
        encoder = _encoder(model)
        task: Task = plan.decisions[0].data["task"]  # type: ignore[assignment]
        exits = _exits(encoder, plan.decisions)
        if ctx.evaluation is not None:
            notes.append(_histogram(model, encoder, exits, task, ctx.evaluation, ctx))
        build_exits(model, encoder, exits, task, _mask_input(model.graph))
        return PassResult(True, {"num-built-exit": len(exits)}, tuple(notes), plan=plan)

    def _boundaries(self, encoder: Encoder) -> list[Boundary]:
        if not self.layers:
            return list(encoder.boundaries)
        wanted = sorted({int(layer) for layer in self.layers})
        if wanted[-1] >= encoder.depth:
            raise OptionError(
                f"layers has {wanted[-1]}, expected at most {encoder.depth - 1}: the model has "
                f"{encoder.depth} blocks"
            )
        return [boundary for boundary in encoder.boundaries if boundary.depth in wanted]

    def _task(self, model: ir.Model, ctx: PassContext) -> Task:
        if self.task != "auto":
            return self.task
        labels = (
            None if data is None else data.labels for data in (ctx.evaluation, ctx.calibration)
        )
        several = has_several_labels(model.metadata_props, *labels)
        return "multi-label" if several else "multi-class"


def _encoder(model: ir.Model) -> Encoder:
    encoder = find_encoder(model.graph)
    shape = encoder.output.shape
    assert shape is not None
    if isinstance(shape[0], int) and shape[0] > 1:
        raise NotAnEncoderError(f"it takes {shape[0]} samples at a time; expected 1 or any number")
    return encoder


def _data(ctx: PassContext) -> Dataset:
    if ctx.calibration is None:
        raise UsageError(
            "early-exit trains its heads on real samples; give some hundred with --calibrate"
        )
    if len(ctx.calibration) < _MIN_SAMPLES:
        raise UsageError(
            f"early-exit got {len(ctx.calibration)} calibration samples, expected at least "
            f"{_MIN_SAMPLES}, better {_FEW_SAMPLES}"
        )
    return ctx.calibration


def _mask_input(graph: ir.Graph) -> str | None:
    return next((v.name for v in graph.inputs if v.name in _MASKS), None)


def _decisions(
    notches: Sequence[Notch],
    boundaries: Sequence[Boundary],
    heads: Sequence[TrainedHeads],
    task: Task,
    depth: int,
) -> list[Decision]:
    decisions = []
    opened: set[int] = set()
    agreement, work = 1.0, float(depth)
    for notch in notches:
        boundary, head = boundaries[notch.candidate], heads[notch.candidate]
        data: dict[str, Any] = {
            "task": task,
            "state": boundary.value.name,
            "depth": boundary.depth,
            "threshold": notch.threshold,
        }
        if notch.candidate not in opened:
            opened.add(notch.candidate)
            data |= {"pool": head.pool, "weight": _pack(head.head.weight)}
            data |= {"bias": _pack(head.head.bias)}
        outcome = notch.outcome
        decisions.append(
            Decision(
                subject=f"exit behind block {boundary.depth} of {depth}",
                action=f"leave from confidence {notch.threshold:.4f}",
                cost=agreement - outcome.agreement,
                gain=work - outcome.work,
                data=data,
            )
        )
        agreement, work = outcome.agreement, outcome.work
    return decisions


def _exits(encoder: Encoder, decisions: Sequence[Decision]) -> list[Exit]:
    """Read the exits off the decisions; a later one may only lower a threshold."""
    states = {boundary.value.name: boundary.value for boundary in encoder.boundaries}
    found: dict[int, Exit] = {}
    for decision in decisions:
        data: Mapping[str, Any] = decision.data
        depth, threshold = int(data["depth"]), float(data["threshold"])
        if data["state"] not in states:
            raise UsageError(
                f"the plan leaves at {data['state']!r}, which is no value between two blocks of "
                "this model; plan again"
            )
        if "weight" in data:
            bias = _unpack(data["bias"])
            head = Head(_unpack(data["weight"]).reshape(-1, len(bias)), bias)
            found[depth] = Exit(states[data["state"]], depth, head, data["pool"], threshold)
        else:
            former = found[depth]
            found[depth] = Exit(former.state, depth, former.head, former.pool, threshold)
    return [found[depth] for depth in sorted(found)]


def _plan_notes(
    data: Dataset, candidates: Sequence[Candidate], notches: Sequence[Notch], wanted: float
) -> list[str]:
    notes = []
    if len(data) < _FEW_SAMPLES:
        notes.append(
            f"exits were trained on {len(data)} samples; {_FEW_SAMPLES} or more leave earlier and "
            "make the thresholds sure"
        )
    if not notches:
        notes.append(
            f"no exit saves work at {wanted:.1%} agreement: behind the best block heads agree on "
            f"{max(float(c.agrees.mean()) for c in candidates):.1%} of the samples; lower agreement"
        )
    return notes


def _histogram(
    model: ir.Model,
    encoder: Encoder,
    exits: Sequence[Exit],
    task: Task,
    data: Dataset,
    ctx: PassContext,
) -> str:
    """Say where the evaluation samples leave."""
    boundaries = [Boundary(e.state, e.depth) for e in exits]
    pools: list[Pool] = sorted({e.pool for e in exits})
    features = collect(model, encoder, boundaries, data, ctx, pools)
    candidates = []
    for exit_, pooled in zip(exits, features.pooled, strict=True):
        logits = exit_.head.logits(pooled[exit_.pool])
        sure, same = confidence(logits, task), agrees(logits, features.logits, task)
        candidates.append(Candidate(exit_.depth, sure, same))
    outcome = judge(candidates, [e.threshold for e in exits], encoder.depth)
    leaving = [
        f"{share:.1%} behind block {e.depth}"
        for share, e in zip(outcome.shares, exits, strict=False)
    ]
    return (
        f"of {len(data)} evaluation samples {', '.join(leaving)}, {outcome.shares[-1]:.1%} at the "
        f"end; {outcome.work:.1f} of {encoder.depth} blocks per sample, "
        f"{outcome.agreement:.2%} agreement"
    )


def _pack(array: np.ndarray) -> str:
    return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")
