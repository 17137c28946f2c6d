"""What is found by name, and what callers may plug in."""

from __future__ import annotations

from irtools.plugins import registry
from irtools.plugins.folder import current_folder, import_named
from irtools.plugins.nearest import suggest
from irtools.plugins.progress import NullProgress, Progress, all_of
from irtools.plugins.task_name import TaskName, is_task

__all__ = [
    "NullProgress",
    "Progress",
    "TaskName",
    "all_of",
    "current_folder",
    "import_named",
    "is_task",
    "registry",
    "suggest",
]
