"""The tables of `irc.toml`, and the JSON schema that follows from them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from irtools.goals import Goals
from irtools.measure.effort import Effort, TimedModels

__all__ = [
    "AUTO",
    "DataTable",
    "GoalTable",
    "MeasuringTable",
    "ModelTable",
    "PipelineTable",
    "ReleaseTable",
    "TrackingTable",
    "config_schema",
]

_Count = Annotated[int, Meta(ge=1)]
_Path = Annotated[str, Meta(min_length=1)]
_Natural = Annotated[int, Meta(ge=0)]
_Bound: TypeAlias = str | float
_Bounds: TypeAlias = str | float | tuple[str | float, ...] | dict[str, str | float]

AUTO = "auto"
"""Passes of a pipeline that is to be found."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """Keys are written with hyphens; unknown ones are refused."""


class ModelTable(_Table, frozen=True):
    """A source, and how it becomes a model.

    Attributes:
        source: ONNX file, checkpoint folder, GGUF file or module:function.
        data: Name of a table of [data]; left out: the only one, if there is one.
        metric: As --metric.
        pipelines: Pipelines that are run over it; left out: all.
        targets: Targets that it is built for; left out: all.
        task: As --task.
        part: One of the models that a checkpoint consists of, such as encoder.
        opset: As --opset.
        with_past: As --with-past.
        logits: As --logits.
        fix: Numbers for dynamic axes, as --fix.
        adapters: As --adapter, each DIR or DIR=FACTOR.
        adapters_as: As --adapters-as.
        example: As --example.
        weights: As --weights.
        trust_remote_code: As --trust-remote-code.
        base_model: Name on a hub of what the source was made from, for the model card.
        license: SPDX name, for the model card.
        language: Language codes, for the model card.
        summary: What the model is for, in a sentence, for the model card.
    """

    source: _Path
    data: str | None = None
    metric: str | None = None
    pipelines: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None
    task: str | None = None
    part: str | None = None
    opset: Annotated[int, Meta(ge=7)] | None = None
    with_past: bool = False
    logits: Literal["all", "last"] = "all"
    fix: dict[str, _Count] = {}
    adapters: tuple[str, ...] = ()
    adapters_as: Literal["merged", "inputs", "constants"] = "merged"
    example: str | None = None
    weights: str | None = None
    trust_remote_code: bool = False
    base_model: str | None = None
    license: str | None = None
    language: tuple[str, ...] = ()
    summary: str = ""


class DataTable(_Table, frozen=True):
    """Data to calibrate and to judge on.

    Attributes:
        calibrate: As --calibrate.
        evaluate: As --evaluate.
        tokenizer: As --tokenizer.
        text: Columns, as --text.
        label: As --label.
        max_length: As --max-length.
        samples: As --samples.
        sizes: Sizes of dynamic axes of drawn inputs, as --size.
    """

    calibrate: str | None = None
    evaluate: str | None = None
    tokenizer: str | None = None
    text: tuple[str, ...] | None = None
    label: str | None = None
    max_length: _Count | None = None
    samples: _Count | None = None
    sizes: dict[str, _Count] = {}


class GoalTable(_Table, frozen=True):
    """What results must keep: bounds as the options of irc optimize of the same names take them.

    Attributes:
        max_drop: As --max-drop; a list or a table has a bound for each metric.
        min_metric: As --min-metric; a list or a table has a bound for each metric.
        speedup: As --speedup.
        max_latency: As --max-latency.
        max_size: As --max-size.
        max_memory: As --max-memory.
    """

    max_drop: _Bounds | None = None
    min_metric: _Bounds | None = None
    speedup: _Bound | None = None
    max_latency: _Bound | None = None
    max_size: _Bound | None = None
    max_memory: _Bound | None = None

    def __post_init__(self) -> None:
        self.goals  # noqa: B018 - raises what is wrong where it is written.

    @property
    def goals(self) -> Goals:
        """The goals."""
        return Goals.of_options({n: _options(getattr(self, n)) for n in self.__struct_fields__})


def _options(bounds: Any) -> Any:
    """Return bounds as options of `irc optimize` give them."""
    if isinstance(bounds, dict):
        return tuple(f"{metric}={bound}" for metric, bound in bounds.items())
    return bounds


class PipelineTable(_Table, frozen=True):
    """Passes, as text, or "auto" to have them found.

    Attributes:
        passes: As --passes; "auto": those that a search finds, as irc optimize without --passes.
        goals: Of this pipeline, in place of all of [goals].
        portable: As --portable.
    """

    passes: str
    goals: GoalTable | None = None
    portable: bool = False

    @classmethod
    def of(cls, value: Any) -> Any:
        """Let the text of the passes stand for the table."""
        return {"passes": value} if isinstance(value, str) else value


class MeasuringTable(_Table, frozen=True):
    """How models are measured and checked.

    Attributes:
        effort: quick, normal, thorough, or seconds.
        bench: Which models are timed: each, end, last or none.
        batch: As --batch.
        sequence: As --seq.
        threads: As --threads.
        seed: As --seed.
        new_tokens: As --new-tokens.
        figures: As --figures.
        check: Compare numbers before and after each pass.
    """

    effort: str | float = "normal"
    bench: TimedModels | None = None
    batch: tuple[_Count, ...] = (1,)
    sequence: tuple[_Count, ...] = (128,)
    threads: _Count | None = None
    seed: _Natural = 0
    new_tokens: _Natural = 32
    figures: tuple[str, ...] = ()
    check: bool = True

    def __post_init__(self) -> None:
        Effort.parse(self.effort)


class ReleaseTable(_Table, frozen=True):
    """The folder that is made.

    Attributes:
        folder: Its path.
        name: Of the release, for the model card and the bill of materials; left out: that of the
            folder that holds irc.toml.
        version: Of the release.
        samples: What `irc verify` runs: inputs that are drawn, or four samples of the evaluation
            data, which the release then holds.
    """

    folder: _Path = "release"
    name: str | None = None
    version: str = ""
    samples: Literal["drawn", "data"] = "drawn"


class TrackingTable(_Table, frozen=True):
    """Where runs are written to: one for each build that is made.

    Attributes:
        to: Trackers, each as --track.
    """

    to: tuple[str, ...] = ()


class _Document(_Table, frozen=True):
    """A build file of irc: models x pipelines x targets make a release."""

    models: dict[str, ModelTable]
    pipelines: dict[str, str | PipelineTable]
    data: dict[str, DataTable] = {}
    targets: dict[str, str] = {}
    goals: GoalTable = GoalTable()
    measuring: MeasuringTable = MeasuringTable()
    release: ReleaseTable = ReleaseTable()
    tracking: TrackingTable = TrackingTable()


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of `irc.toml`, for editors and for checks outside irc."""
    _, parts = msgspec.json.schema_components((_Document,))
    for part in parts.values():
        _describe(part)
    top = parts.pop("_Document")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **top,
        "title": "irc.toml",
        "$defs": parts,
    }


def _describe(part: dict[str, Any]) -> None:
    """Move what a docstring says of each attribute to the property itself."""
    text, _, attributes = part["description"].partition("\n\nAttributes:\n")
    part["description"] = text
    for item in re.split(r"\n {4}(?! )", "\n" + attributes)[1:]:
        name, _, meaning = item.partition(": ")
        part["properties"][name.replace("_", "-")]["description"] = " ".join(meaning.split())
