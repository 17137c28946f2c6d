"""What passes require of a model, and the passes that establish it before them.

A pass that reads weights looks for initializers; an exporter may have written Constant nodes. No
pass may be without effect because its user did not name another one: it says what it requires, and
whatever runs it prepares the model first, on the same working copy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irtools.errors import IrtoolsError, UsageError
from irtools.passmanager.base import Exactness, Pass, PassResult, PlanningPass
from irtools.passmanager.syntax import parse_passes
from irtools.plugins import registry
from irtools.words import tallied

if TYPE_CHECKING:
    import onnx_ir as ir

    from irtools.passmanager.context import PassContext
    from irtools.passmanager.plan import Plan

__all__ = ["Prepared", "check_requires", "plan_prepared", "prepare", "required_passes"]

_MUCH_SMALLER = 0.9


@dataclass(frozen=True)
class Prepared:
    """What was done to a model so that a pass finds what it requires.

    Attributes:
        note: A sentence for the report; empty where nothing was to be done.
        counters: `num-prepared-<pass>` to the number of things that it changed.
        suffices: The weights are much smaller by it, and that is what the pass is there for.
    """

    note: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)
    suffices: bool = False

    def joined_to(self, result: PassResult) -> PassResult:
        """Return the result of the pass with an account of the preparation.

        A pass that changed nothing leaves the model as it was: its preparation is thrown away
        with the working copy, and there is nothing to account for, unless it suffices.
        """
        if not self.note or not (result.modified or self.suffices):
            return result
        notes = tuple(dict.fromkeys((self.note, *result.notes)))
        counters = {**result.counters, **self.counters}
        return dataclasses.replace(result, modified=True, notes=notes, counters=counters)


def required_passes(kind: type[Pass]) -> tuple[Pass, ...]:
    """Return the passes that a pass requires, in order.

    Raises:
        UsageError: `requires` names something that is not an exact pass.
    """
    return tuple(_exact_pass(kind.name, text) for text in kind.requires)


def check_requires(kind: type[Pass]) -> None:
    """Refuse a pass whose requirements cannot be established.

    Raises:
        UsageError: `requires` names something that is not an exact pass.
    """
    required_passes(kind)


@functools.cache
def _exact_pass(name: str, text: str) -> Pass:
    where = f"pass {name!r} requires {text!r}"
    try:
        kind = registry.load("irtools.passes", text.partition(":")[0])
        if getattr(kind, "requires", ()):
            raise UsageError(f"it requires {', '.join(kind.requires)} itself; name them as well")
        (required,) = parse_passes(text)
    except IrtoolsError as error:
        raise UsageError(f"{where}: {error}") from error
    if required.promise is not Exactness.EXACT:
        raise UsageError(
            f"{where}, which is {required.promise.value}; only exact passes may be required"
        )
    return required


def prepare(pass_: Pass, model: ir.Model, ctx: PassContext) -> Prepared:
    """Prepare a model, in place, as a pass requires.

    Args:
        pass_: The pass that will run.
        model: The working copy that it will run on.
        ctx: What it will be given; its analyses are those of the prepared model afterwards.
    """
    parts, counters = [], {}
    before = _weight_bytes(model) if pass_.stores else 0
    for required in required_passes(type(pass_)):
        result = required.run(model, ctx)
        if not result.modified:
            continue
        ctx.drop_analyses(result.preserved)
        counts = {name: n for name, n in result.counters.items() if n}
        told = ", ".join(tallied(n, required.counters.get(k, k)) for k, n in counts.items())
        parts.append(f"{required.name}: {told}" if told else required.name)
        counters[f"num-prepared-{required.name}"] = sum(counts.values())
    if not parts:
        return Prepared()
    suffices = pass_.stores and _weight_bytes(model) < _MUCH_SMALLER * before
    return Prepared(f"first {'; '.join(parts)}", counters, suffices)


def _weight_bytes(model: ir.Model) -> int:
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def plan_prepared(pass_: PlanningPass, model: ir.Model, ctx: PassContext) -> Plan:
    """Return the plan of a pass for a model that is prepared as it requires, in place."""
    prepared = prepare(pass_, model, ctx)
    plan = pass_.plan(model, ctx)
    if not prepared.note or not plan.decisions:
        return plan
    return dataclasses.replace(plan, notes=tuple(dict.fromkeys((prepared.note, *plan.notes))))
