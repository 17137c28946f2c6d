"""Work in a child process, with what it has said up to now, for any number of readers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from irtools.errors import IrtoolsError
from irtools.measure.stream import Stream

__all__ = ["Watched"]

Outcome: TypeAlias = Literal["running", "done", "failed", "stopped"]

_KEPT = 20_000


class Watched:
    """A function in a child process, read by a thread of its own until it ends.

    The thread starts the child, so that the child lives as long as it.

    Args:
        function: As `Stream` takes it.
        arguments: The others.
        label: What it does.
    """

    def __init__(self, function: Callable[..., Any], *arguments: object, label: str) -> None:
        self.outcome: Outcome = "running"
        self.error = ""
        self._messages: deque[Any] = deque(maxlen=_KEPT)
        self._dropped = 0
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._work = (function, arguments, label)
        self._thread = threading.Thread(target=self._run, name=f"irc-ui {label}", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended.is_set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; returns whether it came."""
        return self._ended.wait(seconds)

    def since(self, number: int) -> tuple[list[Any], int]:
        """Return the messages from a number on, and the number of the next one."""
        with self._lock:
            first = max(number - self._dropped, 0)
            return list(self._messages)[first:], self._dropped + len(self._messages)

    def send(self, order: object) -> None:
        """Write an order to the child."""
        self._started.wait()
        if self._stream is not None and not self.ended:
            self._stream.send(order)

    def stop(self) -> None:
        """End the child at once."""
        self._started.wait()
        if not self.ended:
            self.outcome = "stopped"
            assert self._stream is not None
            self._stream.stop()

    def close(self) -> None:
        """End the child and wait until it is gone."""
        self.stop()
        self._thread.join()

    def _run(self) -> None:
        function, arguments, label = self._work
        try:
            with Stream(function, *arguments, label=label) as self._stream:
                self._started.set()
                for message in self._stream:
                    self._add(message)
            self._end("done", "")
        except (IrtoolsError, OSError) as error:
            self._end("failed", str(error))
        finally:
            self._started.set()
            self._ended.set()

    def _add(self, message: Any) -> None:
        with self._lock:
            if len(self._messages) == _KEPT:
                self._dropped += 1
            self._messages.append(message)

    def _end(self, outcome: Outcome, error: str) -> None:
        if self.outcome != "stopped":
            self.outcome, self.error = outcome, error
