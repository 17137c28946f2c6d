"""Compose a pipeline of pass objects, run it, and read what came out.

python examples/compose_pipeline.py model.onnx small.onnx
"""

from __future__ import annotations

import sys

from irtools import Pipeline, optimize
from irtools.measure.base import BenchSettings
from irtools.passes.cleanup import Cleanup
from irtools.passes.quantization.int8 import Int8


def main(source: str, out: str) -> None:
    # Objects, texts and other pipelines mix; the type checker sees the objects' options.
    pipeline = Pipeline(Cleanup(), "fuse", Int8(mode="dynamic"))
    print(f"pipeline: {pipeline}")

    result = optimize(
        source,
        pipeline,
        target="ort-cpu",
        bench=BenchSettings(sequence=(32,), rounds=3, block_seconds=0.1),
    )
    print(result.report)
    for row in result.rows:
        speed = row.latency[0].speedup if row.latency else None
        faster = f"{speed.value:.2f}x" if speed else "-"
        print(f"{row.text}: {row.size.file_bytes} bytes, {faster}, {dict(row.counters)}")
    result.model.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
