"""What rotating the residual stream gains before weights and activations are rounded.

    python -m benchmarks run rotation [--models NAME..] [--only PASSES..] [--write [NAME]]

DINOv2-small on images and SmolLM2-135M on texts, quantized as they are, rotated, smoothed and both;
signal-to-noise ratio of the outputs against float32 and, of texts, perplexity. No times are taken
but those of the pass. `--only` runs single rows of the table; stored ones that are not run stay.

SmolLM2 comes from a file of 4 bits, which `int4` keeps as it is: only 8 bits say anything of it. A
copy whose weights have left their grid, as in `mixed-bits`, is rotated as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import irtools
from benchmarks.mixed_bits import off_its_grid
from benchmarks.recording import (
    DEFAULT_CACHE,
    about,
    add_write_option,
    prepare,
    store,
    with_stored,
)
from irtools.data import DataSettings
from irtools.model import Model
from irtools.report.plain import plain_data
from irtools.sources import load_source

__all__ = ["CASES", "VIEWS", "Case", "main"]

_INT8 = ("int8:mode=static", "")
_NEAREST = ("int8:mode=static:smooth=false:method=rtn", "")
_INT4 = ("int4", ":rounding=int4")


@dataclass(frozen=True)
class Case:
    """A model, and what is done to it.

    Attributes:
        artefact: What `benchmarks prepare` makes it.
        data: The same of its data.
        folders: To calibrate on, and to compare on, in the cache.
        metric: Of the task; None: fidelity alone.
        samples: To calibrate on, and as many to compare on.
        forms: What comes last.
        moved: Its weights leave their grid first.
    """

    artefact: str
    data: str
    folders: tuple[str, str]
    metric: str | None
    samples: int
    forms: tuple[tuple[str, str], ...]
    moved: bool = False


_SMOLLM2 = Case(
    "smollm2",
    "bbc",
    ("bbc/bbc_calib.jsonl", "bbc/bbc_test.jsonl"),
    "perplexity",
    16,
    (_INT8, _NEAREST),
)
CASES: Mapping[str, Case] = {
    "DINOv2-small": Case(
        "dinov2-small",
        "fashion-sample",
        ("fashion-mnist/sample/calibration", "fashion-mnist/sample/test"),
        None,
        32,
        (_INT8, _INT4),
    ),
    "SmolLM2-135M": _SMOLLM2,
    "SmolLM2-135M-moved": replace(_SMOLLM2, forms=(_INT8,), moved=True),
}


@dataclass(frozen=True)
class RotationRow:
    """Figures of one pipeline.

    Attributes:
        before: Passes between `fuse` and the form.
        predicted_db: What the pass predicted for the stream; None where nothing was rotated.
        sqnr_db: Of the outputs, against float32.
        metric: Perplexity of texts.
        float_metric: The same of the float32 model.
        float_db: Of the outputs right after the passes before the form.
        seconds: That the pass `rotate` took.
    """

    model: str
    form: str
    before: str
    predicted_db: float | None
    sqnr_db: float
    metric: float | None
    float_metric: float | None
    float_db: float | None
    seconds: float | None


def main(argv: Sequence[str]) -> None:
    """Measure and print the table; with --write, store it for docs/rotation.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--length", type=int, default=96, help="most tokens of a text")
    parser.add_argument("--only", nargs="+", metavar="PASSES", help="such as rotate,int4")
    add_write_option(parser, "rotation")
    given = parser.parse_args(argv)
    rows = []
    for name, case in ((name, CASES[name]) for name in given.models):
        for artefact in (case.artefact, case.data):
            prepare(artefact, given.cache)
        checkpoint = load_source(str(given.cache / case.artefact / "checkpoint"))
        source = irtools.optimize(checkpoint, "cleanup,fuse", bench=None, check=False).model
        source = off_its_grid(source) if case.moved else source
        for form, rounding in case.forms:
            for before in ("", "rotate") if case.moved else _pipelines(form, rounding):
                if given.only and _passes(before, form) not in given.only:
                    continue
                rows.append(asdict(measure(name, case, source, form, before, given)))
                print(rows[-1], flush=True)
    if given.write is not None:
        rows = with_stored(given.write, rows, "model", "before", "form")
        rows.sort(key=lambda row: list(CASES).index(row["model"]))
    document = plain_data({**about("rotation"), "rows": rows})
    print("\n".join(table(document)))
    store(given.write, document)


def _passes(before: str, form: str) -> str:
    return ",".join(part for part in (before, form) if part)


def _pipelines(form: str, rounding: str) -> Iterator[str]:
    if form == _NEAREST[0]:
        yield from ("", "rotate")
        return
    smooth = f"smooth{rounding}"
    yield from ("", f"rotate{rounding}", smooth, f"rotate{rounding},{smooth}")
    if form.startswith("int8"):
        yield from (f"rotate{rounding}:heads=false", f"rotate{rounding}:tries=1")
    else:
        yield f"rotate{rounding}:min-gain=none"


def measure(
    name: str, case: Case, source: Model, form: str, before: str, given: argparse.Namespace
) -> RotationRow:
    """Run one pipeline."""
    calibration, evaluation = (str(given.cache / folder) for folder in case.folders)
    done = irtools.optimize(
        source,
        _passes(before, form),
        target="ort-cpu:isa=vnni",
        calibration=calibration,
        evaluation=evaluation,
        data=DataSettings(samples=case.samples, max_length=given.length),
        metric=case.metric,
        bench=None,
    )
    first, last = done.rows[0], done.rows[-1]
    assert last.fidelity is not None
    plan = next((p for text, p in done.plans.items() if text.startswith("rotate")), None)
    streams = [] if plan is None else [d.gain for d in plan.decisions if "stream" in d.data]
    rotated = next((row for row in done.rows if row.text.startswith("rotate")), None)
    known = None if rotated is None or rotated.fidelity is None else rotated.fidelity.sqnr_db
    return RotationRow(
        name,
        form,
        before,
        streams[0] if streams else None,
        last.fidelity.sqnr_db,
        None if last.metric is None else last.metric.value,
        None if first.metric is None else first.metric.value,
        known,
        None if rotated is None else rotated.seconds["pass"],
    )


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table."""
    yield "| model | passes | predicted gain | SQNR of outputs | perplexity (float32) |"
    yield "| --- | --- | --- | --- | --- |"
    for row in document["rows"]:
        gain = "" if row["predicted_db"] is None else f"{row['predicted_db']:+.1f} dB"
        metric = ""
        if row["metric"] is not None:
            metric = f"{row['metric']:.2f} ({row['float_metric']:.2f})"
        yield (
            f"| {row['model']} | `{_passes(row['before'], row['form'])}` | {gain} "
            f"| {row['sqnr_db']:.2f} dB | {metric} |"
        )


VIEWS = {"table": table}
