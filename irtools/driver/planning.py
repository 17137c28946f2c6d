"""What the last pass of a pipeline would decide."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from irtools.data import DataSettings, resolve_sizes
from irtools.driver.inputs import DataLike, read_calibration
from irtools.driver.job import ModelLike, PipelineLike, as_model, as_pipeline, files_next_to
from irtools.errors import UsageError
from irtools.instruments import Verification
from irtools.measure.drawable import DrawnInputs
from irtools.model import Model
from irtools.passmanager import (
    Calibration,
    PassContext,
    PassManager,
    Pipeline,
    Plan,
    PlanningPass,
    Workspace,
    plan_prepared,
)
from irtools.plugins import NullProgress, Progress
from irtools.sources import LoadOptions
from irtools.targets import Target, find_target

__all__ = ["Planned", "planned"]


@dataclass(frozen=True)
class Planned:
    """A plan, and what it was made for.

    Attributes:
        plan: What the pass would decide.
        pass_: The pass.
        model: The model that the pass would change, prepared as it requires.
        ctx: What it would be given.
    """

    plan: Plan
    pass_: PlanningPass
    model: Model
    ctx: PassContext


@contextmanager
def planned(
    model: ModelLike,
    pipeline: PipelineLike,
    *,
    loading: LoadOptions = LoadOptions(),
    target: str | Target = "ort-cpu",
    calibration: DataLike | None = None,
    data: DataSettings = DataSettings(),
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Planned]:
    """Plan the last pass of a pipeline; those before it are run.

    What is drawn or mapped for it is there until the block ends.

    Args:
        model: As in `optimize`, like the others.

    Raises:
        UsageError: The last pass makes no plan.
        IrtoolsError: As `optimize`.
    """
    passes = as_pipeline(pipeline)
    *first, last = passes
    if not isinstance(last, PlanningPass):
        raise UsageError(f"pass {last.name!r} makes no plan: it decides nothing")
    found = find_target(target) if isinstance(target, str) else target
    source = as_model(model, loading, progress or NullProgress())
    given = read_calibration(calibration, source, data)
    with Workspace() as workspace:
        drawn = DrawnInputs(
            source,
            found,
            partial(workspace.path, source),
            threads=threads,
            sizes=resolve_sizes(source, (data.synthetic.sizes or {}).items()),
        )
        ctx = PassContext.for_run(
            found,
            Calibration(given, source, seed, drawn),
            threads=threads,
            progress=progress,
            source_files=files_next_to(source, given),
        )
        steps = PassManager(Pipeline(*first), (Verification(),)).run(source, ctx, workspace)
        ctx.drop_analyses()
        ctx.adopt(steps[-1].model.companions)
        prepared = steps[-1].model.clone()
        plan = plan_prepared(last, prepared.ir, ctx)
        plan = dataclasses.replace(plan, notes=(*source.notes, *plan.notes))
        yield Planned(plan, last, prepared, ctx)
