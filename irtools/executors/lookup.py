"""From the text of `--on` to an executor."""

from __future__ import annotations

from irtools.errors import UsageError
from irtools.executors.base import Executor
from irtools.plugins import registry

__all__ = ["open_executor"]

_GROUP = "irtools.executors"


def open_executor(text: str) -> Executor:
    """Return the executor that a text names: `local:2`, `ray`, `ray://head:10001`.

    What stands before the first colon is the name of an entry point in `irtools.executors`, whose
    class method `open` takes the rest.

    Raises:
        UnknownNameError: There is no such executor.
        OptionError: It does not take that place.
        MissingExtraError: Its package is not installed.
    """
    name, _, place = text.partition(":")
    if not name:
        raise UsageError(f"--on {text!r}: expected a name such as local:2 or ray://head:10001")
    made: Executor = registry.load(_GROUP, name).open(place)
    return made
