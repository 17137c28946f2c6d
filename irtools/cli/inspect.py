"""`irc inspect`: what a model consists of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from irtools.cli import _options as options

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.report.inspection import Inspection

__all__ = ["inspect"]


@click.command("inspect")
@click.argument("source", metavar="SRC")
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="For counting FLOPs."
)
@click.option(
    "--seq",
    "sequence",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    help="Size of the other dynamic axes.",
)
@click.option("--top", type=click.IntRange(min=0), default=10, show_default=True, help="Hot spots.")
@options.json_option
def inspect(source: str, batch: int, sequence: int, top: int, json_path: str | None) -> None:
    """Show inputs, outputs, opset, operators, parameters, sizes, shared weights and hot spots."""
    from irtools.cli._console import console, write_json
    from irtools.frontend import load_source
    from irtools.report.inspection import inspect_model
    from irtools.report.plain import plain_data

    found = inspect_model(load_source(source), batch=batch, sequence=sequence, top=top)
    if json_path is not None:
        write_json({"format": "irtools-inspection", "version": 1, **plain_data(found)}, json_path)
    if json_path == "-":
        return
    shown = console(stderr=False)
    for line in _lines(found):
        shown.print(line)
    for table in _tables(found):
        shown.print()
        shown.print(table)


def _lines(found: Inspection) -> Iterator[str]:
    from irtools.report import printable, size_text

    opsets = ", ".join(f"{printable(name)} {version}" for name, version in found.opsets.items())
    yield f"{printable(found.source)}  sha256 {found.sha256[:16]}"
    yield f"IR {found.ir_version}, opset {opsets}; made by {printable(found.producer) or 'unknown'}"
    for label, infos in (("input", found.interface.inputs), ("output", found.interface.outputs)):
        for info in infos:
            yield f"  {label:<6} {printable(info)}"
    sizes = ", ".join(f"{size_text(n)} {dtype}" for dtype, n in found.bytes_by_dtype.items())
    yield f"{found.parameters:,} parameters, {size_text(found.weight_bytes)}: {sizes or 'none'}"
    yield (
        f"{100 * found.quantized_share:.1f} % of matrix weights are 8-bit or smaller, "
        f"{found.quantized_nodes} quantization nodes"
    )
    if found.unknown_ops:
        yield f"operators outside the standard: {', '.join(map(printable, found.unknown_ops))}"
    if found.flops:
        at = ", ".join(f"{printable(name)}={size}" for name, size in found.sizes.items())
        large = found.flops >= 1e8
        work = f"{found.flops / 1e9:.3f} GFLOP" if large else f"{found.flops / 1e6:.3g} MFLOP"
        yield f"{work} per run{f' at {at}' if at else ''}"
    for note in found.flops_notes:
        yield f"  {note}"


def _tables(found: Inspection) -> Iterator[Table]:
    from irtools.report import size_text

    total = sum(found.ops.values())
    yield _table(("operator", f"nodes ({total})"), [(op, str(n)) for op, n in found.ops.items()])
    if found.shared:
        rows = [
            (w.name, "x".join(map(str, w.shape)), size_text(w.bytes), str(w.uses))
            for w in found.shared
        ]
        yield _table(("shared weight", "shape", "size", "uses"), rows)
    if found.hot_spots:
        rows = [
            (s.node, s.op, f"{s.flops / 1e6:.1f}", f"{100 * s.share:.1f} %")
            for s in found.hot_spots
        ]
        yield _table(("hot spot", "operator", "MFLOP", "share"), rows)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.report import printable

    table = Table(pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
