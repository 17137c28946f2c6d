"""`irc distill`: a small student of a large teacher."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli import training as shared
from irtools.cli.launch import launched
from irtools.cli.layerwise import distill_layerwise
from irtools.cli.types import DATA, FOLDER, METRIC, OUT, PIPELINE, SOURCE, TARGET
from irtools.cli.verb import Verb
from irtools.driver.destination import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from irtools.driver.chain import ChainStage, Link
    from irtools.students import DistillRequest, DistillResult
    from irtools.targets import Target

__all__ = ["distill", "gain_text"]

_QUANTIZED = "cleanup,int8"
_SMALLEST = "cleanup,prune:ratio=0.2,fuse,int8"
_CALIBRATION = 128
_USUAL_TARGETS = ("ort-cpu", "openvino-cpu", "ort-cuda")


@click.command(
    cls=Verb,
    epilog="Example: irc distill --teacher ./teacher --student layers=0,2,5 --train train.jsonl "
    "--evaluate test.jsonl --temperature 2 --alpha 0.5 -o student/",
)
@click.option(
    "--teacher",
    required=True,
    type=SOURCE,
    help="Checkpoint folder, GGUF or ONNX file to learn from.",
)
@click.option(
    "--student",
    required=True,
    metavar="WHAT",
    help="layers=0,2,5 of the teacher; sizes such as hidden=192,layers=3 (heads, ffn); a "
    "checkpoint folder; or an .onnx file that `prune` made of a checkpoint.",
)
@click.option(
    "--layerwise",
    is_flag=True,
    help="Train each block of the student on the output of the teacher's, one at a time, without "
    "labels; with --quantize through the rounding of its weights (ZeroQuant).",
)
@click.option(
    "--train", required=True, type=DATA, help="Training data with labels; --layerwise needs none."
)
@click.option(
    "--evaluate", required=True, type=DATA, help="Test data with labels; --layerwise needs none."
)
@click.option(
    "--temperature", default=2.0, show_default=True, help="Softens the outputs of both networks."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    help="Weight of the teacher's outputs; the labels have the rest. [default: 0.5]",
)
@click.option(
    "--loss",
    metavar="TEXT",
    help="Weights of all terms instead of --alpha: soft=0.5,hard=0.5,cosine=1,embedding=1,hidden=1,"
    "attention=1,relation=1.",
)
@click.option(
    "--layer-map",
    metavar="N,N",
    help="Teacher layer that each student layer learns from. [default: evenly spread]",
)
@click.option(
    "--relation-heads", type=click.IntRange(min=1), metavar="N", help="Heads of the relation loss."
)
@click.option(
    "--task",
    type=click.Choice(["multi-class", "multi-label", "regression"]),
    help="What the labels mean. [default: taken from the labels]",
)
@click.option("--metric", type=METRIC, help="Metric of the tables. [default: by the task]")
@options.data_options
@click.option(
    "--target",
    "-t",
    "targets",
    type=TARGET,
    multiple=True,
    help="What the chain is measured on; the first runs an ONNX teacher. May be given several "
    "times. [default: ort-cpu, openvino-cpu and ort-cuda, those that are there]",
)
@click.option(
    "--passes",
    "-p",
    default=_SMALLEST,
    show_default=True,
    type=PIPELINE,
    help="Passes of the chain's last link.",
)
@click.option("--no-chain", is_flag=True, help="Train and compare the students, no more.")
@click.option("--no-bench", is_flag=True, help="Do not time the models of the chain.")
@options.batch_option
@options.sequence_option
@options.threads_option
@options.seed_option
@click.option(
    "--cache",
    type=FOLDER,
    help="Where the teacher's outputs are kept. [default: irtools in $XDG_CACHE_HOME or ~/.cache]",
)
@click.option("--no-cache", is_flag=True, help="Do not keep them.")
@click.option(
    "--hard-label-output", type=FOLDER, help="Keep the student that saw the labels alone, too."
)
@click.option("--output", "-o", required=True, type=OUT, help="Folder of the student.")
@shared.training_options(1e-4)
@options.work_dir_option
@click.pass_context
def distill(
    context: click.Context, /, layerwise: bool, output: str, json_path: str | None, **given: Any
) -> None:
    """Train a small network on the outputs of a large one, and say what that gained.

    The same student is trained a second time on the labels alone, with the same budget, and stands
    next to it in the tables. Then the chain from the teacher to the distilled, quantized and pruned
    student is measured on the targets, all models alternating.

    With --layerwise no output is distilled: every block learns to give what the teacher's gives
    there, on any texts or pictures, and with the memory for one block's training.
    """
    inputs = (given["teacher"], given["student"], given["train"], given["evaluate"])
    outputs = [output, *([given["hard_label_output"]] if given["hard_label_output"] else [])]
    places = shared.result_folders(outputs, inputs, given)
    if json_path not in (None, "-"):
        check_writable(Path(str(json_path)))
    if layerwise:
        blocks = _layer_map(given["layer_map"])
        distill_layerwise(context, places[0], blocks, json_path, given)
        return
    targets = list(_targets(given))
    pipelines = _pipelines(given)
    code = launched(given)
    if code is not None:
        raise click.exceptions.Exit(code)
    asked = _request(given, shared.work_folder(places[0], given), targets)
    with shared.plain_checkpoints(asked) as (request, named):
        found = _train(request)
        if found is None:
            return
        result = dataclasses.replace(found, notes=named(found.notes))
        links = () if given["no_chain"] else _measure(request, result, targets, pipelines, given)
        document = _document(asked, result, links)
        _publish(result, places, document)
    if not given["keep_checkpoints"]:
        shutil.rmtree(request.work, ignore_errors=True)
    _show(result, links, places, document, json_path)


def _targets(given: dict[str, Any]) -> Iterator[Target]:
    """The targets that were named, or the usual ones that are here."""
    from irtools.errors import TargetUnavailableError
    from irtools.measure.own_machine import refuse_foreign
    from irtools.targets import find_target

    for name in given["targets"]:
        target = find_target(name)
        if not given["no_bench"]:
            refuse_foreign(target, "the benchmark", "give --no-bench, or leave out isa=")
        yield target
    if given["targets"]:
        return
    for name in _USUAL_TARGETS:
        target = find_target(name, check=False)
        try:
            target.check_available()
        except TargetUnavailableError:
            continue
        yield target


def _pipelines(given: dict[str, Any]) -> dict[str, str]:
    from irtools.passmanager import Pipeline

    return {
        "distilled, quantized": str(Pipeline.parse(_QUANTIZED)),
        "distilled, pruned, quantized, fused": str(Pipeline.parse(given["passes"])),
    }


def _request(given: dict[str, Any], work: Path, targets: Sequence[Target]) -> DistillRequest:
    from irtools.students import DistillRequest, parse_losses
    from irtools.targets import target_text

    if given["loss"] is not None and given["alpha"] is not None:
        raise click.UsageError("--loss sets all weights; leave out --alpha")
    alpha = 0.5 if given["alpha"] is None else given["alpha"]
    weights = {"soft": alpha, "hard": 1 - alpha}
    return DistillRequest(
        teacher=given["teacher"],
        student=given["student"],
        train=given["train"],
        evaluate=given["evaluate"],
        work=work,
        losses=parse_losses(given["loss"]) if given["loss"] else weights,
        temperature=given["temperature"],
        layer_map=_layer_map(given["layer_map"]),
        relation_heads=given["relation_heads"],
        task=given["task"],
        data=options.data_settings(given, given["train"], given["evaluate"]),
        metric=given["metric"],
        target=target_text(targets[0]) if targets else "ort-cpu",
        cache=_cache(given),
        training=shared.training_settings(given),
        resume=given["resume"],
    )


def _layer_map(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise click.UsageError(f"--layer-map {text!r} is not a list of layers such as 1,3,5")
    return tuple(int(part) for part in text.split(","))


def _cache(given: dict[str, Any]) -> Path | None:
    from irtools.measure.cache import default_cache

    if given["no_cache"]:
        return None
    return Path(given["cache"]) if given["cache"] else default_cache()


def _train(request: DistillRequest) -> DistillResult | None:
    from irtools.cli.console import progress
    from irtools.students import find_trainer

    with progress() as shown:
        return find_trainer().distill(request, shown)


def _measure(
    request: DistillRequest,
    result: DistillResult,
    targets: Sequence[Target],
    pipelines: dict[str, str],
    given: dict[str, Any],
) -> tuple[Link, ...]:
    from irtools.cli.console import progress
    from irtools.driver.chain import Chain, measure_chain
    from irtools.measure.base import BenchSettings

    bench = BenchSettings(
        given["batch"],
        given["sequence"],
        max_seconds=len(targets) * BenchSettings.max_seconds,
    )
    chain = Chain(
        tuple(_stages(request, result, targets, pipelines)),
        request.train,
        request.evaluate,
        result.distilled.evaluation.name,
        None if given["no_bench"] else bench,
        given["seed"],
        given["threads"],
    )
    with progress() as shown:
        return measure_chain(chain, shown)


def _stages(
    request: DistillRequest,
    result: DistillResult,
    targets: Sequence[Target],
    pipelines: dict[str, str],
) -> Iterator[ChainStage]:
    from irtools.driver.chain import ChainSource, ChainStage

    own = dataclasses.replace(request.data, tokenizer=result.tokenizer, samples=_CALIBRATION)
    teacher = Path(request.teacher)
    folder = teacher if teacher.is_dir() else teacher.parent
    known = (folder / "tokenizer.json").is_file() and request.data.tokenizer is None
    read = dataclasses.replace(request.data, tokenizer=folder) if known else own
    student = ChainSource(str(result.distilled.folder), own)
    for target in targets:
        yield ChainStage("baseline", target, ChainSource(request.teacher, read))
        yield ChainStage("hard-label", target, ChainSource(str(result.hard_label.folder), own))
        yield ChainStage("distilled", target, student)
        for name, pipeline in pipelines.items():
            yield ChainStage(name, target, student, pipeline)


def _document(
    request: DistillRequest, result: DistillResult, links: Sequence[Link]
) -> dict[str, Any]:
    from irtools.measure.machine import machine, versions
    from irtools.report.plain import plain_data

    def trained(value: Any) -> Any:
        plain = plain_data(dataclasses.replace(value, folder=None))
        return {name: item for name, item in plain.items() if name != "folder"}

    return {
        "format": "irtools-distill",
        "version": 2,
        "teacher": request.teacher,
        "student": request.student,
        "train": request.train,
        "evaluate": request.evaluate,
        "losses": plain_data(request.losses),
        "temperature": request.temperature,
        "training": plain_data(request.training),
        "machine": plain_data(machine()),
        "versions": dict(versions()),
        "students": [trained(x) for x in (result.teacher, result.hard_label, result.distilled)],
        "gain": plain_data(result.gain),
        "chain": [plain_data(link) for link in links],
        "notes": list(result.notes),
    }


def _publish(result: DistillResult, places: Sequence[Path], document: dict[str, Any]) -> None:
    from irtools.files import json_text

    report = {"report.json": json_text(document)}
    for place, student in zip(places, (result.distilled, result.hard_label), strict=False):
        assert student.folder is not None
        shared.publish_checkpoint(student.folder, result.tokenizer, place, report)


def _show(
    result: DistillResult,
    links: Sequence[Link],
    places: Sequence[Path],
    document: dict[str, Any],
    json_path: str | None,
) -> None:
    from irtools.cli.console import console, say, write_json

    if json_path is not None:
        write_json(document, json_path)
    out = console()
    out.print(
        shared.trained_table((result.teacher, result.hard_label, result.distilled), "network")
    )
    say(gain_text(result))
    if links:
        out.print(_chain_table(links))
    for note in result.notes:
        say(f"  note: {note}")
    say(f"irc: wrote {', '.join(f'{place}/' for place in places)}")


def gain_text(result: DistillResult) -> str:
    gain = result.gain
    shown = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    better = "" if result.distilled.evaluation.larger_is_better else ", less is better"
    verdict = "" if gain.is_significant else ": no difference beyond the noise of the test data"
    return f"  distilled against hard-label, on the same budget: {shown}{better}{verdict}"


def _chain_table(links: Sequence[Link]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from irtools.words import printable, size_text

    table = Table(pad_edge=False, show_edge=False)
    for heading in ("target", "link"):
        table.add_column(heading)
    metric = links[0].score.evaluation.name
    for heading in ("size", "smaller", "latency", "faster", metric, "agreement"):
        table.add_column(heading, justify="right")
    base = links[0]
    for link in links:
        base = link if link.name == "baseline" else base
        cells = (
            link.target,
            link.name,
            size_text(link.file_bytes),
            "" if link is base else f"{base.file_bytes / link.file_bytes:.2f}x",
            f"{link.latency[0].median_ms:.2f} ms" if link.latency else "",
            _faster(link),
            shared.evaluation_text(link.score.evaluation),
            "" if link.score.agreement is None else f"{link.score.agreement:.2%}",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _faster(link: Link) -> str:
    ratio = link.latency[0].speedup if link.latency else None
    return "" if ratio is None else f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
