"""Write the table of docs/fusion.md: what `cleanup,fuse` makes of each family and exporter.

    python -m benchmarks run fusion-table [--only FAMILY] [--cache DIR]

Exports are slow (5 to 60 seconds each); with a cache they are made once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from benchmarks.families import EXPORTERS, FAMILIES, KINDS, counted, export, row
from benchmarks.recording import DOCS
from irtools.model import Model
from irtools.passmanager import PassContext, PassManager, Pipeline

PAGE = DOCS / "fusion.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(argv: Sequence[str]) -> None:
    """Replace the lines of the table that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", help="one family")
    parser.add_argument("--cache", type=Path, help="where exports are kept")
    arguments = parser.parse_args(argv)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    lines = dict(keyed(old.splitlines()))
    for name in FAMILIES:
        for exporter in EXPORTERS:
            if arguments.only in (None, name):
                lines[name, exporter] = measured(name, exporter, arguments.cache)
                print(lines[name, exporter], flush=True)
    ordered = [lines[key] for key in ((n, e) for n in FAMILIES for e in EXPORTERS) if key in lines]
    head = ["| family | exporter | " + " | ".join(KINDS) + " |", "| --- " * (2 + len(KINDS)) + "|"]
    table = "\n".join([BEGIN, *head, *ordered, END])
    PAGE.write_text(f"{before}{table}{after}", encoding="utf-8")


def keyed(lines: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield the lines of a table by family and exporter."""
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 2 + len(KINDS) and cells[0] in FAMILIES:
            yield (cells[0], cells[1]), line


def measured(name: str, exporter: str, cache: Path | None) -> str:
    """Return one line."""
    model = cached(name, exporter, cache)
    return row(name, exporter, None if model is None else counted(fused(model)))


def cached(name: str, exporter: str, cache: Path | None) -> ir.Model | None:
    """Return an export, None where the exporter refuses."""
    stem = f"{name}-{exporter}".replace(" ", "_").replace(",", "")
    path = None if cache is None else cache / f"{stem}.onnx"
    if path is not None and path.exists():
        return ir.load(path)
    try:
        model = export(name, EXPORTERS[exporter])
    except Exception as error:
        print(f"{name}, {exporter}: {type(error).__name__}: {str(error).splitlines()[0][:200]}")
        return None
    if path is not None:
        ir.save(model, path)
    return model


def fused(model: ir.Model) -> ir.Model:
    """Return the model after `cleanup,fuse`."""
    wrapped = Model(model)
    ctx = PassContext.for_model(wrapped)
    return PassManager(Pipeline("cleanup,fuse")).run(wrapped, ctx)[-1].model.ir
