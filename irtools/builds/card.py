"""The model card of a release: `README.md` with the metadata that hubs read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irtools.builds.config import Config
from irtools.builds.records import BuildRecord
from irtools.builds.summary import markdown_table, summary_rows
from irtools.builds.tables import ModelTable
from irtools.plugins import registry
from irtools.version import __version__
from irtools.words import printable

__all__ = ["model_card"]

_QUANTIZING = ("int8", "int4", "store", "fp16", "bf16")


def model_card(config: Config, name: str, builds: Sequence[BuildRecord]) -> str:
    """Return the card: front matter as Hugging Face defines it, then text for people.

    Values in the front matter are written as JSON, which is YAML as well.
    """
    models = [config.models[model] for model in dict.fromkeys(_model(one) for one in builds)]
    front = (f"{key}: {json.dumps(value)}" for key, value in _front(models, builds) if value)
    return "\n".join(["---", *front, "---", "", *_body(config, name, builds)]) + "\n"


def _front(
    models: Sequence[ModelTable], builds: Sequence[BuildRecord]
) -> Iterator[tuple[str, Any]]:
    bases = list(dict.fromkeys(model.base_model for model in models if model.base_model))
    licenses = list(dict.fromkeys(model.license for model in models if model.license))
    tasks = list(dict.fromkeys(one.task for one in builds if one.task))
    yield "base_model", bases
    yield "base_model_relation", _relation(builds) if bases else ""
    yield "library_name", "onnx"
    yield "license", licenses[0] if len(licenses) == 1 else ""
    yield "language", list(dict.fromkeys(code for model in models for code in model.language))
    yield "pipeline_tag", tasks[0] if len(tasks) == 1 else ""
    yield "tags", ["onnx", "irtools", *sorted({one.inputs.target.split(":")[0] for one in builds})]
    yield "model-index", [_results(one) for one in builds if one.scores.value is not None]


def _relation(builds: Sequence[BuildRecord]) -> str:
    """Return how the results relate to their base, in the hub's words."""
    passes = {text.split(":")[0] for one in builds for text in _history(one).split(",")}
    return "quantized" if passes & set(_QUANTIZING) else "finetune"


def _history(one: BuildRecord) -> str:
    return ",".join(registry.PRESETS.get(part, part) for part in one.pipeline.split(","))


def _results(one: BuildRecord) -> dict[str, Any]:
    scores = one.scores
    data, digest, _ = one.datasets[-1] if one.datasets else ("data", "", 0)
    return {
        "name": one.name,
        "results": [
            {
                "task": {"type": one.task or "other"},
                "dataset": {"name": data, "type": Path(data).stem or "data", "revision": digest},
                "metrics": [{"type": scores.metric, "value": scores.value, "name": scores.metric}],
            }
        ],
    }


def _body(config: Config, name: str, builds: Sequence[BuildRecord]) -> Iterator[str]:
    yield f"# {printable(name)}"
    yield ""
    for model in dict.fromkeys(_model(one) for one in builds):
        table = config.models[model]
        base = f", made from {table.base_model}" if table.base_model else ""
        what = (table.summary or Path(table.source).name).rstrip(".")
        yield f"`{model}`: {printable(what)}{base}."
        yield ""
    yield f"Built by irtools {__version__} (`irc build`). Figures are of the machine named in"
    yield "`report.md`; `irc verify` compares hashes and numbers on yours."
    yield ""
    yield from markdown_table(*summary_rows(builds))
    yield ""
    for one in builds:
        yield f"## {one.name}"
        yield ""
        yield f"- file: `{one.name}/{one.main}`, for {one.inputs.target} ({one.inputs.runtime})"
        yield f"- passes: `{one.pipeline}`"
        for what in ("inputs", "outputs"):
            yield f"- {what}: {'; '.join(f'`{printable(text)}`' for text in one.interface[what])}"
        for data, digest, samples in one.datasets:
            yield f"- data: {printable(data)}, {samples} samples, sha256 `{digest[:16]}`"
        yield from (f"- note: {printable(note, 500)}" for note in one.notes)
        yield ""


def _model(one: BuildRecord) -> str:
    return one.name.split("/")[0]
