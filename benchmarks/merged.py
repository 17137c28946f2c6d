"""Products of one input as one (query, key and value; gate and up), in whole models.

    python -m benchmarks prepare smollm2
    python -m benchmarks prepare r8
    python -m benchmarks run merged [--write [NAME]] [smollm2] [minilm]

Each model as it is lowered for ONNX Runtime, with all products of one input merged and with none,
alternating; SmolLM2 with its cache reads a prompt of 128 tokens and writes one token after as many.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import irtools
from benchmarks.decoder import export
from benchmarks.deployed import ratio_cell
from benchmarks.recording import (
    DEFAULT_CACHE,
    about,
    add_names,
    add_write_option,
    prepare,
    store,
)
from irtools.backends.onnxruntime.lowering import lower_for_cpu
from irtools.measure.base import BenchSettings, Ratio
from irtools.measure.shapes import bench_feeds
from irtools.measure.timing import Contender, measure
from irtools.metrics import FidelityMeter
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.targets import Feeds, RunnerOptions, find_target
from irtools.words import sqnr_text

TARGET = "ort-cpu"
LENGTHS = {"smollm2": (128,), "minilm": (16, 64, 128)}
PASSES = {
    "smollm2": {"int4": "cleanup,fuse,int4", "int4, rounded again": "cleanup,fuse,int4:grids=none"},
    "minilm": {
        "float32": "cleanup,fuse",
        "int8": "cleanup,fuse,int8",
        "int4": "cleanup,fuse,int4",
    },
}


@dataclass(frozen=True)
class MergedRow:
    """Figures of a model with merged products against the one without."""

    model: str
    form: str
    shape: str
    products: int
    median_ms: float
    faster: Ratio
    sqnr_db: float


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/fusion.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, PASSES)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=300, help="bound on each comparison")
    add_write_option(parser, "merged")
    given = parser.parse_args(argv)
    rows = [
        asdict(row)
        for name in given.names
        for form in PASSES[name]
        for row in figures(name, form, given)
    ]
    document = plain_data({**about("merged"), "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def source(name: str, cache: Path) -> tuple[Model, str | None]:
    """Return a model, and its calibration data."""
    if name == "smollm2":
        prepare(name, cache)
        folder = cache / "contenders" / name
        folder.mkdir(parents=True, exist_ok=True)
        return Model.load(export(cache / name / "checkpoint", folder).files[0]), None
    prepare("r8", cache)
    return Model.load(cache / "r8" / "minilm-r8.onnx"), str(cache / "r8" / "r8_calib.npz")


def figures(name: str, form: str, given: argparse.Namespace) -> Iterator[MergedRow]:
    """Yield a row for each shape."""
    model, calibration = source(name, given.cache)
    data = calibration if form == "int8" else None
    made = irtools.optimize(
        model, PASSES[name][form], target=TARGET, calibration=data, bench=None, check=False
    ).model
    apart, _ = lower(made, "none")
    merged, products = lower(made, "all")
    bench = BenchSettings(
        sequence=LENGTHS[name], rounds=given.rounds, max_seconds=given.seconds, past=(128,)
    )
    feeds = bench_feeds(model, bench)
    found = measure(
        {"apart": Contender(apart, TARGET), "merged": Contender(merged, TARGET)}, feeds, bench
    )
    fidelity = sqnr(apart, merged, list(feeds.values()))
    for timed in found:
        if timed.speedup is not None:
            yield MergedRow(
                name, form, timed.shape, products, timed.median_ms, timed.speedup, fidelity
            )


def lower(model: Model, merge: Literal["none", "all"]) -> tuple[Model, int]:
    """Return a model as it is written, and how many products have become one."""
    copy = Model(model.ir.clone())
    counts = lower_for_cpu(copy.ir, find_target(TARGET).capabilities, merge=merge)
    return copy, counts.get("merged-products", 0)


def sqnr(apart: Model, merged: Model, feeds: Sequence[Feeds]) -> float:
    """Return the worst SQNR of an output, in dB."""
    target, options, meter = find_target(TARGET), RunnerOptions(exact=True), FidelityMeter()
    with target.runner(apart, options) as first, target.runner(merged, options) as second:
        for one in feeds:
            meter.update(first.run(one), second.run(one))
    return meter.result().sqnr_db


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| model | form | shape | merged | ms | faster | SQNR |"
    yield "| --- " * 7 + "|"
    for row in document["rows"]:
        yield (
            f"| {row['model']} | {row['form']} | {row['shape']} | {row['products']} "
            f"| {row['median_ms']:.2f} | {ratio_cell(row['faster'])} "
            f"| {sqnr_text(float(row['sqnr_db']))} |"
        )


VIEWS = {"table": table}
