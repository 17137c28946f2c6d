"""The commands that findings name: what answers them, or what changes them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irtools.causes.facts import Facts

__all__ = ["bench", "compare", "inspect", "optimize", "quoted", "sensitivity"]


def quoted(*words: str) -> str:
    """Return words as a shell reads them."""
    return " ".join(shlex.quote(word) for word in words)


def optimize(facts: Facts, passes: str, *more: str) -> str:
    """Return the command that makes the second model again of the first, in another way."""
    return quoted("irc", "optimize", facts.first.name, "--passes", passes, *_target(facts), *more)


def bench(facts: Facts, *more: str) -> str:
    """Return the command that times both models."""
    return quoted("irc", "bench", facts.first.name, facts.second.name, *_target(facts), *more)


def inspect(facts: Facts, *more: str) -> str:
    """Return the command that shows where the time of the second model goes."""
    return quoted("irc", "inspect", facts.second.name, "--profile", *_target(facts), *more)


def compare(facts: Facts, *more: str) -> str:
    """Return the command that compares both tensor by tensor."""
    data = ("--data", facts.data) if facts.data else ()
    return quoted("irc", "compare", facts.first.name, facts.second.name, "--layers", *data, *more)


def sensitivity(facts: Facts, passes: str) -> str:
    """Return the command that ranks what a pass does to the first model."""
    return quoted("irc", "sensitivity", facts.first.name, "--passes", passes, *_target(facts))


def _target(facts: Facts) -> tuple[str, ...]:
    target = facts.target
    isa = "" if target.runs_here else f":isa={target.isa.value}"
    text = f"{target.name}{isa}"
    return () if text == "ort-cpu" else ("--target", text)
