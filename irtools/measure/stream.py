"""A child process that is talked to: it answers many times, and takes further orders."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, Protocol

from irtools.errors import UnsupportedError
from irtools.measure.child import Child, ChildLimits, answer_of, crash_of, printed_last
from irtools.measure.wire import decode

__all__ = ["Channel", "Stream"]

_LENGTH_BYTES = 8


class Channel(Protocol):
    """What the function of a stream gets as its first argument."""

    def emit(self, message: object) -> None:
        """Write a message, from any thread: mappings, lists, strings, numbers, arrays."""

    def receive(self) -> Any:
        """Wait for an order of the parent; None when there are no more."""


class Stream:
    """A function in a child process that writes messages while it runs. A context manager.

        with Stream(count, 3, label="counting") as stream:
            for message in stream:
                print(message)

    Linux ends the child with the thread that started it, as well as with the process.

    Args:
        function: A module-level function, of which the first argument is a `Channel`.
        arguments: The others; anything that can be pickled.
        label: What it does, for messages.
    """

    def __init__(self, function: Callable[..., Any], *arguments: object, label: str) -> None:
        self._label = label
        self._child = Child.start()
        self._pipe: IO[bytes] = os.fdopen(self._child.answer, "rb")
        self._child.send(
            {
                "module": function.__module__,
                "name": function.__qualname__,
                "arguments": arguments,
                "memory": None,
                "stream": True,
            }
        )

    @property
    def pid(self) -> int:
        """Number of the child's process."""
        return self._child.process.pid

    def send(self, order: object) -> None:
        """Write what the child's `receive` returns; it may have ended."""
        stdin = self._child.process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError, ValueError):
            stdin.write(pickle.dumps(order))
            stdin.flush()

    def __iter__(self) -> Iterator[Any]:
        """Yield the messages, until the function returns.

        Raises:
            IrtoolsError: What the function raised.
            UnsupportedError: The child crashed.
        """
        while (content := self._frame()) is not None:
            message = _message(content, self._label)
            if "emitted" not in message:
                answer_of(content, self._label, ChildLimits())
                return
            yield message["emitted"]
        raise crash_of(
            self._child.process.wait(),
            self._label,
            ChildLimits(),
            printed_last(self._child.printed),
        )

    def stop(self) -> None:
        """End the child at once, from any thread; its reader meets a crash."""
        self._child.end()

    def close(self) -> None:
        """End the child and free what belongs to it."""
        self._child.end()
        self._pipe.close()
        self._child.printed.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _frame(self) -> bytes | None:
        length = int.from_bytes(self._pipe.read(_LENGTH_BYTES), "little")
        content = self._pipe.read(length) if length else b""
        return content if length and len(content) == length else None


def _message(content: bytes, label: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = decode(content)
    except ValueError as error:
        raise UnsupportedError(f"{label} broke off in a message: {error}") from error
    return found
