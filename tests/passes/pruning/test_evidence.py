"""Evidence goes by names and is collected once, for every trial and every pass that needs it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest

from irtools.data import Dataset
from irtools.model import Model
from irtools.passes.pruning.prune import Prune
from irtools.passes.pruning.sparsify import Sparsify
from irtools.passmanager import PassContext, PassManager, Pipeline, Plan
from irtools.statistics import ChannelMean, Want


@dataclass
class Sweeps:
    """Counts how often the calibration data went through a model."""

    count: int = 0
    labels: list[str] = field(default_factory=list)

    def step(self, label: str, done: int, total: int) -> None:
        self.count += label == "calibrating" and done == total


@pytest.fixture
def sweeps() -> Sweeps:
    return Sweeps()


@pytest.fixture
def model(build) -> Model:
    return Model(build("ffn"))


@pytest.fixture
def ctx(model: Model, sweeps: Sweeps) -> PassContext:
    rng = np.random.default_rng(0)
    data = Dataset({"x": rng.standard_normal((64, 6, 8)).astype(np.float32)})
    return PassContext.for_model(model, calibration=data, threads=1, progress=sweeps)


def test_a_plan_and_its_trials_share_one_sweep(model, ctx, sweeps) -> None:
    pass_ = Prune(ratio=0.5, round_to=1)
    plan = pass_.plan(model.ir, ctx)
    assert sweeps.count == 1
    for _ in range(2):
        copy = model.clone()
        ctx.drop_analyses()
        assert pass_.apply(copy.ir, plan, ctx).modified
    assert sweeps.count == 1


def test_passes_share_what_is_known_of_a_model(model, ctx, sweeps) -> None:
    """Both need what goes into the second product, `sparsify` what goes into the first too."""
    PassManager(Pipeline("sparsify:ratio=0,sparsify:ratio=0.5:scope=local")).run(model, ctx)
    assert sweeps.count == 1
    ctx.forget_statistics()
    Prune(ratio=0.5, round_to=1).plan(model.ir, ctx)
    Sparsify(ratio=0.5, scope="local").plan(model.ir, ctx)
    assert sweeps.count == 3, "the second asks for one tensor more, and only for that"


def test_what_a_changed_model_gives_is_collected_anew(model, ctx, sweeps) -> None:
    steps = PassManager(Pipeline("prune:ratio=0.25:round-to=1,sparsify")).run(model, ctx)
    assert [step.modified for step in steps] == [False, True, True]
    assert sweeps.count == 2


def test_a_service_goes_by_content_and_is_not_moved_by_later_changes(model, ctx) -> None:
    service = ctx.statistics(model.ir)
    assert ctx.statistics(model.clone().ir) is service
    changed = model.clone()
    value = changed.ir.graph.initializers["w_b1"]
    value.const_value = ir.tensor(value.const_value.numpy() + 1, name="w_b1")
    want = Want("a", ChannelMean())
    other = ctx.statistics(changed.ir)
    assert other is not service
    value.const_value = ir.tensor(value.const_value.numpy() + 5, name="w_b1")
    (before,), (after,) = service.collect([want]).values(), other.collect([want]).values()
    np.testing.assert_allclose(after - before, 1, rtol=1e-5)
    ctx.forget_statistics()
    assert ctx.statistics(changed.ir) is not other


@pytest.mark.parametrize(
    ("name", "sequential"),
    [("ffn", False), ("ffn", True), ("heads", False), ("conv", False), ("fused-heads", False)],
)
def test_a_stored_plan_gives_the_same_model_on_the_file_loaded_again(
    name, sequential, build, data_context, random_feeds, tmp_path
) -> None:
    path = tmp_path / "model.onnx"
    Model(build(name)).save(path)
    first, again = Model.load(path), Model.load(path)
    feeds = random_feeds(first.ir, batch=32)
    pass_ = Prune(ratio=0.5, round_to=1, sequential=sequential)
    result = pass_.run(first.ir, data_context(feeds))
    stored = Plan.from_json(result.plan.to_json())
    pass_.apply(again.ir, stored, data_context(feeds))
    assert again.text() == first.text()


def test_a_replay_without_data_says_that_nothing_is_refitted(build, data_context, random_feeds):
    model = build("ffn")
    plan = Prune(ratio=0.5).plan(model, data_context(random_feeds(model, batch=32)))
    notes = Prune(ratio=0.5).apply(model, plan, data_context(None)).notes
    assert notes[-1] == "the plan was made with calibration data; without it nothing is refitted"
