"""Options about how a source becomes a model, of every verb that takes one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irtools.cli.types import FILE

if TYPE_CHECKING:
    from irtools.sources import LoadOptions, QuantizerRequest

__all__ = ["load_options", "source_options"]

F = TypeVar("F", bound=Callable[..., Any])


class _SourceOption(click.Option):
    """An option that the help shows apart: most sources are ONNX files, which need none."""

    heading = "Sources other than ONNX files"


_OPTIONS = (
    click.option(
        "--task",
        cls=_SourceOption,
        metavar="NAME",
        help="What a checkpoint is for: text-classification, text-generation, ... "
        "[default: as its config says]",
    ),
    click.option(
        "--with-past",
        cls=_SourceOption,
        is_flag=True,
        help="A decoder with its key-value cache as inputs and outputs.",
    ),
    click.option(
        "--adapter",
        "adapters",
        cls=_SourceOption,
        metavar="DIR[=FACTOR]",
        multiple=True,
        help="Merge a LoRA, DoRA, rsLoRA, (IA)3, LoHa, LoKr or OFT adapter; several are merged in "
        "turn.",
    ),
    click.option(
        "--adapters-as",
        cls=_SourceOption,
        type=click.Choice(["merged", "inputs", "constants"]),
        default="merged",
        show_default=True,
        help="Merge them; or keep LoRA next to the weights, which are quantized without it: "
        "several as inputs, switched at run time by files, or one as constants. Learned prompts "
        "of a decoder are inputs too, of its cache.",
    ),
    click.option(
        "--opset",
        cls=_SourceOption,
        type=click.IntRange(min=7),
        help="ai.onnx opset of the export.",
    ),
    click.option(
        "--example",
        cls=_SourceOption,
        type=FILE,
        help=".npz with example inputs, for torch modules.",
    ),
    click.option(
        "--weights",
        cls=_SourceOption,
        type=FILE,
        help=".safetensors or .pt with the state, for torch modules.",
    ),
    click.option(
        "--trust-remote-code",
        cls=_SourceOption,
        is_flag=True,
        help="Run Python files that come with the checkpoint.",
    ),
)


def source_options(function: F) -> F:
    """Add the options of `_OPTIONS`."""
    for add in reversed(_OPTIONS):
        function = add(function)
    return function


def load_options(given: Mapping[str, Any], *, check: bool = True) -> LoadOptions:
    """Turn the options of `source_options` into what a frontend takes.

    Args:
        check: Compare an export with its source.

    Raises:
        click.UsageError: The factor of an adapter is not a number.
    """
    from irtools.sources import LoadOptions

    return LoadOptions(
        opset=given["opset"],
        example=None if given["example"] is None else Path(given["example"]),
        weights=None if given["weights"] is None else Path(given["weights"]),
        task=given["task"],
        with_past=given["with_past"],
        adapters=tuple(_adapter(text) for text in given["adapters"]),
        adapters_as=given["adapters_as"],
        trust_remote_code=given["trust_remote_code"],
        check=check,
        sizes=given.get("sizes", ()),
        logits=given.get("logits", "all"),
        quantizer=_quantizer(given),
    )


def _quantizer(given: Mapping[str, Any]) -> QuantizerRequest | None:
    """Read --quantizer and what goes with it."""
    from irtools.sources import QuantizerRequest

    if given.get("quantizer") is None:
        return None
    tokenizer = given["tokenizer"]
    return QuantizerRequest.parse(
        given["quantizer"],
        data=given["calibrate"],
        samples=given["samples"],
        max_length=given["max_length"],
        tokenizer=None if tokenizer is None else Path(tokenizer),
    )


def _adapter(text: str) -> tuple[Path, float]:
    """Read `DIR` or `DIR=FACTOR`."""
    path, equals, factor = text.rpartition("=")
    if equals and not Path(text).exists():
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise click.UsageError(
                f"adapter {text!r}: {factor!r} is not a number; expected DIR or DIR=0.5"
            )
        return Path(path), number
    return Path(text), 1.0
