"""Wall time of whole processes, which take turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

__all__ = ["IRC", "LIMIT", "Times", "alternate", "empty", "ratio", "run"]

LIMIT = 1800.0
"""Seconds after which a process is ended."""
IRC = str(Path(sys.executable).with_name("irc"))
"""The command of this environment."""


@dataclass(frozen=True)
class Times:
    """How long a command took.

    Attributes:
        seconds: Wall time of every counted round; empty where it failed.
        failure: Last line of what it said, where it failed.
    """

    seconds: tuple[float, ...] = ()
    failure: str = ""


def alternate(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    before: Callable[[str], None] = lambda name: None,
) -> dict[str, Times]:
    """Run commands one at a time, in another order in each round.

    A first round is not counted: files and byte code get into the cache.

    Args:
        commands: Command lines by name.
        rounds: How often each is counted.
        before: What is done before a command runs, outside the time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    failures: dict[str, str] = {}
    for number in range(-1, rounds):
        order = [name for name in commands if name not in failures]
        shift = number % max(1, len(order))
        for name in (*order[shift:], *order[:shift]):
            before(name)
            started = time.perf_counter()
            try:
                run(commands[name])
            except RuntimeError as error:
                failures[name] = str(error)
                continue
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: Times(failure=failures[name]) if name in failures else Times(tuple(seconds[name]))
        for name in commands
    }


def _environment() -> dict[str, str]:
    """Return the environment, with byte code kept: pip compiles what it installs."""
    left_out = "PYTHONDONTWRITEBYTECODE"
    return {name: value for name, value in os.environ.items() if name != left_out}


def run(command: Sequence[str]) -> None:
    """Run a command to its end, on byte code of its modules as an installed package has it.

    Raises:
        RuntimeError: It failed or took too long; says how.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done after {LIMIT:.0f} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise RuntimeError(f"exit {done.returncode}: {lines[-1][:200]}")


def empty(folder: Path) -> None:
    """Make a folder, or empty it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def ratio(seconds: Sequence[float], base: Sequence[float]) -> str:
    """Return the median of the ratios within a round, with the smallest and the largest."""
    if not base:
        return ""
    found = [one / other for one, other in zip(seconds, base, strict=True)]
    return f"{median(found):.2f} [{min(found):.2f}, {max(found):.2f}]"
