"""`irc inspect`: what a model consists of, and where its time goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.analysis.inspection import Inspection
    from irtools.measure.profile import OpProfile, Profile
    from irtools.model import Model

__all__ = ["inspect"]

_SHOWN_OPS = 15
_FOR_PROFILE = ("target", "data", "runs", "threads", "seed", "drawn_sizes")


@click.command(
    "inspect",
    cls=Verb,
    epilog="Examples: irc inspect model.onnx --json -; "
    "irc inspect model.onnx --profile --target openvino-cpu --seq 64",
)
@click.argument("source", metavar="SRC", type=SOURCE)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="For counting FLOPs and for --profile.",
)
@click.option(
    "--seq",
    "sequence",
    type=click.IntRange(min=1),
    metavar="N",
    default=128,
    show_default=True,
    help="Size of the other dynamic axes.",
)
@click.option(
    "--past",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of a decoder, one token with N in its cache. [default: a prompt of --seq tokens]",
)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    show_default=True,
    help="Hot spots to list.",
)
@click.option(
    "--profile", is_flag=True, help="Also run the model, and show the runtime's time per node."
)
@options.target_option
@click.option("--data", type=DATA, help="Feeds of --profile. [default: drawn from the signature]")
@options.data_options
@click.option(
    "--runs",
    type=click.IntRange(1, 1000),
    metavar="N",
    default=20,
    show_default=True,
    help="Runs of --profile; the median of each node counts.",
)
@options.threads_option
@options.seed_option
@options.size_option
@source_options
@options.json_option
@options.work_dir_option
@click.pass_context
def inspect(ctx: click.Context, /, source: str, json_path: str | None, **given: Any) -> None:
    """Show inputs, outputs, opset, operators, parameters, sizes, shared weights and hot spots.

    Hot spots are counted in FLOPs; with --profile they are measured as well, on the target, by
    the runtime's own profiler.
    """
    from irtools.analysis.inspection import inspect_model
    from irtools.cli.console import LineProgress, console, say_notes, write_json
    from irtools.driver.job import as_model
    from irtools.report.plain import plain_data

    _check_profile_options(ctx, given)
    model = as_model(source, load_options(given), LineProgress())
    say_notes(model)
    found = inspect_model(
        model,
        batch=given["batch"],
        sequence=given["sequence"],
        past=given["past"],
        top=given["top"],
    )
    measured = _profile(model, given) if given["profile"] else None
    if json_path is not None:
        document = {"format": "irtools-inspection", "version": 1, **plain_data(found)}
        write_json({**document, "profile": plain_data(measured)}, json_path)
    if json_path == "-":
        return
    shown = console(stderr=False)
    for line in _lines(found):
        shown.print(line)
    for table in _tables(found):
        shown.print()
        shown.print(table)
    if measured is not None:
        _show_profile(measured, shown)


def _check_profile_options(ctx: click.Context, given: dict[str, Any]) -> None:
    """Refuse options that nothing would read.

    Raises:
        click.UsageError: They are given without --profile.
    """
    if given["profile"]:
        return
    default = click.core.ParameterSource.DEFAULT
    for name in _FOR_PROFILE:
        if ctx.get_parameter_source(name) != default:
            shown = "size" if name == "drawn_sizes" else name
            raise click.UsageError(f"--{shown} is for --profile, which is not given", ctx)
    options.data_settings(given)


def _profile(model: Model, given: dict[str, Any]) -> Profile:
    from irtools.cli.console import progress, say
    from irtools.data import load_dataset, resolve_sizes
    from irtools.measure.base import BenchSettings
    from irtools.measure.drawable import drawn_for, run_with
    from irtools.measure.own_machine import refuse_foreign
    from irtools.measure.profile import profile_model
    from irtools.measure.shapes import bench_feeds
    from irtools.targets import find_target

    target = find_target(given["target"])
    refuse_foreign(target, "the profile")
    reading = options.data_settings(given, given["data"])
    batch, sequence = given["batch"], given["sequence"]

    def run(feeds: Any, shape: str, source: str) -> Profile:
        with progress() as shown:
            shown.step(f"profiling on {target.name}", 0, 1)
            return profile_model(
                model,
                target,
                feeds,
                shape=shape,
                data=source,
                runs=given["runs"],
                threads=given["threads"],
                top=given["top"],
            )

    def run_drawn(adapt: Any) -> Profile:
        past = () if given["past"] is None else (given["past"],)
        settings = BenchSettings((batch,), (sequence,), past=past or None)
        # Of a decoder the last one reads a token with a cache, the first one a prompt.
        shapes = list(bench_feeds(model, settings, seed=given["seed"], adapt=adapt).items())
        shape, feeds = shapes[-1 if past else 0]
        return run(feeds, shape, "drawn from the signature")

    with options.naming_data_option("--data", given["data"]):
        if given["data"] is not None:
            data = load_dataset(given["data"], model, reading)
            for note in data.notes:
                say(f"irc: note: {note}")
            feeds = next(iter(data.batches(batch)))
            return run(feeds, _shape_text(feeds), data.source)
        sizes = resolve_sizes(model, given["drawn_sizes"])
        with drawn_for(model, target, sizes, given["threads"]) as drawn:
            found = run_with(drawn, run_drawn)
            if drawn.note:
                say(f"irc: note: {drawn.note}")
            return found


def _shape_text(feeds: Any) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, a.shape))}" for name, a in feeds.items())


def _show_profile(found: Profile, shown: Any) -> None:
    from irtools.words import counted, printable

    shown.print()
    shown.print(
        f"measured on {found.target}: {found.run_ms:.2f} ms per run with the profiler on "
        f"({counted(found.runs, 'run')}, medians; {counted(found.threads, 'thread')}; "
        f"{printable(found.shape)}; {printable(found.data)})"
    )
    by_op = [
        (o.op, str(o.nodes), f"{o.ms:.3f}", f"{100 * o.share:.1f} %") for o in _head(found.ops)
    ]
    shown.print()
    shown.print(_table(("measured operator", "nodes", "ms", "share"), by_op))
    if found.nodes:
        rows = [
            (n.node, n.op, n.module, f"{n.ms:.3f}", f"{100 * n.share:.1f} %") for n in found.nodes
        ]
        shown.print()
        shown.print(_table(("measured node", "operator", "module", "ms", "share"), rows))


def _head(ops: Sequence[OpProfile]) -> Sequence[OpProfile]:
    """Join what takes next to no time; the JSON document has all of it."""
    from irtools.measure.profile import OpProfile

    rest = ops[_SHOWN_OPS:]
    if len(rest) < 2:
        return ops
    nodes, ms, share = (sum(getattr(o, name) for o in rest) for name in ("nodes", "ms", "share"))
    return (*ops[:_SHOWN_OPS], OpProfile(f"({len(rest)} others)", int(nodes), ms, share))


def _lines(found: Inspection) -> Iterator[str]:
    from irtools.words import counted, printable, size_text

    # Files that a runtime wrote import every domain it knows.
    used = {op.rpartition("::")[0] or "ai.onnx" for op in found.ops}
    imported = {name: version for name, version in found.opsets.items() if name in used}
    opsets = ", ".join(f"{printable(name)} {version}" for name, version in imported.items())
    yield f"{printable(found.source)}  sha256 {found.sha256[:16]}"
    yield f"IR {found.ir_version}, opset {opsets}; made by {printable(found.producer) or 'unknown'}"
    yield from _history(found)
    for label, infos in (("input", found.interface.inputs), ("output", found.interface.outputs)):
        for info in infos:
            unknown = "" if info.dtype else "a map, or of a type that is not stated"
            yield f"  {label:<6} {printable(info)}{unknown}"
    sizes = ", ".join(f"{size_text(n)} {dtype}" for dtype, n in found.bytes_by_dtype.items())
    parameters = counted(found.parameters, "parameter")
    yield f"{parameters}, {size_text(found.weight_bytes)}: {sizes or 'none'}"
    for op, count in found.listed_numbers.items():
        yield f"{counted(count, 'number')} in attributes of {printable(op)}"
    yield (
        f"{100 * found.quantized_share:.1f} % of matrix weights are 8-bit or smaller, "
        f"{counted(found.quantized_nodes, 'quantization node')}"
    )
    if found.unknown_ops:
        yield f"operators outside the standard: {', '.join(map(printable, found.unknown_ops))}"
    yield from _work(found)


def _history(found: Inspection) -> Iterator[str]:
    """Say which runs of irc made the model, as its metadata has it."""
    from irtools.driver.history import history_of
    from irtools.words import printable

    for run in history_of(found.interface.metadata):
        pipeline, target = run.get("pipeline", "?"), run.get("target", "?")
        yield printable(
            f"irtools {run.get('irtools', '?')}: {pipeline} for {target}, "
            f"from {run.get('source', '?')[:16]}",
            500,
        )


def _work(found: Inspection) -> Iterator[str]:
    from irtools.words import printable

    if found.flops:
        at = ", ".join(f"{printable(name)}={size}" for name, size in found.sizes.items())
        size, unit = _unit(found.flops)
        yield f"{found.flops / size:.3g} {unit} per run{f' at {at}' if at else ''}"
    for note in found.flops_notes:
        yield f"  {note}"


def _tables(found: Inspection) -> Iterator[Table]:
    from irtools.words import size_text

    total = sum(found.ops.values())
    yield _table(("operator", f"nodes ({total})"), [(op, str(n)) for op, n in found.ops.items()])
    if found.shared:
        rows = [
            (w.name, "x".join(map(str, w.shape)), size_text(w.bytes), str(w.uses))
            for w in found.shared
        ]
        yield _table(("shared weight", "shape", "size", "uses"), rows)
    if found.hot_spots:
        size, unit = _unit(max(s.flops for s in found.hot_spots))
        rows = [
            (s.node, s.op, f"{s.flops / size:.1f}", f"{100 * s.share:.1f} %")
            for s in found.hot_spots
        ]
        yield _table(("hot spot", "operator", unit, "share"), rows)


def _unit(flops: float) -> tuple[float, str]:
    """Return the unit in which a number of operations has at least one digit before the point."""
    return next(
        ((size, name) for size, name in ((1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"))
         if flops >= size),
        (1.0, "FLOP"),
    )  # fmt: skip


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import printable

    table = Table(pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        text = not index or heading in ("operator", "module")
        table.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
