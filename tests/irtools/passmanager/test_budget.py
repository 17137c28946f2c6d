"""What is measured of which model: inherited, cached, stopped early, timed at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.goals import Goals, Observed
from irtools.instruments import (
    AccuracyGuard,
    Benchmark,
    BisectLimit,
    FidelityAndMetric,
    Judge,
    Numerics,
    Verification,
)
from irtools.instruments import benchmark as benchmark_module
from irtools.instruments.budget import Budget
from irtools.instruments.early import surely_loses
from irtools.instruments.outlook import Outlook
from irtools.instruments.rollback import Rollback
from irtools.instruments.scores import MetricFigure
from irtools.instruments.speed import Latency
from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.cache import OutputCache
from irtools.measure.effort import Effort, Workload
from irtools.measure.figures import Figures
from irtools.metrics import load_metric
from irtools.model import Model
from irtools.passmanager import Exactness, PassContext, Pipeline
from irtools.passmanager.manager import PassManager
from irtools.passmanager.step import Instrument, Step
from irtools.plugins import NullProgress
from irtools.targets import Feeds, Runner, RunnerOptions


class _Clock:
    """Goes on by a fixed time at each look."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now = 0.0
        self.tick = tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


class _Runs:
    """Makes runners and counts the samples that each model ran on."""

    def __init__(self, ctx: PassContext) -> None:
        self._ctx = ctx
        self.samples: Counter[tuple[int, bool]] = Counter()

    def __call__(self, model: Model, options: RunnerOptions) -> Runner:
        runner = self._ctx.runner(model.ir, options)
        run = runner.run

        def counted(feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            self.samples[id(model), options.exact] += len(feeds["x"])
            return run(feeds, outputs)

        runner.run = counted  # type: ignore[method-assign]
        return runner

    def of(self, model: Model, *, exact: bool = False) -> int:
        return self.samples[id(model), exact]


def _budget(data: Dataset, effort: str = "normal", cost: float = 0.0) -> Budget:
    return Budget(Effort.parse(effort), Workload(len(data), scored=True), clock=_Clock(cost))


def _run(
    model: Model, ctx: PassContext, instruments: Sequence[Instrument], *passes: Any
) -> tuple[Step, ...]:
    return PassManager(Pipeline(*passes), tuple(instruments)).run(model, ctx)


def _judging(
    model: Model, data: Dataset, runs: _Runs, budget: Budget, cache: OutputCache | None = None
) -> Judge:
    return Judge(
        model, data, load_metric("accuracy"), runs, NullProgress(), budget=budget, cache=cache
    )


def _metric(figures: Figures) -> MetricFigure:
    found = figures.get(MetricFigure)
    assert found is not None
    return found


def test_a_pass_that_keeps_the_function_has_the_figures_of_the_model_before(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(labelled)
    judge = _judging(classifier, labelled, runs, budget)
    instruments = (Numerics(ctx.target, 1), FidelityAndMetric(judge, budget, last_lossy=3))
    steps = _run(
        classifier, ctx, instruments, passes.Rename(), passes.Idle(), passes.Zero(ratio=0.3)
    )
    original, renamed, idle, zeroed = (step.figures for step in steps)
    inherited = [_metric(f).inherited for f in (original, renamed, idle, zeroed)]
    assert inherited == [False, True, True, False]
    values = [_metric(f).value for f in (original, renamed, idle, zeroed)]
    assert values[0] == values[1] == values[2] != values[3]
    assert runs.of(steps[1].model) == 0
    assert runs.of(steps[3].model) >= len(labelled)


def test_without_the_comparison_of_numbers_nothing_is_inherited(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(labelled)
    judge = _judging(classifier, labelled, runs, budget)
    steps = _run(classifier, ctx, (FidelityAndMetric(judge, budget),), passes.Rename())
    assert not _metric(steps[1].figures).inherited and runs.of(steps[1].model) >= len(labelled)


def test_thorough_measures_every_model(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(labelled, "thorough")
    judge = _judging(classifier, labelled, runs, budget)
    instruments = (Numerics(ctx.target, 1), FidelityAndMetric(judge, budget))
    steps = _run(classifier, ctx, instruments, passes.Rename())
    assert not _metric(steps[1].figures).inherited and runs.of(steps[1].model) == len(labelled)


def test_what_costs_much_is_measured_on_a_part_and_says_so(
    classifier: Model, ctx: PassContext, labelled: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(labelled, "quick", cost=0.05)
    judge = _judging(classifier, labelled, runs, budget)
    score = judge.score(classifier)
    assert score.metric is not None and score.metric.samples == 64
    assert score.fidelity.samples == 32
    assert judge.notes == (
        "fidelity is measured on 32 of the 200 samples of memory, evenly spread",
        "accuracy is measured on 64 of the 200 samples of memory, evenly spread",
    )


def test_the_original_is_run_once_whoever_asks(
    classifier: Model, ctx: PassContext, labelled: Dataset, tmp_path: Path
) -> None:
    cache = OutputCache(tmp_path)
    first, second = _Runs(ctx), _Runs(ctx)
    before = _judging(classifier, labelled, first, _budget(labelled), cache).score(classifier)
    after = _judging(classifier, labelled, second, _budget(labelled), cache).score(classifier)
    assert before == after
    assert first.of(classifier) and first.of(classifier, exact=True)
    assert not second.samples
    for file in tmp_path.rglob("arrays.npz"):
        file.write_bytes(file.read_bytes()[:-30])
    third = _Runs(ctx)
    assert (
        _judging(classifier, labelled, third, _budget(labelled), cache).score(classifier) == after
    )
    assert third.of(classifier) == first.of(classifier)


def test_other_data_is_another_entry(
    classifier: Model, ctx: PassContext, labelled: Dataset, tmp_path: Path
) -> None:
    cache, runs = OutputCache(tmp_path), _Runs(ctx)
    _judging(classifier, labelled, _Runs(ctx), _budget(labelled), cache).score(classifier)
    other = labelled.select(np.arange(len(labelled))[::-1])
    _judging(classifier, other, runs, _budget(other), cache).score(classifier)
    assert runs.of(classifier) >= len(labelled)


@pytest.fixture
def many(classifier: Model, ctx: PassContext) -> Dataset:
    """4,096 samples with the classifier's own answers."""
    x = np.random.default_rng(1).standard_normal((4096, 16)).astype(np.float32)
    with ctx.runner(classifier.ir, RunnerOptions()) as runner:
        labels = runner.run({"x": x})["logits"].argmax(axis=-1)
    return Dataset({"x": x}, labels)


def test_the_guard_does_not_run_a_hopeless_model_to_the_end(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, many: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(many)
    judge = _judging(classifier, many, runs, budget)
    seen: list[Model] = []
    observe = judge.observe

    def watched(model: Model, goals: Goals | None = None) -> Observed:
        seen.append(model)
        return observe(model, goals)

    judge.observe = watched  # type: ignore[method-assign]
    guard = AccuracyGuard(judge, Goals.parse("max-drop=1%"), budget)
    steps = _run(classifier, ctx, (guard,), passes.Scale(factor=-1.0))
    assert str(steps[1].figures.get(Rollback)) == "dropped"
    assert len(many) // 4 <= runs.of(seen[0]) < len(many) // 2


def test_what_the_guard_keeps_was_measured_on_all(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, many: Dataset
) -> None:
    runs, budget = _Runs(ctx), _budget(many)
    judge = _judging(classifier, many, runs, budget)
    guard = AccuracyGuard(judge, Goals.parse("max-drop=20%"), budget)
    steps = _run(classifier, ctx, (guard,), passes.Zero(ratio=0.1))
    assert steps[1].figures.get(Rollback) is None
    assert runs.of(steps[1].model) >= len(many)


@pytest.mark.parametrize(
    ("loss", "limit", "sure"), [(0.3, 0.01, True), (0.03, 0.01, False), (0.0, 0.01, False)]
)
def test_only_a_plain_loss_is_sure(loss: float, limit: float, sure: bool) -> None:
    before = np.ones(512)
    after = (np.arange(512) >= loss * 512).astype(float)
    assert surely_loses(before, after, limit) is sure
    assert not surely_loses(before[:1], after[:1], limit)


def test_the_bound_hardly_ever_turns_down_what_keeps_the_limit() -> None:
    rng = np.random.default_rng(0)
    wrong = [surely_loses(rng.random(300) < 0.9, rng.random(300) < 0.9, 0.0) for _ in range(300)]
    assert sum(wrong) <= 3


def test_a_runtime_that_breaks_the_original_is_named_and_runs_it_otherwise(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, labelled: Dataset
) -> None:
    def make_runner(model: Model, options: RunnerOptions) -> Runner:
        runner = ctx.runner(model.ir, options)
        if not options.exact and options.optimizations == "all":

            def broken(feeds: Feeds, outputs: Sequence[str] | None = None) -> Any:
                raise DataError("its LayerNormFusion fails")

            runner.run = broken  # type: ignore[method-assign]
        return runner

    judge = Judge(classifier, labelled, load_metric("accuracy"), make_runner, NullProgress())
    steps = _run(classifier, ctx, (FidelityAndMetric(judge),), passes.Zero(ratio=0.3))
    for step in steps:
        assert step.figures.get(MetricFigure) is not None
        assert (
            "the runtime runs this model only with its own optimizations at their basic level; "
            "with all of them: its LayerNormFusion fails" in step.figures.notes
        )


def test_a_pass_that_breaks_the_model_for_the_runtime_is_not_excused(
    classifier: Model, ctx: PassContext, labelled: Dataset
) -> None:
    other = classifier.clone()

    def make_runner(model: Model, options: RunnerOptions) -> Runner:
        if model is other and not options.exact and options.optimizations == "all":
            raise DataError("no kernel")
        return ctx.runner(model.ir, options)

    judge = Judge(classifier, labelled, load_metric("accuracy"), make_runner, NullProgress())
    judge.score(classifier)
    with pytest.raises(DataError, match="no kernel"):
        judge.score(other)


def _latency(name: str, ratio: float = 1.0) -> LatencyResult:
    speedup = None if name == "original" else Ratio(ratio, ratio - 0.01, ratio + 0.01)
    return LatencyResult(name, "batch=1", 1.0, 1.0, 1.0, 1.0, 0, 0.0, 9, (1.0,) * 3, speedup)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are timed, instead of timing them."""
    names: list[str] = []

    def measure(contenders: Any, feeds: Any, settings: Any, progress: Any) -> list[LatencyResult]:
        names.extend(list(contenders)[1:])
        return [_latency(name) for name in contenders]

    monkeypatch.setattr(benchmark_module, "measure", measure)
    return names


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("each", ["rename", "rename:honest=true", "zero:ratio=0.3", "rename"]),
        ("end", ["rename", "zero:ratio=0.3", "rename"]),
        ("last", ["rename"]),
    ],
)
def test_models_are_timed_where_the_plan_says(
    which: Any,
    wanted: list[str],
    classifier: Model,
    ctx: PassContext,
    passes: SimpleNamespace,
    timed: list[str],
) -> None:
    bench = Benchmark(ctx.target, BenchSettings(), timed=which)
    pipeline = (passes.Rename(), passes.Rename(), passes.Zero(ratio=0.3), passes.Rename())
    steps = _run(classifier, ctx, (bench,), *pipeline)
    assert len(timed) == len(wanted)
    assert [bool(step.figures.get(Latency)) for step in steps[1:]] == {
        "each": [True] * 4,
        "end": [False, True, True, True],
        "last": [False, False, False, True],
    }[which]
    original = steps[0].figures.get(Latency)
    assert original is not None and original[0].name == "original"


def test_a_row_that_ends_with_an_idle_pass_is_timed(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, timed: list[str]
) -> None:
    bench = Benchmark(ctx.target, BenchSettings(), timed="end")
    steps = _run(classifier, ctx, (bench,), passes.Rename(), passes.Idle())
    assert len(timed) == 1 and steps[2].figures.get(Latency)


def test_a_row_that_is_cut_off_is_timed(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace, timed: list[str]
) -> None:
    class _Nowhere:
        def write(self, text: str) -> int:
            return len(text)

        def flush(self) -> None: ...

    bench = Benchmark(ctx.target, BenchSettings(), timed="end")
    limit = BisectLimit(1, _Nowhere())  # type: ignore[arg-type]
    steps = _run(classifier, ctx, (limit, bench), passes.Rename(), passes.Rename())
    assert len(timed) == 1 and steps[1].figures.get(Latency)


def test_the_time_left_is_told_from_the_start_and_shrinks(
    classifier: Model, ctx: PassContext, passes: SimpleNamespace
) -> None:
    told: list[tuple[int, int, float]] = []
    clock = _Clock(0.5)
    budget = Budget(Effort("normal"), Workload(100, scored=True), clock=clock)
    kinds = [Exactness.EXACT, Exactness.LOSSY]

    def tell(done: int, total: int, seconds: float) -> None:
        told.append((done, total, seconds))

    outlook = Outlook(kinds, budget, 1_000_000, True, tell)
    outlook.start()
    _run(classifier, ctx, (Verification(), outlook), passes.Rename(), passes.Zero())
    assert [(done, total) for done, total, _ in told] == [(0, 2), (0, 2), (1, 2), (2, 2)]
    left = [seconds for _, _, seconds in told]
    assert left[0] > left[1] > 0 and left[-1] == 0
