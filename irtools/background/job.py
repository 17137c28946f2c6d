"""A command that runs in the background, and how far it is."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from irtools.background.run import kill, start_irc, terminate
from irtools.words import printable

__all__ = ["Job", "State"]

State: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]

_KEPT_LINES = 2000
_STEP = re.compile(r"irc: (?P<label>.+) (?P<done>\d+)/(?P<total>\d+)")


class Job:
    """One `irc` command: waits, runs, and ends in one of three ways.

    Attributes:
        number: Counted from 1.
        title: What it does, for people.
        args: What follows `irc`.
        output: What it writes, relative to the folder of the jobs; empty for nothing.
    """

    def __init__(self, number: int, title: str, args: Sequence[str], output: str) -> None:
        self.number = number
        self.title = title
        self.args = tuple(args)
        self.output = output
        self._state: State = "waiting"
        self._code: int | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._dropped = 0
        self._step: dict[str, Any] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._times: dict[str, float] = {}

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; returns whether it came."""
        return self._ended.wait(seconds)

    def lines(self, start: int = 0) -> tuple[list[str], int]:
        """Return what it printed, from a line on, and the number of the next line."""
        with self._lock:
            first = max(start - self._dropped, 0)
            return list(self._lines)[first:], self._dropped + len(self._lines)

    def to_dict(self) -> dict[str, Any]:
        """Return its state as JSON knows it."""
        with self._lock:
            seconds = self._times.get("ended", time.monotonic()) - self._times.get(
                "started", time.monotonic()
            )
            return {
                "job": self.number,
                "title": self.title,
                "state": self._state,
                "command": " ".join(("irc", *self.args)),
                "code": self._code,
                "seconds": round(max(seconds, 0.0), 1),
                "step": self._step,
                "output": self.output,
                "last": self._lines[-1] if self._lines else "",
            }

    def run(self, folder: Path) -> None:
        """Run it to its end; for the thread that owns it."""
        with self._lock:
            if self._ended.is_set():
                return
            self._times["started"] = time.monotonic()
            self._process = start_irc(self.args, folder)
            self._state = "running"
        process = self._process
        assert process.stdout is not None and process.stderr is not None
        # What a command prints to stdout is little; its progress goes to stderr.
        other = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        other.start()
        self._read(process.stderr)
        other.join()
        code = process.wait()
        kill(process)
        self._end("done" if code == 0 else "failed", code)

    def cancel(self) -> bool:
        """Ask it to end; returns whether it was still to be done."""
        with self._lock:
            if self._ended.is_set() or self._state == "cancelled":
                return False
            self._state = "cancelled"
            process = self._process
        if process is None:
            self._end("cancelled", None)
        else:
            terminate(process, self._ended.is_set)
        return True

    def _read(self, stream: Any) -> None:
        with stream:
            for line in stream:
                self._note(printable(line.rstrip(), 2000))

    def _note(self, line: str) -> None:
        if not line:
            return
        step = _STEP.fullmatch(line)
        with self._lock:
            if len(self._lines) == _KEPT_LINES:
                self._dropped += 1
            self._lines.append(line)
            if line.startswith("irc: pass "):
                self._step = {"label": line.removeprefix("irc: "), "done": 0, "total": 0}
            if step is not None:
                done, total = int(step["done"]), int(step["total"])
                self._step = {"label": step["label"], "done": done, "total": total}

    def _end(self, state: State, code: int | None) -> None:
        with self._lock:
            self._state = "cancelled" if self._state == "cancelled" else state
            self._code = code
            self._process = None
            self._times["ended"] = time.monotonic()
            self._times.setdefault("started", self._times["ended"])
        self._ended.set()
