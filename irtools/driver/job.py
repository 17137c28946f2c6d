"""What a run works on: arguments read and checked."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx_ir as ir

from irtools.data import Dataset, resolve_sizes
from irtools.driver.inputs import DataLike, read_calibration, read_evaluation
from irtools.driver.settings import Settings
from irtools.errors import UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.cache import OutputCache
from irtools.measure.own_machine import refuse_foreign
from irtools.metrics import data_of_metrics
from irtools.model import Model
from irtools.passmanager import Exactness, Instrument, Pass, Pipeline, Plan
from irtools.plugins import NullProgress, Progress
from irtools.report.entries import Row
from irtools.sources import LoadOptions, companions_in, find_frontend, load_source
from irtools.targets import Target
from irtools.words import size_text

__all__ = ["Job", "ModelLike", "PipelineLike", "Watch", "as_model", "as_pipeline", "files_next_to"]

_NEW_TOKENS = 32
_LARGE_FILE = 20_000_000
"""Bytes of a file that may take seconds to read."""

ModelLike: TypeAlias = "str | os.PathLike[str] | Model | ir.Model | onnx.ModelProto"
PipelineLike: TypeAlias = "str | Pass | Pipeline"


@dataclass(frozen=True)
class Watch:
    """Who watches a run; nothing of it changes the result.

    Attributes:
        instruments: Further hooks around every pass.
        progress: Where to show how far long steps are.
        on_row: Called with each row of the report as soon as its pass is done.
        on_outlook: Called with the passes done, their number, and the seconds that the rest will
            take: from the start, and after each pass.
    """

    instruments: Sequence[Instrument] = ()
    progress: Progress = dataclasses.field(default_factory=NullProgress)
    on_row: Callable[[Row], None] | None = None
    on_outlook: Callable[[int, int, float], None] | None = None


@dataclass(frozen=True)
class Job:
    """A run that can start.

    Attributes:
        holdout: Samples that are quoted and never chosen by; None: half of the evaluation data.
        sizes: Sizes of open axes at which inputs are drawn.
        bench: How models are timed; None: not at all.
        plans: Plans to replay, by the text of their pass.
        cache: Where the original's outputs are kept between runs; None: not kept.
    """

    settings: Settings
    model: Model
    pipeline: Pipeline
    target: Target
    calibration: Dataset | None
    evaluation: Dataset | None
    holdout: Dataset | None
    sizes: Mapping[str, int]
    bench: BenchSettings | None
    plans: Mapping[str, Plan]
    cache: OutputCache | None
    watch: Watch

    @classmethod
    def read(
        cls,
        model: ModelLike,
        pipeline: PipelineLike,
        settings: Settings,
        *,
        calibration: DataLike | None = None,
        evaluation: DataLike | None = None,
        holdout: DataLike | None = None,
        plans: Sequence[Plan] = (),
        cache: Path | None = None,
        watch: Watch = Watch(),
    ) -> Job:
        """Read and check what `irtools.optimize` is given. Raises as that."""
        passes, target = as_pipeline(pipeline), settings.find_target()
        if settings.drop_slower:
            refuse_foreign(target, "drop-slower")
        for goal in settings.wanted.needing("times"):
            refuse_foreign(target, goal.name)
        if holdout is not None and evaluation is None:
            raise UsageError("holdout data without evaluation data: there is nothing to choose by")
        evaluation = data_of_metrics(settings.metrics, evaluation) or evaluation
        source = as_model(model, settings.loading, watch.progress)
        return cls(
            settings=settings,
            model=source,
            pipeline=passes,
            target=target,
            calibration=read_calibration(calibration, source, settings.data),
            evaluation=read_evaluation(evaluation, source, settings.data),
            holdout=read_evaluation(holdout, source, settings.data),
            sizes=resolve_sizes(source, (settings.data.synthetic.sizes or {}).items()),
            bench=_with_threads(settings.bench, settings.threads),
            plans={plan.pass_text: plan for plan in plans},
            cache=None
            if cache is None
            else OutputCache(cache, warn=partial(_tell, watch.progress)),
            watch=watch,
        )

    @property
    def data(self) -> Dataset | None:
        """Data that was given, the evaluation's before the calibration's."""
        return self.evaluation or self.calibration

    @property
    def judges(self) -> bool:
        """Whether models are compared and scored on data: a check, unless it was asked for.

        Passes that keep the function are held to it on a few feeds. Without data, more of them
        would only show how the runtime itself rounds.
        """
        if self.evaluation is not None or self.settings.metrics:
            return True
        if self.settings.wanted.needing("data"):
            return True
        return self.settings.check and not self.keeps_function

    @property
    def new_tokens(self) -> int:
        """Tokens that a decoder writes to each prompt, to compare its text; 0: none."""
        given = self.settings.new_tokens
        if given is None:
            # Equal logits make equal text, and the numbers show the logits, with a cache as well.
            return 0 if self.keeps_function else _NEW_TOKENS
        return given

    @property
    def keeps_function(self) -> bool:
        """Whether every pass promises the same function, and nothing but drawn data is there."""
        return (
            self.data is None
            and self.settings.planned_effort.name != "thorough"
            and all(one.promise is not Exactness.LOSSY for one in self.pipeline)
        )


def as_pipeline(pipeline: PipelineLike) -> Pipeline:
    """Return a pipeline of its text, a pass or a pipeline."""
    return pipeline if isinstance(pipeline, Pipeline) else Pipeline(pipeline)


def as_model(source: ModelLike, loading: LoadOptions, progress: Progress = NullProgress()) -> Model:
    """Return the model of whatever a caller gives.

    Args:
        source: What the caller gives.
        loading: How it becomes a model.
        progress: Told of a large file before it is read: forests of tens of megabytes take seconds.

    Raises:
        UsageError: It is none of these.
        IrtoolsError: As `load_source`.
    """
    match source:
        case Model():
            return source
        case str() | os.PathLike():
            path = Path(source)
            size = path.stat().st_size if path.is_file() else 0
            if size >= _LARGE_FILE:
                progress.step(f"reading {path.name} ({size_text(size)})", 0, 1)
            return load_source(os.fspath(source), loading)
        case ir.Model():
            return Model.from_ir(source)
        case onnx.ModelProto():
            return Model.from_proto(source)
    raise UsageError(
        f"the model is a {type(source).__name__}, expected a path, irtools.Model, "
        "onnx_ir.Model or onnx.ModelProto"
    )


def _with_threads(bench: BenchSettings | None, threads: int | None) -> BenchSettings | None:
    if bench is None or bench.threads is not None:
        return bench
    return dataclasses.replace(bench, threads=threads)


def _tell(progress: Progress, line: str) -> None:
    progress.step(line, 0, 1)


def files_next_to(model: Model, *data: Dataset | None) -> dict[str, Path]:
    """Return the files next to a model, by name: tokenizer, configuration and such.

    Where text was given, they are those of the tokenizer that encoded it.
    """
    for texts in (one.texts for one in data if one is not None):
        if texts is not None and texts.tokenizer is not None:
            found = {path.name: path for path in companions_in(texts.tokenizer.parent)}
            return {**found, "tokenizer.json": texts.tokenizer}
    if model.source is None or not model.source.exists():
        return {}
    source = str(model.source)
    return {path.name: path for path in find_frontend(source).companions(source)}
