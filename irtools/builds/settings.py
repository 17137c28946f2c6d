"""From the tables of `irc.toml` to the settings of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from irtools.builds.matrix import Combination
from irtools.builds.places import KeyPath
from irtools.data import DataSettings, SyntheticSettings
from irtools.driver.settings import Settings
from irtools.errors import IrtoolsError, UsageError
from irtools.measure.base import BenchSettings
from irtools.metrics import load_metric
from irtools.passmanager import Pipeline
from irtools.plugins import is_task, suggest
from irtools.report.kinds import figure_kinds
from irtools.sources import LoadOptions

__all__ = ["check_recipes", "loading_of", "pipeline_of", "reading_of", "settings_of"]


def check_recipes(builds: Iterable[Combination]) -> None:
    """Refuse what `irc.toml` names and does not exist, before the first build takes its time.

    Raises:
        UsageError: A pass, an option, a metric or a figure that does not exist; says at which line.
    """
    for one in builds:
        pipeline_of(one)
        settings_of(one)
        metric, own = metric_of(one), one.pipeline_table.goals
        goals = ("goals",) if own is None else ("pipelines", one.pipeline, "goals")
        places: list[tuple[KeyPath, str]] = [(goals, name) for name in one.goals.metrics]
        if metric is not None:
            places.insert(0, (("models", one.model, "metric"), metric))
        for at, name in places:
            try:
                if not is_task(name):
                    load_metric(name)
            except IrtoolsError as error:
                raise one.config.error(at, str(error)) from error
        known = [kind.key.replace("_", "-") for kind in figure_kinds()]
        for name in one.config.measuring.figures:
            if name not in known:
                raise one.config.error(
                    ("measuring", "figures"), f"there is no figure {name!r}{suggest(name, known)}"
                )


def pipeline_of(one: Combination) -> Pipeline | None:
    """Return the passes; None: they are to be found.

    Raises:
        UsageError: Text that is not a pipeline; says at which line.
    """
    if one.found is not None:
        # A search that found nothing better than the original left no passes.
        return Pipeline.parse(one.found) if one.found else Pipeline()
    if one.is_searched:
        return None
    try:
        return Pipeline.parse(one.pipeline_table.passes)
    except UsageError as error:
        raise one.config.error(("pipelines", one.pipeline), str(error)) from error


def settings_of(one: Combination) -> Settings:
    """Return everything that decides a run apart from model, passes and data.

    Raises:
        UsageError: A value that does not exist or does not go with another one.
    """
    measuring = one.config.measuring
    if one.is_searched and not measuring.check and one.evaluate is None:
        raise one.config.error(
            ("measuring", "check"),
            f"{one.name} is searched for, which compares models with the original: leave the "
            "checks on, or give data to evaluate",
        )
    timed, loading = measuring.bench, loading_of(one)
    bench = BenchSettings(measuring.batch, measuring.sequence, measuring.threads)
    try:
        return Settings(
            target=one.target_text,
            loading=loading,
            data=reading_of(one),
            metric=metric_of(one),
            bench=None if timed == "none" else bench,
            timed=timed,
            figures=measuring.figures,
            new_tokens=measuring.new_tokens,
            goals=one.goals,
            seed=measuring.seed,
            threads=measuring.threads,
            check=measuring.check,
            portable=one.pipeline_table.portable,
            show_samples=one.config.release.samples == "data",
            effort=measuring.effort,
        )
    except IrtoolsError as error:
        raise one.config.error(("measuring",), str(error)) from error


def metric_of(one: Combination) -> str | None:
    """Return the metric that models are judged by; None: the data decides."""
    metric = one.model_table.metric
    return one.located(metric) if metric is not None and is_task(metric) else metric


def loading_of(one: Combination) -> LoadOptions:
    """Return how the source becomes a model."""
    table = one.model_table
    return LoadOptions(
        opset=table.opset,
        example=None if table.example is None else Path(one.located(table.example)),
        weights=None if table.weights is None else Path(one.located(table.weights)),
        task=table.task,
        with_past=table.with_past,
        adapters=tuple(_adapter(one, text) for text in table.adapters),
        adapters_as=table.adapters_as,
        part=table.part,
        trust_remote_code=table.trust_remote_code,
        check=one.config.measuring.check,
        sizes=tuple(table.fix.items()),
        logits=table.logits,
    )


def reading_of(one: Combination) -> DataSettings:
    """Return how data is read."""
    table = one.data_table
    return DataSettings(
        tokenizer=None if table.tokenizer is None else Path(one.located(table.tokenizer)),
        text_columns=table.text,
        label_column=table.label,
        max_length=table.max_length,
        samples=table.samples,
        synthetic=SyntheticSettings(sizes=dict(table.sizes) or None),
    )


def _adapter(one: Combination, text: str) -> tuple[Path, float]:
    path, equals, factor = text.rpartition("=")
    if not equals:
        return Path(one.located(text)), 1.0
    try:
        number = float(factor)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise one.config.error(
            ("models", one.model, "adapters"), f"{text!r} is neither DIR nor DIR=0.5"
        )
    return Path(one.located(path)), number
