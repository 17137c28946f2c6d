"""Quantizers of other tools as passes, next to those of irtools: same data, target and checks.

    python -m benchmarks run other-quantizers [--only PARTS] [--no-timing] [--write [NAME]]

Sentence embeddings of MiniLM-L6 on BBC news. Every row is a pipeline of irtools, with the same 128
texts to calibrate on; outputs are compared with float32 on others. Needs the extra `nncf`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.contest import Ours, add_contest_options, chosen_contest, timed_as
from benchmarks.contest import table as contest_table
from benchmarks.peers import FLOAT
from benchmarks.recording import about, add_write_option, store
from benchmarks.smoothing import embedding
from irtools.report.plain import plain_data

_MATMUL = "ort-static:per_channel=true:op_types_to_quantize=MatMul+Gemm:matmul_const_b_only=true"
ROWS = (
    Ours("int8", "cleanup,fuse,int8"),
    Ours("ort-static, MatMul per channel", f"cleanup,fuse,{_MATMUL}"),
    Ours("ort-static, percentile", f"cleanup,fuse,{_MATMUL}:calibrate_method=percentile"),
    Ours("ort-static, all defaults", "cleanup,fuse,ort-static"),
    Ours("ort-dynamic, per channel", "cleanup,fuse,ort-dynamic:per_channel=true"),
    Ours("nncf, transformer", "cleanup,nncf:model_type=transformer"),
    Ours("int4", "cleanup,fuse,int4"),
    Ours("nncf-weights, int8", "cleanup,fuse,nncf-weights"),
    Ours("nncf-weights, int4", "cleanup,fuse,nncf-weights:mode=int4_asym:group_size=32"),
)


def main(argv: Sequence[str]) -> None:
    """Make and compare what the pipelines make; with --write, store it for docs/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_contest_options(parser)
    add_write_option(parser, "other-quantizers")
    given = parser.parse_args(argv)
    minilm = embedding("minilm", given.cache.resolve())
    task = replace(minilm, name="other-quantizers", ours=ROWS, peers=FLOAT[:1])
    pipelines = {row.name: row.pipeline for row in ROWS}
    rows = chosen_contest(task, given).rows(timed_as(task.bench, given))
    document = plain_data({**about("other-quantizers"), "pipelines": pipelines, "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield from contest_table(document["rows"])


VIEWS = {"table": table}
