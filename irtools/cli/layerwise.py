"""`irc distill --layerwise`: block by block, without labels."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from irtools.cli import options as options
from irtools.cli import training as shared

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.students import LayerwiseRequest, LayerwiseResult

__all__ = ["distill_layerwise"]

_OTHERS = (
    "accelerate_config",
    "alpha",
    "batch",
    "cache",
    "hard_label_output",
    "loss",
    "no_bench",
    "no_cache",
    "no_chain",
    "passes",
    "relation_heads",
    "save_steps",
    "sequence",
    "targets",
    "task",
    "temperature",
)
"""Options of the distillation of outputs, which nothing here reads."""


def distill_layerwise(
    context: click.Context,
    output: Path,
    layer_map: tuple[int, ...] | None,
    json_path: str | None,
    given: dict[str, Any],
) -> None:
    """Train the blocks of a student and print what each of them kept.

    Args:
        context: Knows which options were given.
        output: Folder of the result.
        layer_map: As given.
        json_path: Where the figures go.
        given: All other options.
    """
    _refuse_others(context)
    asked = _request(given, shared.work_folder(output, given), layer_map)
    with shared.plain_checkpoints(asked) as (request, named):
        found = _train(request)
        result = dataclasses.replace(found, notes=named(found.notes))
        document = _document(asked, result)
        _publish(result, output, document)
    if not given["keep_checkpoints"]:
        shutil.rmtree(request.work, ignore_errors=True)
    _show(result, output, document, json_path)


def _refuse_others(context: click.Context) -> None:
    names = {p.name: p.opts[0] for p in context.command.params}
    for name in _OTHERS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--layerwise reads no {names[name]}: leave one of them out")


def _request(
    given: dict[str, Any], work: Path, layer_map: tuple[int, ...] | None
) -> LayerwiseRequest:
    from irtools.students import LayerwiseRequest

    return LayerwiseRequest(
        teacher=given["teacher"],
        student=given["student"],
        train=given["train"],
        evaluate=given["evaluate"],
        work=work,
        layer_map=layer_map,
        data=options.data_settings(given, given["train"], given["evaluate"]),
        metric=given["metric"],
        training=shared.training_settings(given),
        resume=given["resume"],
    )


def _train(request: LayerwiseRequest) -> LayerwiseResult:
    from irtools.cli.console import progress
    from irtools.students import find_trainer

    with progress() as shown:
        return find_trainer().layerwise(request, shown)


def _document(request: LayerwiseRequest, result: LayerwiseResult) -> dict[str, Any]:
    from irtools.measure.machine import machine, versions
    from irtools.report.plain import plain_data

    return {
        "format": "irtools-layerwise",
        "version": 1,
        "teacher": request.teacher,
        "student": request.student,
        "train": request.train,
        "evaluate": request.evaluate,
        "training": plain_data(request.training),
        "machine": plain_data(machine()),
        "versions": dict(versions()),
        "networks": [plain_data(row) for row in result.networks],
        "blocks": [plain_data(block) for block in result.blocks],
        "notes": list(result.notes),
    }


def _publish(result: LayerwiseResult, output: Path, document: dict[str, Any]) -> None:
    from irtools.files import json_text

    report = {"report.json": json_text(document)}
    shared.publish_checkpoint(result.folder, result.tokenizer, output, report)


def _show(
    result: LayerwiseResult, output: Path, document: dict[str, Any], json_path: str | None
) -> None:
    from irtools.cli.console import console, say, write_json

    if json_path is not None:
        write_json(document, json_path)
    out = console()
    out.print(_blocks_table(result))
    out.print(_networks_table(result))
    for note in result.notes:
        say(f"  note: {note}")
    say(f"irc: wrote {output}/")


def _blocks_table(result: LayerwiseResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(pad_edge=False, show_edge=False)
    for heading in ("block", "of the teacher"):
        table.add_column(heading)
    for heading in ("error before", "after", "steps", "training"):
        table.add_column(heading, justify="right")
    for block in result.blocks:
        first, last = block.taught_by
        cells = (
            block.name,
            str(last) if first == last else f"{first} to {last}",
            f"{block.before:.2%}",
            f"{block.after:.2%}",
            str(block.steps or ""),
            f"{block.seconds:.0f} s" if block.steps else "",
        )
        table.add_row(*map(Text, cells))
    return table


def _networks_table(result: LayerwiseResult) -> Table:
    from rich.table import Table
    from rich.text import Text

    metric = result.networks[0].evaluation
    table = Table(pad_edge=False, show_edge=False)
    table.add_column("network")
    for heading in ("parameters", "SQNR", *(() if metric is None else (metric.name,))):
        table.add_column(heading, justify="right")
    for row in result.networks:
        cells = [
            row.name,
            f"{row.parameters / 1e6:.2f} M",
            "" if row.kept_db is None else f"{row.kept_db:.1f} dB",
        ]
        if row.evaluation is not None:
            cells.append(shared.evaluation_text(row.evaluation))
        table.add_row(*map(Text, cells))
    return table
