"""Who watches builds; nothing of it changes what is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irtools.plugins import NullProgress, Progress

if TYPE_CHECKING:
    from irtools.report.entries import Row, TriedEntry

__all__ = ["Watch"]


@dataclass(frozen=True)
class Watch:
    """Who watches builds.

    Attributes:
        say: Told what happens, in one line each.
        progress: Where to show how far long steps are.
        on_row: Called with each row of a report as soon as its pass is done.
        on_tried: Called with each pipeline that a search tried.
    """

    say: Callable[[str], None] = lambda line: None
    progress: Progress = field(default_factory=NullProgress)
    on_row: Callable[[Row], None] | None = None
    on_tried: Callable[[TriedEntry], None] | None = None
