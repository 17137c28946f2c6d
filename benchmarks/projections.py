"""Query, key and value (and gate and up) as one product each, in whole models.

    python -m benchmarks prepare minilm
    python -m benchmarks prepare smollm2
    python -m benchmarks run projections [--write [NAME]] [minilm] [smollm2]

Each model as it is written for a target, with all such products merged (`merge-projections:
when=always`) and with none, alternating; SmolLM2 with its cache reads a prompt of 128 tokens and
writes one token after as many. What the pass would do by itself follows from the intervals.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.decoder import export
from benchmarks.deployed import deployed, ratio_cell
from benchmarks.exported import exported
from benchmarks.recording import (
    DEFAULT_CACHE,
    about,
    add_names,
    add_write_option,
    prepare,
    store,
)
from irtools.measure.base import BenchSettings, Ratio
from irtools.measure.shapes import bench_feeds
from irtools.measure.timing import Contender, measure
from irtools.metrics import FidelityMeter
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.targets import Feeds, RunnerOptions, find_target
from irtools.words import sqnr_text

MERGED = "merge-projections:when=always"
LENGTHS = {"minilm": (16, 64, 128), "smollm2": (128,)}
FORMS = {
    "minilm": (
        ("float32", "cleanup,fuse", "ort-cpu"),
        ("float32", "cleanup,fuse", "openvino-cpu"),
        ("int8", "cleanup,fuse,int8:mode=static", "ort-cpu"),
        ("int8", "cleanup,fuse,int8:mode=static", "openvino-cpu"),
        ("int4", "cleanup,fuse,int4", "ort-cpu"),
    ),
    "smollm2": (("int4", "cleanup,fuse,int4", "ort-cpu"),),
}


@dataclass(frozen=True)
class MergedRow:
    """Figures of a model with merged projections against the one without."""

    model: str
    form: str
    target: str
    shape: str
    median_ms: float
    faster: Ratio
    sqnr_db: float


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/fusion.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, FORMS)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=300, help="bound on each comparison")
    add_write_option(parser, "projections")
    given = parser.parse_args(argv)
    rows = []
    for name in given.names:
        model = source(name, given.cache)
        for form, passes, target in FORMS[name]:
            rows += [asdict(row) for row in figures(name, model, form, passes, target, given)]
    document = plain_data({**about("projections"), "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def source(name: str, cache: Path) -> Model:
    """Return an exported model; SmolLM2 with its cache."""
    if name != "smollm2":
        return Model.load(exported(name, cache))
    prepare(name, cache)
    folder = cache / "contenders" / name
    folder.mkdir(parents=True, exist_ok=True)
    return Model.load(export(cache / name / "checkpoint", folder).files[0])


def figures(
    name: str, model: Model, form: str, passes: str, target: str, given: argparse.Namespace
) -> Iterator[MergedRow]:
    """Yield a row for each shape."""
    models = [deployed(model, text, target, None) for text in (passes, f"{passes},{MERGED}")]
    bench = BenchSettings(
        sequence=LENGTHS[name], rounds=given.rounds, max_seconds=given.seconds, past=(128,)
    )
    feeds = bench_feeds(model, bench)
    contenders = zip(("apart", "merged"), models, strict=True)
    timed = measure({n: Contender(m, target) for n, m in contenders}, feeds, bench)
    fidelity = sqnr(models[0], models[1], target, list(feeds.values()))
    for result in timed:
        if result.speedup is not None:
            yield MergedRow(
                name, form, target, result.shape, result.median_ms, result.speedup, fidelity
            )


def sqnr(apart: Model, merged: Model, target: str, feeds: Sequence[Feeds]) -> float:
    """Return the worst SQNR of an output, in dB."""
    options, meter, start = RunnerOptions(exact=True), FidelityMeter(), find_target(target).runner
    with start(apart, options) as first, start(merged, options) as second:
        for one in feeds:
            meter.update(first.run(one), second.run(one))
    return meter.result().sqnr_db


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| model | form | runtime | shape | ms merged | faster | SQNR to apart |"
    yield "| --- " * 7 + "|"
    for row in document["rows"]:
        yield (
            f"| {row['model']} | {row['form']} | {row['target']} | {row['shape']} "
            f"| {row['median_ms']:.2f} | {ratio_cell(row['faster'])} "
            f"| {sqnr_text(float(row['sqnr_db']))} |"
        )


VIEWS = {"table": table}
