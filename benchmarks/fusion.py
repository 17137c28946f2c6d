"""Attention blocks fused, and the time it takes, beside ONNX Runtime's own optimizers.

    python -m benchmarks run fusion [--cache DIR] [--runs N] [NAME...]

Every NAME is a model of `benchmarks prepare`; all its exports are tried. Seconds are those of
`cleanup` and `fuse` together, the median of several runs on clones of a loaded model.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import onnx

from benchmarks.peers import ort_transformer_optimized
from benchmarks.recording import DEFAULT_CACHE
from irtools import Model, PassContext, Pipeline
from irtools.passmanager import PassManager
from irtools.targets import find_target

ATTENTION = ("Attention", "MultiHeadAttention")


def main(argv: Sequence[str]) -> None:
    """Print one row per export."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["bert-base", "distilbert", "vit"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args(argv)
    print("| export | softmaxes | irtools | ORT session | ORT transformers optimizer | seconds |")
    print("| --- " * 6 + "|")
    for name in arguments.names:
        for path in sorted((arguments.cache / name).glob("*.onnx")):
            print(row(path, arguments.runs), flush=True)


def row(path: Path, runs: int) -> str:
    """Return one row of the table."""
    model = Model.load(path)
    blocks = sum(node.op_type == "Softmax" for node in model.ir.graph)
    seconds, fused = ours(model, runs)
    with find_target("ort-cpu").runner(path) as runner:
        session = runner.kernels().fused_attention
    spread = f"{median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
    return f"| {path.stem} | {blocks} | {fused} | {session} | {optimizer(path)} | {spread} |"


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
