"""From the steps of a run to its report."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from irtools.analysis.block import find_block
from irtools.analysis.block_pair import BlockNode, BlockPair
from irtools.analysis.modules import ModuleSize, module_sizes
from irtools.data import Dataset
from irtools.model import Model
from irtools.passmanager import Pass, Pipeline, Plan, Step, options_of, pass_text
from irtools.report.counts import count_changed, count_skipped
from irtools.report.entries import (
    DataEntry,
    DecisionEntry,
    ModelEntry,
    ModuleEntry,
    PassEntry,
    PlanEntry,
    Row,
    TargetEntry,
)
from irtools.report.plain import plain_data
from irtools.targets import Target
from irtools.words import printable

__all__ = [
    "block_entry",
    "data_entry",
    "make_row",
    "make_rows",
    "model_entry",
    "module_entries",
    "pass_entries",
    "plan_entries",
    "target_entry",
    "utc_now",
]

_MOST_DECISIONS = 300


def make_rows(steps: Sequence[Step]) -> tuple[Row, ...]:
    """Turn the steps of a run into rows of its report."""
    return tuple(make_row(step) for step in steps)


def make_row(step: Step) -> Row:
    """Turn a step into a row of the report."""
    counts = {**_planned_counts(step), **step.result.counters}
    figures = step.figures
    return Row(
        index=step.index,
        text=step.text,
        modified=step.modified,
        skipped=step.skipped,
        counters=counts,
        changed=count_changed(counts),
        skipped_parts=count_skipped(counts),
        notes=tuple(printable(note, 1000) for note in dict.fromkeys(figures.notes)),
        checks=tuple(figures.checks),
        figures=dict(figures.found),
        seconds=dict(figures.seconds),
        peak_bytes=dict(figures.peak_bytes),
        remedies=_remedies(step),
    )


def _remedies(step: Step) -> tuple[str, ...]:
    plan = step.result.plan
    return tuple(printable(text, 1000) for text in plan.remedies) if plan is not None else ()


def _planned_counts(step: Step) -> Mapping[str, int]:
    return step.result.plan.counters if step.result.plan is not None else {}


def model_entry(model: Model, source: str | None = None) -> ModelEntry:
    """Identify a model by its content."""
    nodes = sum(1 for graph in model.ir.graphs() for _ in graph)
    named = source or (str(model.source) if model.source is not None else "memory")
    return ModelEntry(
        named,
        model.fingerprint(),
        nodes,
        model.opset or None,
        model.ir.metadata_props.get("task"),
        _classes(model.ir.metadata_props.get("id2label")),
    )


def _classes(text: str | None) -> dict[str, str] | None:
    """Read `id2label` of a model's metadata, which anybody may have written."""
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {printable(str(key)): printable(str(name)) for key, name in found.items()}


def module_entries(original: Model, result: Model) -> tuple[ModuleEntry, ...]:
    """Set the modules of a model against those of the model that was made of it.

    Args:
        result: With the exporter's notes.
    """
    before, after = module_sizes(original.ir), module_sizes(result.ir)
    if not any((*before, *after)):
        return ()
    nothing = ModuleSize(0, 0, ())
    both = ((n, before.get(n, nothing), after.get(n, nothing)) for n in {**before, **after})
    return tuple(
        ModuleEntry(
            printable(name),
            (old.nodes, new.nodes),
            (old.bytes, new.bytes),
            (old.types, new.types),
        )
        for name, old, new in both
    )


def block_entry(original: Model, result: Model) -> BlockPair | None:
    """Return a repeated block before and after, with names that are harmless to print.

    Args:
        result: With the exporter's notes.
    """
    found = find_block(original.ir, result.ir)
    if found is None:
        return None
    before, after = (tuple(map(_harmless, side)) for side in (found.before, found.after))
    return replace(found, module=printable(found.module), before=before, after=after)


def _harmless(node: BlockNode) -> BlockNode:
    op, name, weights = (printable(text) for text in (node.op, node.name, node.weights))
    return BlockNode(op, name, weights, node.inputs, node.change)


def plan_entries(steps: Sequence[Step]) -> tuple[PlanEntry, ...]:
    """List what passes decided, of each the decisions that are predicted to cost most."""
    found = ((step.index, step.result.plan) for step in steps if step.modified)
    return tuple(_plan(index, plan) for index, plan in found if plan is not None and len(plan))


def _plan(index: int, plan: Plan) -> PlanEntry:
    costly = sorted(plan.decisions, key=lambda decision: -decision.cost)
    shown = tuple(
        DecisionEntry(printable(d.subject, 1000), printable(d.action), float(d.cost), float(d.gain))
        for d in costly[:_MOST_DECISIONS]
    )
    return PlanEntry(index, plan.cost_unit, plan.gain_unit, shown, len(costly) - len(shown))


def data_entry(data: Dataset | None) -> DataEntry | None:
    """Identify data by its content."""
    if data is None:
        return None
    digest = data.digest or data.with_digest().digest
    labelled = data.labels is not None
    return DataEntry(data.source, digest, len(data), data.synthetic, labelled)


def target_entry(target: Target) -> TargetEntry:
    """Name a target and its runtime."""
    return TargetEntry(target.name, target.isa.value, target.version(), target.default_precision())


def pass_entries(pipeline: Pipeline) -> tuple[PassEntry, ...]:
    """List the passes with all their options, defaults included."""
    return tuple(PassEntry(p.name, pass_text(p), p.promise.value, _options(p)) for p in pipeline)


def _options(p: Pass) -> dict[str, Any]:
    # As JSON has them, so that a report reads back equal.
    return {o.name: plain_data(getattr(p, o.name.replace("-", "_"))) for o in options_of(type(p))}


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
