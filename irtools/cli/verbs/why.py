"""`irc why`: what makes one model slower, larger or worse than another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from irtools.cli import options as options
from irtools.cli.comparing import runs_option
from irtools.cli.source import load_options, source_options
from irtools.cli.types import DATA, SOURCE
from irtools.cli.verb import Verb

if TYPE_CHECKING:
    from irtools.causes import Diagnosis, Finding, MeasuredFacts

__all__ = ["why"]

_SAMPLES = 16


@click.command(
    cls=Verb,
    epilog="Example: irc why float.onnx int8.onnx --target openvino-cpu --evaluate test.jsonl",
)
@click.argument("first", metavar="A", type=SOURCE)
@click.argument("second", metavar="B", type=SOURCE)
@options.target_option
@click.option(
    "--evaluate",
    type=DATA,
    help="Data to compare on; with labels, accuracy by class. [default: drawn from the signature]",
)
@click.option("--calibrate", type=DATA, help="Data that B was calibrated on.")
@options.data_options
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    metavar="N",
    default=_SAMPLES,
    show_default=True,
    help="Most samples on which tensors inside the models are compared.",
)
@options.batch_option
@options.sequence_option
@options.threads_option
@runs_option
@click.option(
    "--max-seconds",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Bound on the time of timing both.",
)
@click.option("--no-bench", is_flag=True, help="Do not time and profile the models.")
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    default=5,
    show_default=True,
    help="Most causes to print; the JSON document has up to 10.",
)
@options.seed_option
@options.size_option
@source_options
@options.json_option
@options.work_dir_option
def why(first: str, second: str, json_path: str | None, top: int, **given: Any) -> None:
    """Say why B is slower, larger or worse than A.

    A and B are an original and what was made of it, or any two models with the same inputs. Both
    are timed, profiled and compared tensor by tensor on the target; what each cause explains of
    the difference is measured, and the causes are ranked by it. Where B lags in nothing, the
    causes are what it could still gain. With --evaluate outputs, answers by class, padding, exits
    and the ranges of quantized tensors are looked at on real data, with --calibrate against
    the data that ranges were taken from.

    Each cause has its evidence and the command that answers it. Shares may overlap, which is said
    where they add up to more than 100 %.
    """
    from irtools.causes import MeasuredFacts, diagnose
    from irtools.cli.comparing import measuring, samples_of, subject_of
    from irtools.cli.console import console, progress, say, say_notes, write_json
    from irtools.targets import find_target

    target = find_target(given["target"])
    loading = load_options(given)
    a, b = (subject_of(source, target, loading) for source in (first, second))
    say_notes(a.model, b.model)
    with options.naming_data_option("--evaluate", given["evaluate"]):
        samples = samples_of(a, given, given["evaluate"], given["calibrate"])
        if given["evaluate"] is None:
            say(
                "irc: no --evaluate given: inputs are drawn; classes, padding, exits and ranges of "
                "quantized tensors are not looked at"
            )
        with progress() as shown:
            facts = MeasuredFacts(a, b, target, samples, measuring(given, shown))
            found = diagnose(facts)
    for note in found.notes:
        say(f"irc: note: {note}")
    if json_path is not None:
        write_json(_document(found, facts), json_path)
    if json_path != "-":
        out = console(stderr=False)
        for line in _lines(found, top):
            out.print(line, soft_wrap=True)


def _document(found: Diagnosis, facts: MeasuredFacts) -> dict[str, Any]:
    from irtools.causes import module_table
    from irtools.measure.machine import machine, versions
    from irtools.report.plain import plain_data
    from irtools.targets import target_text

    return {
        "format": "irtools-why",
        "version": 1,
        "machine": plain_data(machine()),
        "versions": dict(versions()),
        "first": facts.first.name,
        "second": facts.second.name,
        "target": target_text(facts.target),
        **plain_data(found),
        "modules": plain_data(module_table(facts)["modules"]),
    }


def _lines(found: Diagnosis, top: int) -> Iterator[str]:
    from irtools.words import printable

    for one in found.differences:
        yield f"{_HEADINGS[one.gap.value]:<8}{printable(one.text, 500)}"
    yield ""
    if found.is_equal:
        yield "The models do not differ beyond noise."
        return
    if not found.findings:
        yield "No cause was found." if found.lags else "B lags A in nothing."
        return
    if not found.lags and found.differences:
        yield "B lags A in nothing. What it could still gain:"
    for number, finding in enumerate(found.findings[:top], 1):
        yield from _cause(number, finding, found)
    for gap, total in found.overlaps(top).items():
        yield (
            f"Shares of {gap.value} add up to {100 * total:.0f} %: causes overlap, and what "
            "answers one answers a part of another."
        )
    if len(found.findings) > top:
        yield f"{len(found.findings) - top} more: --top {len(found.findings)}"


def _cause(number: int, finding: Finding, found: Diagnosis) -> Iterator[str]:
    from irtools.words import printable

    yield f"{number}. {finding.gap.value}: {printable(finding.text, 500)}"
    yield f"   {_explained(finding, found)}"
    for line in finding.evidence:
        yield f"   - {printable(line, 500)}"
    yield f"   > {printable(finding.command, 500)}"


def _explained(finding: Finding, found: Diagnosis) -> str:
    from irtools.words import size_text

    if finding.share is None or finding.amount is None:
        return "known of the target, not measured"
    share = f"{100 * finding.share:.0f} %"
    lags = found.explains(finding)
    match finding.gap.value:
        case "slower":
            whole = "the difference" if lags else "the time of B"
            return f"{finding.amount:.2f} ms, {share} of {whole}"
        case "larger":
            whole = "the difference" if lags else "the size of B"
            return f"{size_text(int(finding.amount))}, {share} of {whole}"
        case _:
            return f"{share} of what the answers lose"


_HEADINGS = {"slower": "time", "larger": "size", "worse": "answers"}
