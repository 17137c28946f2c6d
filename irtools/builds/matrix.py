"""The builds of a release: models x pipelines x targets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from irtools.builds.config import Config
from irtools.builds.places import KeyPath
from irtools.builds.tables import AUTO, DataTable, ModelTable, PipelineTable
from irtools.goals import Goals
from irtools.plugins import TaskName, is_task

__all__ = ["Combination", "combinations", "is_function"]

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Combination:
    """One model, run through one pipeline, for one target.

    Attributes:
        config: What the names refer to.
        found: Text of the passes that an earlier search found, which are run in place of another
            search; None: there was none, or the file names the passes.
    """

    config: Config
    model: str
    pipeline: str
    target: str
    found: str | None = None

    @property
    def name(self) -> str:
        """Also the folder in the release."""
        return f"{self.model}/{self.pipeline}/{self.target}"

    @property
    def model_table(self) -> ModelTable:
        return self.config.models[self.model]

    @property
    def pipeline_table(self) -> PipelineTable:
        return self.config.pipelines[self.pipeline]

    @property
    def target_text(self) -> str:
        return self.config.targets[self.target]

    @property
    def data_table(self) -> DataTable:
        """The data of the model: the one that it names, or the only one."""
        if self.model_table.data is not None:
            return self.config.data[self.model_table.data]
        return next(iter(self.config.data.values()), DataTable())

    def place_of(self, key: str) -> KeyPath:
        """Return where `irc.toml` has a key of the data; `evaluate` may follow from the metric."""
        if getattr(self.data_table, key) is None:
            return ("models", self.model, "metric")
        return ("data", self.model_table.data or next(iter(self.config.data)), key)

    @property
    def goals(self) -> Goals:
        """What the result must keep."""
        own = self.pipeline_table.goals
        return (self.config.goals if own is None else own).goals

    @property
    def is_searched(self) -> bool:
        """Whether its passes are to be found."""
        return self.pipeline_table.passes == AUTO

    def takes(self, pipeline: str) -> bool:
        """Whether a build of the same inputs that these passes made is the one that is wanted."""
        return self.found is None or self.found == pipeline

    @property
    def evaluate(self) -> str | None:
        """Data to evaluate on, as the file has it: named, or the documents of the metric's task."""
        metric, given = self.model_table.metric, self.data_table.evaluate
        if given is None and metric is not None and is_task(metric):
            return str(TaskName.parse(metric))
        return given

    def located(self, text: str) -> str:
        """Return a path of the file as it is from here; `module:function` stays."""
        if is_task(text):
            return TaskName.parse(text).located(self.config.folder).text
        if is_function(text) or text == "synthetic":
            return text
        return str(self.config.folder / text)


def combinations(config: Config) -> tuple[Combination, ...]:
    """Return the builds in the order of the file."""
    return tuple(_combinations(config))


def is_function(text: str) -> bool:
    """Whether a source is `module:function`."""
    return _FUNCTION.fullmatch(text) is not None and not Path(text).exists()


def _combinations(config: Config) -> Iterator[Combination]:
    for model, table in config.models.items():
        for pipeline in table.pipelines or config.pipelines:
            for target in table.targets or config.targets:
                yield Combination(config, model, pipeline, target)
