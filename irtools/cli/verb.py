"""The command class of every verb: options in groups by what they are about."""

from __future__ import annotations

from collections.abc import Mapping

import click

__all__ = ["GROUPS", "Verb", "group_of", "options_by_group"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Build": (
        "--for",
        "--build",
        "--config",
        "--locked",
        "--dry-run",
        "--check",
        "--baseline",
        "--sign",
        "--key",
    ),
    "Passes": ("--passes", "--pipeline", "--plan"),
    "Model and target": (
        "--teacher",
        "--student",
        "--target",
        "--quantizer",
        "--fix",
        "--may-fix",
        "--logits",
    ),
    "Data": (
        "--train",
        "--calibrate",
        "--evaluate",
        "--holdout",
        "--data",
        "--size",
        "--tokenizer",
        "--text",
        "--label",
        "--max-length",
        "--samples",
        "--task",
        "--seed",
    ),
    "Text": (
        "--prompt",
        "--system",
        "--raw",
        "--stop",
        "--top-k",
        "--top-p",
        "--repetition-penalty",
    ),
    "Goals and checks": (
        "--objective",
        "--speedup",
        "--max-latency",
        "--max-size",
        "--max-memory",
        "--max-drop",
        "--min-metric",
        "--metric",
        "--drop-slower",
        "--new-tokens",
        "--compare",
        "--no-check",
        "--layers",
        "--threshold",
    ),
    "Measuring": (
        "--on",
        "--trials",
        "--storage",
        "--effort",
        "--figures",
        "--measure",
        "--bench",
        "--batch",
        "--seq",
        "--past",
        "--threads",
        "--rounds",
        "--max-seconds",
        "--kit",
        "--merge",
        "--profile",
        "--runs",
        "--top",
        "--live",
        "--clients",
        "--no-bench",
        "--no-chain",
        "--cache-dir",
    ),
    "Method": (
        "--temperature",
        "--alpha",
        "--loss",
        "--layer-map",
        "--relation-heads",
        "--quantize",
        "--layerwise",
        "--adapter",
        "--rank",
        "--adapter-dropout",
        "--modules",
    ),
    "Training": (
        "--epochs",
        "--batch-size",
        "--learning-rate",
        "--warmup",
        "--weight-decay",
        "--accumulate",
        "--precision",
        "--checkpoints",
        "--save-steps",
        "--resume",
        "--keep-checkpoints",
        "--accelerate-config",
    ),
    "Inspection": (
        "--coverage",
        "--bisect-limit",
        "--print-ir-before",
        "--print-ir-after",
        "--print-ir-after-change",
        "--dump-ir",
    ),
    "Output": (
        "--output",
        "--format",
        "--schema",
        "--portable",
        "--external-data",
        "--force",
        "--json",
        "--html",
        "--hide-samples",
        "--adapter-output",
        "--hard-label-output",
        "--cache",
        "--no-cache",
        "--junit",
        "--markdown",
        "--trim",
        "--clear",
        "--track",
        "--work-dir",
        "--port",
    ),
    "Sources other than ONNX files": (),
    "Other options": ("--help",),
}
"""Heading to options, both in the order of the help.

An option is under one heading in all verbs, so that it is looked for in one place.
"""


class Verb(click.Command):
    """A verb whose help has the arguments first and then the options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, records in options_by_group(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)


def options_by_group(
    command: click.Command, ctx: click.Context
) -> dict[str, list[tuple[str, str]]]:
    """Return the options of a command and their help under their headings, in order."""
    records: dict[str, list[tuple[int, tuple[str, str]]]] = {}
    for parameter in command.get_params(ctx):
        if not isinstance(parameter, click.Option):
            continue
        if (record := parameter.get_help_record(ctx)) is not None:
            heading, place = group_of(parameter)
            records.setdefault(heading, []).append((place, record))
    found = ((heading, records.get(heading, [])) for heading in GROUPS)
    return {
        heading: [record for _, record in sorted(pairs, key=lambda pair: pair[0])]
        for heading, pairs in found
        if pairs
    }


def group_of(option: click.Option) -> tuple[str, int]:
    """Return the heading of an option and its place under it.

    An option may carry a `heading` of its own; one that no group knows is listed with the others.
    """
    own: str | None = getattr(option, "heading", None)
    if own is not None:
        return own, 0
    for heading, flags in GROUPS.items():
        for place, flag in enumerate(flags):
            if flag in option.opts:
                return heading, place
    return "Other options", -1
