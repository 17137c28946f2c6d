"""What the pass `sink` gains: only the position that a classifier reads is computed.

    python -m benchmarks prepare r8
    python -m benchmarks run sink [NAME...] [--write [NAME]]

MiniLM-L6 fine-tuned for R8 and its student of two layers, after `cleanup,fuse` and after int8, each
with and without the pass `sink`, alternating on each runtime; accuracy on the test texts. And
decoders that read a prompt: with scores of all tokens, as they are exported, and with `--logits
last` and `sink`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chain import TASKS, Workshop
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
from irtools.data import load_dataset
from irtools.measure.base import BenchSettings, Ratio
from irtools.measure.contest import Contest, ContestSettings
from irtools.measure.cpu import cpu_quota
from irtools.measure.shapes import bench_feeds
from irtools.measure.timing import Contender
from irtools.measure.timing import measure as time_forms
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.targets import Feeds, RunnerOptions, find_target
from irtools.words import sqnr_text

PIPELINES = {
    "float32": ("cleanup,fuse", "cleanup,fuse,sink"),
    "int8": ("cleanup,fuse,int8", "cleanup,fuse,sink,int8"),
}
TARGETS = ("ort-cpu", "openvino-cpu")
LENGTHS = (40, 128)
CLASSIFIERS = {"minilm-r8": "MiniLM-L6", "student": "its student, two layers"}
DECODERS = {"smollm2": ("float32", "int4"), "llama-1b": ("int4",)}
DECODER_PASSES = {"float32": "cleanup,fuse", "int4": "cleanup,fuse,int4"}


@dataclass(frozen=True)
class SinkRow:
    """Figures of the model with `sink` against the one without."""

    model: str
    form: str
    target: str
    length: int
    median_ms: float
    faster: Ratio
    sqnr_db: float
    accuracy_change: float


@dataclass(frozen=True)
class PromptRow:
    """Figures of a decoder with scores of the last token and `sink` against all scores."""

    model: str
    form: str
    target: str
    median_ms: float
    faster: Ratio
    sqnr_db: float
    scores_mb: tuple[float, float]


def main(argv: Sequence[str]) -> None:
    """Measure and print the tables; with --write, store them for docs/fusion.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_names(parser, (*CLASSIFIERS, *DECODERS))
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=512, help="test texts for the accuracy")
    add_write_option(parser, "sink")
    given = parser.parse_args(argv)
    given.cache = given.cache.resolve()
    rows = [
        asdict(row)
        for name in given.names
        if name in CLASSIFIERS
        for form, pipelines in PIPELINES.items()
        for target in TARGETS
        for row in measure(name, form, pipelines, target, given)
    ]
    prompts = [
        asdict(prompt(name, form, target, given))
        for name in given.names
        for form in DECODERS.get(name, ())
        for target in TARGETS
    ]
    found = {"samples": given.samples, "rows": rows, "prompts": prompts}
    document = plain_data({**about("sink"), **found})
    print("\n".join((*table(document), "", *prompt_table(document))))
    store(given.write, document)


def classifier(name: str, cache: Path) -> Model:
    """Return one of the classifiers of R8; the student is made as in `chain-r8`."""
    prepare("r8", cache)
    if name == "minilm-r8":
        return Model.load(cache / "r8" / "minilm-r8.onnx")
    workshop = Workshop(TASKS["r8"], cache, cpu_quota())
    return Model.load(workshop.exports()["distilled"])


def prompt(name: str, form: str, target: str, given: argparse.Namespace) -> PromptRow:
    """Return how a decoder reads 128 tokens."""
    length = LENGTHS[-1]
    passes = DECODER_PASSES[form]
    whole = Model.load(exported(name, given.cache))
    without = deployed(whole, passes, target, None)
    last = Model.load(exported(name, given.cache, "--logits", "last"))
    sunk = deployed(last, f"{passes},sink", target, None)
    bench = BenchSettings(sequence=(length,), rounds=given.rounds)
    feeds = bench_feeds(without, bench)
    label, arrays = next(iter(feeds.items()))
    contenders = {"without": Contender(without, target), "sink": Contender(sunk, target)}
    _, timed = time_forms(contenders, {label: arrays}, bench)
    assert timed.speedup is not None
    scores = [answered(model, target, arrays) for model in (without, sunk)]
    noise = float(np.square(scores[0][:, -1:] - scores[1], dtype=np.float64).sum())
    power = float(np.square(scores[0][:, -1:], dtype=np.float64).sum())
    decibels = 10 * np.log10(power / noise) if noise else np.inf
    sizes = (scores[0].nbytes / 1e6, scores[1].nbytes / 1e6)
    ratio = timed.speedup
    return PromptRow(name, form, target, timed.median_ms, ratio, float(decibels), sizes)


def answered(model: Model, target: str, feeds: Feeds) -> np.ndarray:
    """Return the scores, with floats in f32."""
    with find_target(target).runner(model, RunnerOptions(precision="f32")) as runner:
        return next(iter(runner.run(feeds).values()))


def measure(
    name: str,
    form: str,
    pipelines: tuple[str, str],
    target: str,
    given: argparse.Namespace,
) -> Iterator[SinkRow]:
    """Yield a row for each length."""
    source, folder = classifier(name, given.cache), given.cache / "r8"
    without, sunk = (deployed(source, text, target, folder / "r8_calib.npz") for text in pipelines)
    contenders = {"without": Contender(without, target), "sink": Contender(sunk, target)}
    data = load_dataset(str(folder / "r8_test.npz"), source)
    bench = BenchSettings(sequence=LENGTHS, rounds=given.rounds)
    settings = ContestSettings(bench, "accuracy", samples=given.samples, isolation="none")
    _, standing = Contest(contenders, data, settings).run().standings
    assert standing.fidelity is not None and standing.difference is not None
    for length, timed in zip(LENGTHS, standing.latency, strict=True):
        assert timed.speedup is not None
        yield SinkRow(
            CLASSIFIERS[name],
            form,
            target,
            length,
            timed.median_ms,
            timed.speedup,
            standing.fidelity.sqnr_db,
            standing.difference.value,
        )


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield (
        "| model | form | runtime | tokens | ms with `sink` | faster | SQNR to without | accuracy |"
    )
    yield "| --- " * 8 + "|"
    for row in document["rows"]:
        yield (
            f"| {row['model']} | {row['form']} | {row['target']} | {row['length']} "
            f"| {row['median_ms']:.2f} | {ratio_cell(row['faster'])} "
            f"| {sqnr_text(float(row['sqnr_db']))} | {100 * row['accuracy_change']:+.2f} |"
        )


def prompt_table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table of decoders."""
    yield (
        "| decoder | form | runtime | ms with `sink` | faster | SQNR of the last scores "
        "| scores, MB, without and with |"
    )
    yield "| --- " * 7 + "|"
    for row in document["prompts"]:
        before, after = row["scores_mb"]
        yield (
            f"| {row['model']} | {row['form']} | {row['target']} | {row['median_ms']:.1f} "
            f"| {ratio_cell(row['faster'])} | {sqnr_text(float(row['sqnr_db']))} "
            f"| {before:.1f}, {after:.2f} |"
        )


VIEWS = {"table": table, "prompts": prompt_table}
