"""8 bits without data: one range for all tokens, one for each (ZeroQuant), and static for scale.

    python -m benchmarks run token-wise [--only PARTS] [--no-timing] [--samples N] [--write [NAME]]

Sentence embeddings of MiniLM-L6 on BBC news, as in `smoothing`; the static row alone calibrates.
Then the perplexity of SmolLM2-135M on news texts, whose weights were moved off their grid as in
`mixed-bits`; of the decoder no times are taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contest import Ours, add_contest_options, chosen_contest, timed_as
from benchmarks.contest import table as contest_table
from benchmarks.mixed_bits import perplexities
from benchmarks.peers import FLOAT
from benchmarks.recording import about, add_write_option, store
from benchmarks.smoothing import embedding
from irtools.report.plain import plain_data

__all__ = ["PIPELINES", "VIEWS", "main"]

PIPELINES = (
    "int8:mode=dynamic",
    "int8:mode=token-wise",
    "int8:mode=token-wise:block-size=128",
    "int8:mode=token-wise:block-size=32",
    "int8:mode=static",
)


def main(argv: Sequence[str]) -> None:
    """Make and compare what the pipelines make; with --write, store it for docs/."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_contest_options(parser)
    parser.add_argument("--samples", type=int, default=24, help="texts for the perplexity")
    add_write_option(parser, "token-wise")
    given = parser.parse_args(argv)
    cache: Path = given.cache.resolve()
    ours = tuple(Ours(text, f"cleanup,fuse,{text}") for text in PIPELINES)
    task = replace(embedding("minilm", cache), name="token-wise", ours=ours, peers=FLOAT[:1])
    rows = chosen_contest(task, given).rows(timed_as(task.bench, given))
    document = plain_data(
        {
            **about("token-wise"),
            "pipelines": {row.name: row.pipeline for row in ours},
            "rows": rows,
            "decoder": list(perplexities(cache, PIPELINES, given.samples)),
        }
    )
    print("\n".join([*table(document), "", *decoder(document)]))
    store(given.write, document)


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table of the encoder."""
    yield from contest_table(document["rows"])


def decoder(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table of the decoder."""
    yield "| pipeline | MB of weights | perplexity |"
    yield "| --- | --- | --- |"
    for row in document["decoder"]:
        yield f"| {row['name']} | {row['bytes'] / 1e6:.1f} | {row['perplexity']:.2f} |"


VIEWS = {"table": table, "decoder": decoder}
