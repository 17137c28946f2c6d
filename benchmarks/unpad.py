"""What the pass `unpad` gains: only the tokens of padded texts are computed.

    python -m benchmarks prepare r8
    python -m benchmarks run unpad [--write [NAME]]

MiniLM-L6 fine-tuned for R8, after `cleanup,fuse` and after int8, each with and without the pass
`unpad`, alternating on each runtime: batches of test texts as they come, cut at 256 tokens, and one
text alone; outputs are compared in such batches, with floats computed in f32.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deployed import deployed, ratio_cell
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, prepare, store
from benchmarks.tasks import timed_text
from irtools.data import Dataset, DataSettings, load_dataset, padding_mask
from irtools.measure.base import BenchSettings, Ratio
from irtools.measure.timing import Contender, measure
from irtools.metrics import compare_runners
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.targets import Feeds, RunnerOptions, find_target
from irtools.words import sqnr_text

PIPELINES = {
    "float32": ("cleanup,fuse", "cleanup,fuse,unpad"),
    "int8": ("cleanup,fuse,int8", "cleanup,fuse,int8,unpad"),
}
TARGETS = ("ort-cpu", "openvino-cpu")
BATCH, BATCHES, LONGEST, ALONE = 32, 4, 256, 64


@dataclass(frozen=True)
class UnpadRow:
    """Figures of the model with `unpad` against the one without."""

    form: str
    target: str
    batch: int
    padded_per_real: float
    median_ms: float
    faster: Ratio
    sqnr_db: float
    agreement: float


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/fusion.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=300, help="bound on each comparison")
    parser.add_argument("--samples", type=int, default=512, help="test texts to compare")
    add_write_option(parser, "unpad")
    given = parser.parse_args(argv)
    prepare("r8", given.cache)
    source = Model.load(given.cache / "r8" / "minilm-r8.onnx")
    rows = [
        asdict(row)
        for form, pipelines in PIPELINES.items()
        for target in TARGETS
        for row in figures(source, form, pipelines, target, given)
    ]
    document = plain_data({**about("unpad"), "samples": given.samples, "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def figures(
    source: Model, form: str, pipelines: tuple[str, str], target: str, given: argparse.Namespace
) -> Iterator[UnpadRow]:
    """Yield a row for batches, and one for a text alone."""
    folder = given.cache / "r8"
    without, packed = (
        deployed(source, text, target, folder / "r8_calib.npz") for text in pipelines
    )
    exact = RunnerOptions(precision="f32")
    options = exact if form == "float32" else RunnerOptions()
    settings = DataSettings(tokenizer=folder / "minilm-r8", max_length=LONGEST)
    data = load_dataset(str(folder / "r8_test.jsonl"), source, settings)
    start = find_target(target).runner
    with start(without, exact) as first, start(packed, exact) as second:
        close = compare_runners(first, second, in_any_order(data, given.samples), BATCH).result()
    batches = list(in_any_order(data, BATCH * BATCHES).batches(BATCH))
    alone, feeds = timed_text(data, ALONE)
    timed_on: dict[str, Sequence[Feeds]] = {f"batch={BATCH}": batches, alone: [feeds]}
    contenders = {
        "without": Contender(without, target, options),
        "unpad": Contender(packed, target, options),
    }
    bench = BenchSettings(rounds=given.rounds, block_seconds=2.0, max_seconds=given.seconds)
    timed = [result for result in measure(contenders, timed_on, bench) if result.speedup]
    shapes = ((BATCH, padded_per_real(batches)), (1, 1.0))
    assert close.agreement is not None
    for (batch, ratio), result in zip(shapes, timed, strict=True):
        assert result.speedup is not None
        yield UnpadRow(
            form,
            target,
            batch,
            ratio,
            result.median_ms,
            result.speedup,
            close.sqnr_db,
            close.agreement,
        )


def in_any_order(data: Dataset, samples: int) -> Dataset:
    """Return texts as a server meets them: in no order of their lengths."""
    return data.select(np.random.default_rng(0).permutation(len(data))[:samples])


def padded_per_real(batches: Sequence[Feeds]) -> float:
    """Return how many positions there are for each token."""
    masks = [mask for feeds in batches if (mask := padding_mask(feeds)) is not None]
    return sum(mask.size for mask in masks) / sum(int(mask.sum()) for mask in masks)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield (
        "| form | runtime | texts | positions per token | ms with `unpad` | faster "
        "| SQNR to without | agreement |"
    )
    yield "| --- " * 8 + "|"
    for row in document["rows"]:
        yield (
            f"| {row['form']} | {row['target']} | {row['batch']} | {row['padded_per_real']:.2f} "
            f"| {row['median_ms']:.2f} "
            f"| {ratio_cell(row['faster'])} "
            f"| {sqnr_text(float(row['sqnr_db']))} | {row['agreement']:.2%} |"
        )


VIEWS = {"table": table}
