"""`irc finetune`: a checkpoint trained on labelled data, whole or by an adapter."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli import training as shared
from irtools.cli.launch import launched
from irtools.cli.types import DATA, FOLDER, METRIC, OUT, SOURCE
from irtools.cli.verb import Verb
from irtools.driver.destination import check_writable
from irtools.files import json_text

if TYPE_CHECKING:
    from irtools.students import AdapterSettings, FinetuneRequest, FinetuneResult

__all__ = ["finetune"]

_ADAPTER_OPTIONS = ("rank", "alpha", "adapter_dropout", "modules", "adapter_output")
_FULL_RATE, _ADAPTER_RATE = 5e-5, 5e-4


_BOTTLENECKS = frozenset({"series", "parallel", "bottleneck", "houlsby", "pfeiffer"})


class _Kind(click.Choice[str]):
    """Kinds of adapters; bottlenecks, which others call adapters as well, are refused by name."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if str(value).partition(":")[0] in _BOTTLENECKS:
            self.fail(
                f"{value} is a bottleneck, which computes h + U f(D h) and folds into no weight; "
                "peft has none: take lora, which is merged and costs nothing at run time",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


@click.command(
    cls=Verb,
    epilog="Example: irc finetune ./base --train train.jsonl --evaluate test.jsonl --adapter lora "
    "--rank 8 -o out/",
)
@click.argument("base", metavar="CHECKPOINT", type=SOURCE)
@click.option(
    "--train",
    required=True,
    type=DATA,
    help="Training data with labels; texts alone for a language model.",
)
@click.option("--evaluate", required=True, type=DATA, help="Test data, likewise.")
@click.option(
    "--adapter",
    type=_Kind(["lora", "rslora", "dora", "qlora", "loha", "lokr", "oft", "ia3", "bitfit"]),
    help="Freeze the network and train an adapter, which is merged. qlora: lora over a base in "
    "4-bit NF4; bitfit: the biases alone. [default: train every weight]",
)
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of the adapter; of oft, the size of its blocks. [default: 8; oft: up to 32]",
)
@click.option("--alpha", type=float, help="Scale of the adapter. [default: twice the rank]")
@click.option("--adapter-dropout", type=float, help="Of the adapter's input. [default: 0]")
@click.option(
    "--modules",
    metavar="NAME,NAME",
    help="Linear layers that get an adapter (query,value). [default: all but the head]",
)
@click.option("--adapter-output", type=FOLDER, help="Keep the adapter alone, in peft's format.")
@click.option(
    "--task",
    type=click.Choice(["multi-class", "multi-label", "regression", "language-model"]),
    help="What the labels mean; language-model: texts without labels, for a causal language "
    "model. [default: taken from the labels]",
)
@click.option("--metric", type=METRIC, help="Metric of the table. [default: by the task]")
@options.data_options
@options.threads_option
@options.seed_option
@click.option("--output", "-o", required=True, type=OUT, help="Folder of the result.")
@shared.training_options(None)
@options.work_dir_option
def finetune(base: str, output: str, json_path: str | None, **given: Any) -> None:
    """Train CHECKPOINT on labelled data; it gets a new head where its own does not fit.

    With --adapter the result is the merged network, ready for `irc export` and `irc optimize`.
    """
    from irtools.checkpoints import plain_checkpoint

    adapter = _adapter(given)
    inputs = (base, given["train"], given["evaluate"])
    outputs = [output, *([given["adapter_output"]] if given["adapter_output"] else [])]
    places = shared.result_folders(outputs, inputs, given)
    if json_path not in (None, "-"):
        check_writable(Path(str(json_path)))
    code = launched(given)
    if code is not None:
        raise click.exceptions.Exit(code)
    request = _request(base, adapter, shared.work_folder(places[0], given), given)
    with shared.resumable(request.work), plain_checkpoint(Path(base)) as plain:
        found = _train(dataclasses.replace(request, base=str(plain.folder)))
        if found is None:
            return
        notes = (*plain.notes, *map(plain.named, found.notes))
        result = dataclasses.replace(found, notes=notes)
        document = _document(request, result)
        _publish(result, plain.folder, request, places, document)
    if not given["keep_checkpoints"]:
        shutil.rmtree(request.work, ignore_errors=True)
    _show(result, places, document, json_path)


def _adapter(given: dict[str, Any]) -> AdapterSettings | None:
    if given["adapter"] is None:
        for name in _ADAPTER_OPTIONS:
            if given[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} needs --adapter")
        return None
    if given["adapter"] == "bitfit" and given["adapter_output"]:
        raise click.UsageError(
            "--adapter bitfit trains biases where they are: there is no adapter to keep apart, "
            "leave out --adapter-output"
        )
    from irtools.students import AdapterSettings

    return AdapterSettings(
        kind=given["adapter"],
        rank=given["rank"],
        alpha=given["alpha"],
        dropout=given["adapter_dropout"] or 0.0,
        modules=tuple(given["modules"].split(",")) if given["modules"] else (),
    )


def _request(
    base: str, adapter: AdapterSettings | None, work: Path, given: dict[str, Any]
) -> FinetuneRequest:
    from irtools.students import FinetuneRequest

    usual = _FULL_RATE if adapter is None else _ADAPTER_RATE
    rate = usual if given["learning_rate"] is None else given["learning_rate"]
    training = shared.training_settings({**given, "learning_rate": rate})
    return FinetuneRequest(
        base=base,
        train=given["train"],
        evaluate=given["evaluate"],
        work=work,
        adapter=adapter,
        task=given["task"],
        data=options.data_settings(given, given["train"], given["evaluate"]),
        metric=given["metric"],
        training=training,
        resume=given["resume"],
    )


def _train(request: FinetuneRequest) -> FinetuneResult | None:
    from irtools.cli.console import progress
    from irtools.students import find_trainer

    with progress() as shown:
        return find_trainer().finetune(request, shown)


def _document(request: FinetuneRequest, result: FinetuneResult) -> dict[str, Any]:
    from irtools.measure.machine import machine, versions
    from irtools.report.plain import plain_data

    def trained(value: Any) -> Any:
        plain = plain_data(dataclasses.replace(value, folder=None))
        return {name: item for name, item in plain.items() if name != "folder"}

    return {
        "format": "irtools-finetune",
        "version": 1,
        "base": request.base,
        "train": request.train,
        "evaluate": request.evaluate,
        "adapter": plain_data(request.adapter),
        "training": plain_data(request.training),
        "machine": plain_data(machine()),
        "versions": dict(versions()),
        "result": trained(result.result),
        "stages": [trained(stage) for stage in result.stages],
        "figures": plain_data(result.figures),
        "notes": list(result.notes),
    }


def _publish(
    result: FinetuneResult,
    base: Path,
    request: FinetuneRequest,
    places: list[Path],
    document: dict[str, Any],
) -> None:
    report = {"report.json": json_text(document)}
    given = request.data.tokenizer
    tokenizer = base if given is None else given if given.is_dir() else given.parent
    assert result.result.folder is not None
    shared.publish_checkpoint(result.result.folder, tokenizer, places[0], report)
    if len(places) > 1 and result.adapter is not None:
        shared.publish_checkpoint(result.adapter, tokenizer, places[1], {})


def _show(
    result: FinetuneResult, places: list[Path], document: dict[str, Any], json_path: str | None
) -> None:
    from irtools.cli.console import console, say, write_json

    if json_path is not None:
        write_json(document, json_path)
    console().print(shared.trained_table((*result.stages, result.result), "network"))
    for name, value in result.figures.items():
        say(f"  {name.replace('-', ' ')}: {value:.2e}")
    for note in result.notes:
        say(f"  note: {note}")
    say(f"irc: wrote {', '.join(f'{place}/' for place in places)}")
