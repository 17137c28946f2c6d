"""Which questions can be answered about which operator."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.analysis.types import type_source
from irtools.model import MAX_OPSET, first_change
from irtools.operators import Op, RuleTable, all_ops, has_schema, output_type

__all__ = ["COLUMNS", "Coverage", "coverage", "load_rules", "phrases"]

TABLES: Mapping[str, str] = MappingProxyType(
    {
        "shape": "irtools.analysis.shape_rules:SHAPE",
        "value": "irtools.analysis.value_rules:VALUE",
        "bounds": "irtools.analysis.positions:BOUNDS",
        "cost": "irtools.analysis.cost_rules:COST",
        "channels": "irtools.analysis.channels:CHANNELS",
        "rows": "irtools.passes.positions.rules:ROWS",
        "scales": "irtools.analysis.scales.rules:SCALES",
        "no-op": "irtools.passes.cleanup.algebra:NO_OPS",
    }
)
"""Name of a table of rules to the place of the `RuleTable`."""

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "type": "the element type of the result is known",
        **dict.fromkeys(TABLES, ""),
        "fold": "computed at compile time where the inputs are constant",
        "half": "safe in float16 and bfloat16",
        "opset": "older nodes are raised to the newest opset",
    }
)
"""Questions in the order of the table; the phrase of a table of rules is its own."""


@dataclass(frozen=True)
class Coverage:
    """What is known of one operator.

    Attributes:
        op: The operator.
        answers: Question to answer; empty where there is none. A rule is `own` (of its name),
            `kind` (of its kind), `plugin` (declared with the operator) or `type` (what is boolean
            lies between 0 and 1). Of `opset`, `<24` says that version 24 means something else, so
            that older nodes are not raised to it.
    """

    op: Op
    answers: Mapping[str, str]


def coverage() -> tuple[Coverage, ...]:
    """Return what is known of every declared operator, the standard's first."""
    tables = {name: load_rules(place) for name, place in TABLES.items()}
    ops = sorted(all_ops().values(), key=lambda op: (op.domain, op.name))
    return tuple(Coverage(op, _answers(op, tables)) for op in ops)


def phrases() -> Mapping[str, str]:
    """Return what every column says, in a few words."""
    return {name: phrase or load_rules(TABLES[name]).phrase for name, phrase in COLUMNS.items()}


def load_rules(place: str) -> RuleTable[object]:
    """Return the table of rules at `module:name`."""
    module, _, name = place.partition(":")
    table = getattr(importlib.import_module(module), name)
    assert isinstance(table, RuleTable)
    return table


def _answers(op: Op, tables: Mapping[str, RuleTable[object]]) -> Mapping[str, str]:
    half = "" if op.half_safe is None else "yes" if op.half_safe else "no"
    result = output_type(op.name, MAX_OPSET, 0) if not op.domain else None
    rules = {name: _rule(op, table) for name, table in tables.items()}
    if result is not None and result.fixed == ir.DataType.BOOL:
        rules["bounds"] = "type"
    return {
        "type": type_source(op) or "",
        **rules,
        "fold": op.fold.value if op.fold is not None and not op.random else "",
        "half": half,
        "opset": _raised(op),
    }


def _rule(op: Op, table: RuleTable[object]) -> str:
    if table.name in op.rules:
        return "plugin"
    if op.key in table.by_name:
        return "own"
    return "kind" if op.kind in table.by_kind else ""


def _raised(op: Op) -> str:
    if op.domain or not has_schema("", op.name):
        return ""
    change = first_change(op.name)
    return "yes" if change is None else f"<{change}"
