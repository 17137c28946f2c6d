"""What passes require of a model, and who establishes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx_ir as ir
import pytest

from irtools.driver.planning import planned
from irtools.errors import UsageError
from irtools.model import Model
from irtools.passmanager import (
    Decision,
    Exactness,
    Pass,
    PassContext,
    PassResult,
    Pipeline,
    Plan,
    PlanningPass,
    pass_text,
)
from irtools.passmanager.manager import PassManager
from irtools.passmanager.requirements import prepare
from irtools.plugins import registry

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[n, 2] x) => (float[n, 2] y) {
  w = Constant<value = float[2, 2] {1.0, 2.0, 3.0, 4.0}>()
  a = MatMul(x, w)
  b = Identity(a)
  y = Relu(b)
}"""


@dataclass(frozen=True)
class CountWeights(PlanningPass):
    """Renames every initializer, and says what it saw."""

    name: ClassVar[str] = "count-weights"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    requires: ClassVar[tuple[str, ...]] = ("lift-constants", "remove-identity")
    counters: ClassVar[dict[str, str]] = {"num-weights": "weights"}

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        names = [name for name in model.graph.initializers if not name.endswith("_seen")]
        return Plan(pass_text(self), tuple(Decision(name, "rename") for name in names))

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        for decision in plan.decisions:
            model.graph.initializers[decision.subject].name = f"{decision.subject}_seen"
        counts = {"num-weights": len(plan)}
        return PassResult(bool(plan.decisions), counts, plan.notes, plan=plan)


@dataclass(frozen=True)
class Idle(CountWeights):
    """Requires the same and changes nothing."""

    name: ClassVar[str] = "idle"

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        return Plan(pass_text(self), ())


@pytest.fixture
def model() -> Model:
    return Model.from_proto(onnx.parser.parse_model(TEXT))


NOTE = (
    "first lift-constants: Constant nodes turned into initializers (1); "
    "remove-identity: Identity and Dropout nodes removed (1)"
)


def test_the_manager_establishes_what_a_pass_requires(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    before = model.text()
    (_, step) = PassManager(Pipeline(CountWeights())).run(model, make_context())
    assert list(step.model.ir.graph.initializers) == ["w_seen"]
    assert [node.op_type for node in step.model.ir.graph] == ["MatMul", "Relu"]
    assert step.result.notes == (NOTE,)
    assert step.figures.notes == [NOTE]
    assert step.result.counters == {
        "num-weights": 1,
        "num-prepared-lift-constants": 1,
        "num-prepared-remove-identity": 1,
    }
    assert model.text() == before


def test_a_pass_that_changes_nothing_leaves_the_model_as_it_was(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    (_, step) = PassManager(Pipeline(Idle())).run(model, make_context())
    assert not step.modified and step.model is model
    assert step.result.notes == ()
    assert not any(name.startswith("num-prepared") for name in step.result.counters)


ROUNDED = """<ir_version: 8, opset_import: ["": 17]>
g (float[n, 2] x) => (float[n, 12] y) <float s = {0.5}, int8 z = {0},
  float[2, 12] w = {1,2,3,4,5,6,7,8,9,10,11,12,1,2,3,4,5,6,7,8,9,10,11,12}> {
  q = QuantizeLinear(w, s, z)
  d = DequantizeLinear(q, s, z)
  y = MatMul(x, d)
}"""


@pytest.mark.parametrize(("storing", "text"), [(True, ROUNDED), (False, ROUNDED), (True, TEXT)])
def test_a_smaller_file_suffices_to_a_pass_that_stores(
    storing: bool, text: str, make_context: Callable[..., PassContext]
) -> None:
    class Storing(Idle):
        name: ClassVar[str] = "storing"
        requires: ClassVar[tuple[str, ...]] = ("lift-constants", "fold-constants:exact=true")
        stores: ClassVar[bool] = storing

    model = Model.from_proto(onnx.parser.parse_model(text))
    (_, step) = PassManager(Pipeline(Storing())).run(model, make_context())
    kept = storing and text is ROUNDED
    assert step.modified == kept
    assert [node.op_type for node in step.model.ir.graph].count("QuantizeLinear") == (
        text is ROUNDED and not kept
    )
    assert bool(step.result.notes) == kept


def test_a_pass_that_lies_is_found_behind_its_preparation(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    class Liar(CountWeights):
        name: ClassVar[str] = "liar"

        def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
            super().apply(model, plan, ctx)
            return PassResult(modified=False)

    with pytest.raises(Exception, match="changed the model but reports that it did not"):
        PassManager(Pipeline(Liar())).run(model, make_context())


def test_nothing_is_told_where_nothing_was_to_be_done(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    steps = PassManager(Pipeline("lift-constants,remove-identity", CountWeights())).run(
        model, make_context()
    )
    assert steps[-1].result.notes == ()
    assert steps[-1].result.counters == {"num-weights": 1}


def test_a_plan_is_made_of_and_replayed_on_the_prepared_model(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    with planned(model, Pipeline(CountWeights())) as found:
        plan = found.plan
    assert [decision.subject for decision in plan.decisions] == ["w"]
    assert plan.notes == (NOTE,)
    assert "w" not in model.ir.graph.initializers
    manager = PassManager(Pipeline(CountWeights()), plans={"count-weights": plan})
    (_, step) = manager.run(model, make_context())
    assert list(step.model.ir.graph.initializers) == ["w_seen"]
    assert step.result.notes == (NOTE,)


def test_a_prefix_is_applied_to_the_prepared_model(
    model: Model, make_context: Callable[..., PassContext]
) -> None:
    """As the accuracy guard does it: from the model before the pass."""
    pass_, ctx = CountWeights(), make_context()
    (_, step) = PassManager(Pipeline(pass_)).run(model, ctx)
    candidate = step.before.clone()
    prepared = prepare(pass_, candidate.ir, ctx)
    assert step.result.plan is not None
    result = prepared.joined_to(pass_.apply(candidate.ir, step.result.plan.prefix(1), ctx))
    assert result.notes == step.result.notes and candidate.text() == step.model.text()


@pytest.mark.parametrize(
    ("required", "message"),
    [
        ("lift-constant", "requires 'lift-constant': there is no pass 'lift-constant'"),
        ("int8", "requires 'int8': it requires"),
        ("fold-constants", "which is reassociated; only exact passes may be required"),
        ("O2", "there is no pass 'O2'"),
        ("lift-constants,remove-identity", "there is no pass"),
        ("fold-constants:exct=true", "exct"),
    ],
)
def test_what_cannot_be_established_is_refused(required: str, message: str) -> None:
    class Wants(Pass):
        name: ClassVar[str] = "wants"
        requires: ClassVar[tuple[str, ...]] = (required,)

        def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
            return PassResult(modified=False)

    with pytest.raises(UsageError, match=message):
        Pipeline(Wants())


def test_every_registered_pass_requires_what_exists() -> None:
    for name in registry.names("irtools.passes"):
        Pipeline(name)


def test_exact_folding_is_a_promise() -> None:
    (loose, exact) = Pipeline("fold-constants,fold-constants:exact=true")
    assert loose.promise is Exactness.REASSOCIATED
    assert exact.promise is Exactness.EXACT
