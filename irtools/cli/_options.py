"""Option types and options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = [
    "PERCENT",
    "SIZES",
    "batch_option",
    "json_option",
    "seed_option",
    "sequence_option",
    "target_option",
    "threads_option",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Percent(click.ParamType):
    """A share: `1%` or `0.01`."""

    name = "share"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"{value!r} is no share, expected 1% or 0.01", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is outside 0% to 100%", param, ctx)
        return share


class _Sizes(click.ParamType):
    """Positive integers joined by commas: `1,8`."""

    name = "n,n"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of sizes, expected such as 1,8", param, ctx)
        if any(size < 1 for size in sizes):
            self.fail(f"{value!r} holds a size below 1", param, ctx)
        return sizes


PERCENT = _Percent()
SIZES = _Sizes()


def target_option(function: F) -> F:
    """--target of every verb that runs models."""
    return click.option(
        "--target",
        "-t",
        default="ort-cpu",
        show_default=True,
        help="What runs the model, with isa= for another machine (ort-cpu:isa=avx2); "
        "`irc targets` lists them.",
    )(function)


def threads_option(function: F) -> F:
    """--threads of every verb that runs models."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads for running models. [default: the CPU quota]",
    )(function)


def seed_option(function: F) -> F:
    """--seed of every verb that draws data."""
    return click.option(
        "--seed", default=0, show_default=True, help="Seed of every random choice."
    )(function)


def batch_option(function: F) -> F:
    """--batch of every verb that times models."""
    return click.option(
        "--batch", type=SIZES, default="1", show_default=True, help="Batch sizes to time at."
    )(function)


def sequence_option(function: F) -> F:
    """--seq of every verb that times models."""
    return click.option(
        "--seq",
        "sequence",
        type=SIZES,
        default="128",
        show_default=True,
        help="Sequence lengths to time at, where the model has such an axis.",
    )(function)


def json_option(function: F) -> F:
    """--json of every verb with figures."""
    return click.option(
        "--json", "json_path", metavar="FILE", help="Write the figures as JSON; - is stdout."
    )(function)
