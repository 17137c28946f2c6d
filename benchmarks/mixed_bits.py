"""Bits of each weight by a knapsack: SmolLM2-135M, and a small student, for their size.

    python -m benchmarks run mixed-bits [--models NAME..] [--only PIPELINE] [--samples N]
                                        [--write [NAME]]

The package's checkpoint came quantized, on a grid of 4 bits that `int4` keeps as it is. So each
weight is moved by 2 % of its standard deviation first: a copy that has left its grid. Calibrated on
16 news texts, perplexity on others. No times are taken but those of the pass.

The student of `chain-r8`, two layers, with fewer tokens and half of its channels, gets bits for a
size; accuracy on the whole test split, next to its teacher.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import irtools
from benchmarks.chain import ORT, TASKS, TEACHER, TRIM, Row, Workshop, figures, known_scores
from benchmarks.recording import (
    DEFAULT_CACHE,
    about,
    add_write_option,
    prepare,
    store,
    stored_result,
)
from irtools.data import Dataset, DataSettings, load_dataset
from irtools.measure.cpu import cpu_quota
from irtools.metrics import Perplexity
from irtools.model import Model
from irtools.passmanager import PassContext, PassManager, Pipeline
from irtools.report.plain import plain_data
from irtools.sources import load_source
from irtools.targets import RunnerOptions

__all__ = ["PIPELINES", "VIEWS", "main", "off_its_grid", "perplexities"]

_AWAY = 0.02
_CALIBRATION, _LENGTH = 16, 64
_TEST_LENGTH = 128

PIPELINES = (
    "int4",
    "int4:scales=s8",
    "int4:method=gptq",
    "int4:scales=s8:block=64:method=gptq",
    "int4:embeddings=4",
    "int4:bits=auto",
    "int4:bits=auto:size=85.5MB",
)

MODELS = ("smollm2", "r8-student")
_SMALL = f"{TRIM},prune:ratio=0.5,fuse,int8:embeddings=4"
STUDENT = replace(
    TASKS["r8"],
    rows=(
        replace(TEACHER, targets=(ORT,)),
        Row("student, 8 bits, tables in 4", "distilled", _SMALL, targets=(ORT,)),
        Row(
            "student, mixed bits",
            "distilled",
            f"{_SMALL}:bits=auto:size=3.6MB",
            targets=(ORT,),
        ),
    ),
)


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--samples", type=int, default=24, help="texts for the perplexity")
    parser.add_argument("--only", action="append", help="pipelines to run (all)")
    add_write_option(parser, "mixed-bits")
    given = parser.parse_args(argv)
    # What is not run stays.
    stored = stored_result(given.write)
    parts: dict[str, Any] = {part: stored.get(part, []) for part in ("rows", "student")}
    if "smollm2" in given.models:
        rows = parts["rows"] = []
        for row in perplexities(given.cache, given.only or PIPELINES, given.samples):
            rows.append(row)
            print(row, flush=True)
    if "r8-student" in given.models:
        parts["student"] = students(given.cache.resolve())
    document = plain_data({**parts, **about("mixed-bits")})
    print("\n".join([*table(document), "", *student_table(document)]))
    store(given.write, document)


def perplexities(
    cache: Path, pipelines: Sequence[str], samples: int
) -> Iterator[Mapping[str, Any]]:
    """Yield a row for the moved SmolLM2 in float32, and for what each pipeline makes of it."""
    for name in ("smollm2", "bbc"):
        prepare(name, cache)
    checkpoint = load_source(str(cache / "smollm2" / "checkpoint"))
    source = irtools.optimize(checkpoint, "cleanup,fuse", bench=None, check=False).model
    calibration = _texts(cache, "calib", checkpoint, _CALIBRATION, _LENGTH)
    test = _texts(cache, "test", checkpoint, samples, _TEST_LENGTH)
    moved = off_its_grid(source)
    yield {"name": "float32", "bytes": moved.weight_bytes, "perplexity": _perplexity(moved, test)}
    for text in pipelines:
        ctx = PassContext.for_model(moved, "ort-cpu", calibration=calibration)
        step = PassManager(Pipeline(text)).run(moved, ctx)[-1]
        yield {
            "name": text,
            "bytes": step.model.weight_bytes,
            "perplexity": _perplexity(step.model, test),
            "seconds": step.figures.seconds["pass"],
            "notes": list(step.result.notes),
        }


def students(cache: Path) -> list[Mapping[str, Any]]:
    """Return a row for the teacher of R8, and for each form of its student."""
    prepare("r8", cache)
    workshop = Workshop(STUDENT, cache, cpu_quota())
    chain = workshop.chain()
    models = [Model.load(stage.source.source) for stage in chain.stages]
    scores = known_scores(workshop.made, chain, models)
    return [
        figures(stage, model, score, None)
        for stage, model, score in zip(chain.stages, models, scores, strict=True)
    ]


def _texts(cache: Path, split: str, model: Model, samples: int, length: int) -> Dataset:
    settings = DataSettings(samples=samples, max_length=length)
    found = load_dataset(str(cache / "bbc" / f"bbc_{split}.jsonl"), model, settings)
    return Dataset(found.feeds, source=f"bbc_{split}")


def off_its_grid(model: Model) -> Model:
    """Return a copy whose matrices are moved at random."""
    copy, rng = model.clone(), np.random.default_rng(0)
    copy.ir.metadata_props.pop("weights_on_grids", None)
    for value in copy.ir.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or len(tensor.shape) != 2 or tensor.dtype != ir.DataType.FLOAT:
            continue
        array = tensor.numpy()
        noise = rng.standard_normal(array.shape, np.float32) * np.float32(_AWAY * array.std())
        value.const_value = ir.Tensor(array + noise, name=value.name)
    return copy


def _perplexity(model: Model, texts: Dataset) -> float:
    metric, sums = Perplexity(), []
    ctx = PassContext.for_model(model, "ort-cpu")
    with ctx.runner(model.ir, RunnerOptions()) as runner:
        for feeds in texts.batches(1):
            sums.append(metric.per_sample(runner.run(feeds), feeds["input_ids"]))
    return metric.finish(np.concatenate(sums))


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| pipeline | MB of weights | perplexity | seconds |"
    yield "| --- | --- | --- | --- |"
    for row in document["rows"]:
        seconds = f"{row['seconds']:.0f}" if "seconds" in row else ""
        size = row["bytes"] / 1e6
        yield f"| {row['name']} | {size:.1f} | {row['perplexity']:.2f} | {seconds} |"


def student_table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table; sizes are against the teacher's."""
    yield "| model | MB | smaller | accuracy | agreement |"
    yield "| --- | --- | --- | --- | --- |"
    rows = document.get("student", ())
    for row in rows:
        cells = (
            row["name"],
            f"{row['size'] / 1e6:.2f}",
            f"{rows[0]['size'] / row['size']:.1f}",
            f"{row['evaluation']['value']:.2%}",
            f"{row['agreement']:.2%}",
        )
        yield f"| {' | '.join(cells)} |"


VIEWS = {"table": table, "student": student_table}
