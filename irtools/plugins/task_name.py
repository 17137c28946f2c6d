"""Names of tasks of lm-evaluation-harness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from irtools.errors import UnknownNameError

__all__ = ["TaskName", "is_task"]

_PREFIX = "lm-eval:"


@dataclass(frozen=True)
class TaskName:
    """What `lm-eval:PATH[:METRIC]` names.

    Attributes:
        path: Of the task.
        metric: One of its metrics; None: its first.
    """

    path: str
    metric: str | None = None

    @classmethod
    def parse(cls, text: str) -> TaskName:
        """Read `lm-eval:PATH[:METRIC]`.

        Raises:
            UnknownNameError: It names no task.
        """
        path, _, metric = text.removeprefix(_PREFIX).partition(":")
        if not path:
            raise UnknownNameError(
                f"{text!r} names no task: write {_PREFIX}TASK, the path of a task's YAML"
            )
        return cls(path, metric or None)

    def located(self, folder: Path) -> TaskName:
        """Return it with a path from a folder."""
        return replace(self, path=str(folder / self.path))

    def __str__(self) -> str:
        return f"{_PREFIX}{self.path}"

    @property
    def text(self) -> str:
        """What it was parsed of."""
        return f"{self}:{self.metric}" if self.metric else str(self)


def is_task(text: str) -> bool:
    """Whether a text names a task of the harness."""
    return text.startswith(_PREFIX)
