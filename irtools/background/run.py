"""One `irc` command in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from irtools.errors import LimitError
from irtools.words import printable

__all__ = ["Finished", "kill", "run_irc", "start_irc", "terminate"]

_CHILD = Path(__file__).with_name("child.py")
_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Finished:
    """What a command left.

    Attributes:
        code: Its exit code; negative for a signal.
        out: What it printed.
        error: Its last line to stderr.
    """

    code: int
    out: str
    error: str


def start_irc(args: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command that dies with the thread that started it: Linux counts threads, too.

    Args:
        args: What follows `irc`.
        folder: Where it runs.
    """
    return subprocess.Popen(
        [sys.executable, "-P", str(_CHILD), str(os.getpid()), *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def run_irc(args: Sequence[str], folder: Path, seconds: float = 600.0) -> Finished:
    """Run a command to its end.

    Raises:
        LimitError: It takes longer.
    """
    with start_irc(args, folder) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise LimitError(f"irc {args[0]} took longer than {seconds:g} s") from error
        finally:
            kill(process)
    lines = [line for line in err.splitlines() if line.strip()]
    return Finished(process.returncode, out, printable(lines[-1], 2000) if lines else "")


def terminate(process: subprocess.Popen[str], ended: Callable[[], bool]) -> None:
    """Ask a command to end, and kill it where it does not do so within ten seconds."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    timer = threading.Timer(_GRACE_SECONDS, lambda: None if ended() else kill(process))
    timer.daemon = True
    timer.start()


def kill(process: subprocess.Popen[str]) -> None:
    """End a command at once, and what it started in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
