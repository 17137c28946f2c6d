"""The contract finds the passes that do not keep to it, and says which rule they break."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from irtools import (
    Decision,
    Exactness,
    Pass,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
)
from irtools.errors import UnsupportedError
from irtools.passmanager import pass_text
from irtools.plugins import registry
from irtools.testing import CHECKS, ContractError, check_pass

_ACTIVE = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 4] x) => (float[batch, 4] y) { h = Relu (x)  y = Relu (h) }
"""
_DRAWS = itertools.count(2)


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply matrices by a power of two and divide what is made of them: exact."""

    name: ClassVar[str] = "scale"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    idempotent: ClassVar[bool] = False

    factor: float = option(0.75, "What matrices are multiplied by.")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        found = list(_matrices(model))
        for value in found:
            self.change(value)
        return PassResult(modified=bool(found))

    def change(self, value: ir.Value) -> None:
        assert value.const_value is not None
        array = value.const_value.numpy() * np.float32(self.factor)
        value.const_value = ir.tensor(array, name=value.name)


def _matrices(model: ir.Model) -> list[ir.Value]:
    values = model.graph.initializers.values()
    return [v for v in values if v.const_value is not None and len(v.const_value.shape) > 1]


class Dishonest(Scale):
    """Say that nothing changed."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        super().run(model, ctx)
        return PassResult(modified=False)


class WritesIntoTensors(Scale):
    """Write where it should make anew."""

    def change(self, value: ir.Value) -> None:
        assert value.const_value is not None
        array = value.const_value.numpy()
        array.flags.writeable = True
        array *= np.float32(self.factor)
        super().change(value)


class Rename(Scale):
    """Rename an output."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        model.graph.outputs[0].name = "renamed"
        return PassResult(modified=True)


class Endless(Scale):
    """Change its own result, and deny it."""

    idempotent: ClassVar[bool] = True


class Random(Scale):
    """Change another number each time."""

    def change(self, value: ir.Value) -> None:
        assert value.const_value is not None
        array = value.const_value.numpy() * np.float32(1 + 1 / next(_DRAWS))
        value.const_value = ir.tensor(array, name=value.name)


class Inexact(Scale):
    """Promise every bit."""

    exactness: ClassVar[Exactness] = Exactness.EXACT


class Wreck(Scale):
    """Turn every matrix around."""

    def change(self, value: ir.Value) -> None:
        assert value.const_value is not None
        value.const_value = ir.tensor(-value.const_value.numpy(), name=value.name)


class Undeclared(Scale):
    """Count what it does not declare."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        done = super().run(model, ctx)
        return PassResult(modified=done.modified, counters={"num-scaled": 1})


class HalfDone(Scale):
    """Refuse a model that it has already changed."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        super().run(model, ctx)
        raise UnsupportedError("this model is too hard")


class Anonymous(Scale):
    """Make nodes that do not say who made them."""

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        for value in list(model.graph.inputs):
            first = ir.node("Identity", [value], name="mine")
            first.outputs[0].name = "mine_out"
            value.replace_all_uses_with(first.outputs[0])
            first.replace_input_with(0, value)
            model.graph.insert_before(model.graph[0], first)
        return PassResult(modified=True)


@dataclass(frozen=True)
class Silent(Scale):
    """Have an option without a meaning."""

    name: ClassVar[str] = "silent"
    other: int = 1


@dataclass(frozen=True)
class Greedy(PlanningPass):
    """Scale by plan, and scale the first matrix in any case."""

    name: ClassVar[str] = "greedy"
    idempotent: ClassVar[bool] = False

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        found = [Decision(v.name or "", "scale", 0.0, 1.0, {}) for v in _matrices(model)]
        return Plan(pass_text(self), tuple(found), "cost", "gain")

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        found = _matrices(model)
        for value in found:
            Scale().change(value)
        return PassResult(modified=bool(found), plan=plan)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the passes of this file be found by name, as those of an installed package are."""
    group = "irtools.passes"
    own = {
        kind.name: EntryPoint(kind.name, f"{__name__}:{kind.__name__}", group)
        for kind in (Scale, Silent, Greedy)
    }
    installed = registry.plugins

    def plugins(wanted: str) -> Mapping[str, EntryPoint]:
        return {**installed(wanted), **(own if wanted == group else {})}

    monkeypatch.setattr(registry, "plugins", plugins)


def test_a_good_pass_passes_and_says_where_it_worked() -> None:
    assert check_pass(Scale(0.75)) == ("mlp", "convnet", "embedder", "branches")


@pytest.mark.parametrize(
    ("make", "rule", "reason"),
    [
        (Dishonest, "modified-is-honest", "modified is False"),
        (WritesIntoTensors, "the-callers-model-stays", "another one"),
        (Rename, "the-result-is-sound", "renamed"),
        (Anonymous, "new-nodes-name-the-pass", "'mine'.* do not say what made them"),
        (Endless, "a-second-run-changes-nothing", "declare idempotent = False"),
        (Random, "the-same-input-gives-the-same-output", "two models"),
        (Inexact, "numbers-keep-the-promise", "logits"),
        (Wreck, "numbers-keep-the-promise", "half of its signal"),
        (Undeclared, "modified-is-honest", "num-scaled, which it does not declare"),
        (HalfDone, "modified-is-honest", "must not have begun"),
        (Silent, "everything-is-explained", "option other has no meaning"),
        (Greedy, "a-plan-applies-up-to-any-decision", "the empty plan changes"),
    ],
)
def test_each_broken_rule_is_named(make: Callable[[], Pass], rule: str, reason: str) -> None:
    with pytest.raises(ContractError, match=f"{rule}: .*{reason}"):
        check_pass(make())


def test_every_rule_is_broken_by_some_pass() -> None:
    marks = test_each_broken_rule_is_named.pytestmark  # type: ignore[attr-defined]
    broken = {rule for _, rule, _ in marks[0].args[1]}
    assert {check.name for check in CHECKS} - broken == {"options-survive-their-text"}


def test_a_pass_that_does_nothing_is_not_tested() -> None:
    with pytest.raises(ContractError, match="changed none of the models rectifiers"):
        check_pass(Scale(0.75), {"rectifiers": _ACTIVE})


def test_a_pass_of_no_package_is_told_to_register() -> None:
    @dataclass(frozen=True)
    class Lonely(Scale):
        """Scale without an entry point."""

        name: ClassVar[str] = "lonely"

    with pytest.raises(ContractError, match=r"no installed package registers .*'lonely'"):
        check_pass(Lonely())
