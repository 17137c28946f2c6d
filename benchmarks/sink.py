"""What the pass `sink` gains: only the position that a classifier reads is computed.

    python -m benchmarks prepare r8
    python -m benchmarks run sink [--write [NAME]]

MiniLM-L6 fine-tuned for R8, after `cleanup,fuse` and after int8, each with and without the pass
`sink`, alternating on each runtime; accuracy on the test texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.deployed import deployed, ratio_cell
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, prepare, store
from irtools.data import load_dataset
from irtools.measure.base import BenchSettings, Ratio
from irtools.measure.contest import Contest, ContestSettings
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.words import sqnr_text

PIPELINES = {
    "float32": ("cleanup,fuse", "cleanup,fuse,sink"),
    "int8": ("cleanup,fuse,int8", "cleanup,fuse,sink,int8"),
}
TARGETS = ("ort-cpu", "openvino-cpu")
LENGTHS = (40, 128)


@dataclass(frozen=True)
class SinkRow:
    """Figures of the model with `sink` against the one without."""

    form: str
    target: str
    length: int
    median_ms: float
    faster: Ratio
    sqnr_db: float
    accuracy_change: float


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/fusion.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=512, help="test texts for the accuracy")
    add_write_option(parser, "sink")
    given = parser.parse_args(argv)
    prepare("r8", given.cache)
    folder = given.cache / "r8"
    source = Model.load(folder / "minilm-r8.onnx")
    rows = [
        asdict(row)
        for form, pipelines in PIPELINES.items()
        for target in TARGETS
        for row in measure(source, folder, form, pipelines, target, given)
    ]
    document = plain_data({**about("sink"), "samples": given.samples, "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def measure(
    source: Model,
    folder: Path,
    form: str,
    pipelines: tuple[str, str],
    target: str,
    given: argparse.Namespace,
) -> Iterator[SinkRow]:
    """Yield a row for each length."""
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
    yield "| form | runtime | tokens | ms with `sink` | faster | SQNR to without | accuracy |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in document["rows"]:
        yield (
            f"| {row['form']} | {row['target']} | {row['length']} | {row['median_ms']:.2f} "
            f"| {ratio_cell(row['faster'])} "
            f"| {sqnr_text(float(row['sqnr_db']))} | {100 * row['accuracy_change']:+.2f} |"
        )


VIEWS = {"table": table}
