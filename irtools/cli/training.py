"""Options and output that `irc distill` and `irc finetune` share."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli.console import say
from irtools.cli.launch import launched_precision
from irtools.cli.types import FILE, FOLDER
from irtools.driver.destination import check_writable
from irtools.errors import FileError, UsageError
from irtools.sources import TOKENIZER_FILES

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.metrics import Evaluation
    from irtools.students import (
        DistillRequest,
        LayerwiseRequest,
        TrainedNetwork,
        TrainingSettings,
    )

__all__ = [
    "evaluation_text",
    "publish_checkpoint",
    "resumable",
    "result_folders",
    "trained_table",
    "training_options",
    "training_settings",
    "work_folder",
]

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R", bound="DistillRequest | LayerwiseRequest")


def training_options(learning_rate: float | None) -> Callable[[F], F]:
    """Everything about the budget of a training, its checkpoints and its processes."""
    given = (
        click.option(
            "--epochs",
            type=float,
            default=3.0,
            show_default=True,
            help="Passes over the training data.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=32,
            show_default=True,
            help="Samples per step and process.",
        ),
        click.option(
            "--learning-rate",
            type=float,
            default=learning_rate,
            show_default=learning_rate or "5e-05, 5e-04 for adapters",
            help="Largest step size; rises over the warm-up, then falls to 0.",
        ),
        click.option(
            "--warmup",
            type=float,
            default=0.1,
            show_default=True,
            help="Share of the steps that the warm-up takes.",
        ),
        click.option(
            "--weight-decay",
            type=float,
            default=0.0,
            show_default=True,
            help="AdamW's, of matrices.",
        ),
        click.option(
            "--accumulate",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Batches per step.",
        ),
        click.option(
            "--precision",
            type=click.Choice(["fp32", "bf16", "fp16"]),
            help="Arithmetic of the training; weights stay fp32. bf16 is fp32 on a CPU that has no "
            "kernels for it. [default: fp32, or as the config of accelerate says]",
        ),
        click.option(
            "--quantize",
            type=click.Choice(["int8", "int4", "ternary"]),
            help="Train through this rounding of the weights of Linear layers, and round them in "
            "the end, for the pass int8 or int4.",
        ),
        click.option(
            "--checkpoints",
            type=FOLDER,
            help="Where a training that is stopped leaves its state. [default: OUT.checkpoints]",
        ),
        click.option(
            "--save-steps",
            type=click.IntRange(min=1),
            metavar="N",
            help="Steps between checkpoints. [default: one per epoch]",
        ),
        click.option("--resume", is_flag=True, help="Continue from the last checkpoint."),
        click.option(
            "--keep-checkpoints", is_flag=True, help="Keep them when the training is done."
        ),
        click.option(
            "--accelerate-config",
            type=FILE,
            help="Run in the processes that this file of `accelerate config` describes: several "
            "GPUs, FSDP, DeepSpeed ZeRO.",
        ),
        click.option(
            "--report-json",
            "--json",
            "json_path",
            type=FILE,
            help="Write the figures as JSON; - is stdout.",
        ),
        click.option("--force", "-f", is_flag=True, help="Replace what exists."),
    )

    def add(function: F) -> F:
        for option in reversed(given):
            function = option(function)
        return function

    return add


def training_settings(given: Mapping[str, Any]) -> TrainingSettings:
    """Turn the options of `training_options` into settings.

    Raises:
        OptionError: A value that makes no sense.
    """
    from irtools.students import TrainingSettings

    return TrainingSettings(
        epochs=given["epochs"],
        batch=given["batch_size"],
        learning_rate=given["learning_rate"],
        warmup=given["warmup"],
        weight_decay=given["weight_decay"],
        accumulation=given["accumulate"],
        precision=given["precision"] or launched_precision(),
        save_steps=given["save_steps"],
        seed=given["seed"],
        threads=given["threads"],
        quantize=given["quantize"],
    )


def result_folders(
    outputs: Sequence[str], inputs: Sequence[str], given: Mapping[str, Any]
) -> list[Path]:
    """Decide on the folders of all results, and refuse early what could not be written.

    Raises:
        UsageError: One is an input, a file, or has something in it and `force` is not given; two
            are the same; or one is in the folder of the checkpoints, which is removed at the end.
        FileError: The folder above one is missing or cannot be written.
    """
    places = [_result_folder(out, inputs, force=given["force"]) for out in outputs]
    found = [place.resolve() for place in places]
    if len(set(found)) < len(found):
        raise UsageError(f"{outputs[0]} is named for two outputs: give each a folder of its own")
    work = _checkpoints(places[0], given)
    for out, place in zip(outputs, found, strict=True):
        if work.resolve() in (place, *place.parents) or place in work.resolve().parents:
            raise UsageError(
                f"output {out} and the checkpoints in {work} are one inside the other: give each a "
                "folder of its own"
            )
    return places


def _result_folder(out: str, inputs: Sequence[str], *, force: bool) -> Path:
    path = Path(out.rstrip("/") or "/")
    for name in inputs:
        if path.exists() and Path(name).exists() and path.samefile(name):
            raise UsageError(f"output {out} is an input: give another folder with -o")
    if path.exists() and not path.is_dir():
        raise UsageError(f"output {out} is a file, expected a folder")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise UsageError(f"{out} exists: give another folder with -o, or --force")
    check_writable(path.absolute())
    return path


def work_folder(out: Path, given: Mapping[str, Any]) -> Path:
    """Return where checkpoints go; with --force and without --resume, what is there is removed."""
    work = _checkpoints(out, given)
    # Only a folder that a training of ours made is ever removed.
    if given["force"] and not given["resume"] and (work / "job.json").is_file() and _is_first():
        shutil.rmtree(work)
    return work


def _checkpoints(out: Path, given: Mapping[str, Any]) -> Path:
    return Path(given["checkpoints"] or f"{out}.checkpoints")


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def resumable(work: Path) -> Iterator[None]:
    """Print how to continue, whatever ends the block before its end."""
    finished = False
    try:
        yield
        finished = True
    finally:
        if not finished and (work / "job.json").is_file() and _is_first():
            say(f"irc: checkpoints are in {work}; the same command with --resume goes on from them")


@contextmanager
def plain_checkpoints(asked: R) -> Iterator[tuple[R, Callable[[Sequence[str]], tuple[str, ...]]]]:
    """Read teacher and student of a request as networks, whatever form their weights have.

    Yields:
        The request with the folders of the networks, and what puts the names that were given into
        notes about it, after those on reading.
    """
    from irtools.checkpoints import plain_checkpoint

    with (
        resumable(asked.work),
        plain_checkpoint(Path(asked.teacher)) as teacher,
        plain_checkpoint(Path(asked.student)) as student,
    ):

        def named(notes: Sequence[str]) -> tuple[str, ...]:
            return (*teacher.notes, *student.notes, *map(student.named, map(teacher.named, notes)))

        read, made = str(teacher.folder), str(student.folder)
        yield dataclasses.replace(asked, teacher=read, student=made), named


def publish_checkpoint(
    network: Path, tokenizer: Path | None, out: Path, extra: Mapping[str, str]
) -> tuple[Path, ...]:
    """Write a checkpoint folder: a new one appears whole or not at all, others file by file.

    Args:
        network: Folder with config and weights.
        tokenizer: Folder whose tokenizer goes next to them.
        extra: Further files by name.

    Raises:
        FileError: It cannot be written.
    """
    from irtools.files import publish_folder, staging_folder

    with staging_folder(out if out.is_dir() else out.absolute().parent) as staging:
        folder = staging / "out"
        try:
            folder.mkdir()
            # Contents only: the library writes weights that no one else may read.
            for path in sorted(network.iterdir()):
                shutil.copyfile(path, folder / path.name)
            for name in TOKENIZER_FILES:
                if tokenizer is not None and (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, folder / name)
            for name, text in extra.items():
                (folder / name).write_text(text, encoding="utf-8")
            names = sorted(path.name for path in folder.iterdir())
            publish_folder(folder, out, "config.json" if "config.json" in names else None)
        except FileError:
            raise
        except OSError as error:
            raise FileError(f"cannot write {out}: {error.strerror or error}") from error
    return tuple(out / name for name in names)


def trained_table(rows: Sequence[TrainedNetwork], heading: str) -> Table:
    """Return a table of networks and their figures."""
    from rich.table import Table
    from rich.text import Text

    metric = rows[0].evaluation.name
    table = Table(pad_edge=False, show_edge=False)
    table.add_column(heading)
    for title in ("parameters", "trained", metric, "steps", "training"):
        table.add_column(title, justify="right")
    for row in rows:
        cells = (
            row.name,
            "" if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
            f"{row.trained_parameters / 1e6:.2f} M" if row.trained_parameters else "",
            evaluation_text(row.evaluation),
            str(row.steps or ""),
            f"{row.seconds:.0f} s" if row.steps else "",
        )
        table.add_row(*map(Text, cells))
    return table


def evaluation_text(evaluation: Evaluation) -> str:
    """Print a metric with its interval."""
    return f"{evaluation.value:.4f} [{evaluation.low:.4f}, {evaluation.high:.4f}]"
