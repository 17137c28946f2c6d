"""Attention blocks fused, and the time it takes, compared with ONNX Runtime's own optimizers.

    python -m benchmarks run fusion [--cache DIR] [--runs N] [--write [NAME]] [MODEL...]

Every MODEL is one of `benchmarks prepare`; all its exports are tried. Seconds are those of
`cleanup` and `fuse` together, the median of several runs on clones of a loaded model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from benchmarks.peers import ort_transformer_optimized
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, prepare, store
from irtools import Model, PassContext, Pipeline
from irtools.passmanager import PassManager
from irtools.targets import find_target

ATTENTION = ("Attention", "MultiHeadAttention")
MODELS = ("bert-base", "distilbert", "vit")


@dataclass(frozen=True)
class Fused:
    """What was fused of one export.

    Attributes:
        export: Name of the file.
        softmaxes: Attention blocks as they were exported.
        irtools: Attention operators after `cleanup,fuse`.
        session: Attention operators that ONNX Runtime's session makes.
        optimizer: Those of `onnxruntime.transformers.optimizer`, or why it fails.
        seconds: Of every run of `cleanup,fuse`.
    """

    export: str
    softmaxes: int
    irtools: int
    session: int
    optimizer: int | str
    seconds: Sequence[float]


def main(argv: Sequence[str]) -> None:
    """Print one row per export."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--runs", type=int, default=5)
    add_write_option(parser, "fusion")
    given = parser.parse_args(argv)
    for name in given.names:
        prepare(name, given.cache)
    files = [path for name in given.names for path in sorted((given.cache / name).glob("*.onnx"))]
    document = {
        **about("fusion"),
        "runs": given.runs,
        "rows": [asdict(fused(path, given.runs)) for path in files],
    }
    print("\n".join(table(document)))
    store(given.write, document)


def fused(path: Path, runs: int) -> Fused:
    """Return what is fused of an export."""
    model = Model.load(path)
    blocks = sum(node.op_type == "Softmax" for node in model.ir.graph)
    seconds, found = ours(model, runs)
    with find_target("ort-cpu").runner(path) as runner:
        session = runner.kernels().fused_attention
    return Fused(path.stem, blocks, found, session, optimizer(path), seconds)


def ours(model: Model, runs: int) -> tuple[list[float], int]:
    """Return the seconds of every run, and the attention blocks fused."""
    ctx = PassContext.for_model(model)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        steps = PassManager(Pipeline("cleanup,fuse")).run(model, ctx)
        seconds.append(time.perf_counter() - started)
    return seconds, count(steps[-1].model)


def count(model: Model) -> int:
    """Return the attention operators of a model."""
    return sum(node.op_type in ATTENTION for node in model.ir.graph)


def optimizer(path: Path) -> int | str:
    """Return the blocks that onnxruntime.transformers.optimizer fuses, or why it does not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = ort_transformer_optimized(path, [], Path(folder))
        except Exception as error:
            return f"fails: {type(error).__name__}"
        nodes = onnx.load(made, load_external_data=False).graph.node
        return sum(node.op_type in ATTENTION for node in nodes)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| export | softmaxes | irtools | ORT session | ORT transformers optimizer | seconds |"
    yield "| --- " * 6 + "|"
    for row in document["rows"]:
        seconds = row["seconds"]
        counts = (row[key] for key in ("export", "softmaxes", "irtools", "session", "optimizer"))
        spread = f"{median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
        yield f"| {' | '.join(map(str, counts))} | {spread} |"


VIEWS = {"table": table}
