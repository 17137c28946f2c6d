"""The tables of docs/, made of the results in docs/results/.

A page says where a table goes and what makes it:

    <!-- tasks.table minilm-r8 -->
    (the lines of the view `table` of `benchmarks/tasks.py` for docs/results/minilm-r8.json)
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.catalogue import view
from benchmarks.recording import DOCS, read_result

__all__ = ["PAGES", "refreshed", "sources", "stale_pages"]

PAGES = tuple(
    DOCS / f"{name}.md"
    for name in (
        "benchmarks",
        "builds",
        "fusion",
        "goals",
        "guide",
        "models",
        "other-quantizers",
        "report",
        "rotation",
        "search-on-many-machines",
        "smoothing",
        "ui",
        "why",
    )
)
_TABLE = re.compile(
    r"<!-- (?P<module>\w+)\.(?P<view>\w+) (?P<result>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL
)


def sources(text: str) -> Iterator[str]:
    """Yield the results that the tables of a page are made of."""
    for found in _TABLE.finditer(text):
        yield found["result"]


def refreshed(text: str) -> str:
    """Return a page with every table made again.

    Raises:
        KeyError, FileNotFoundError: There is no such view or result.
    """
    return _TABLE.sub(_table, text)


def stale_pages() -> list[Path]:
    """Return the pages whose tables are not those of the results."""
    texts = ((path, path.read_text(encoding="utf-8")) for path in PAGES)
    return [path for path, text in texts if refreshed(text) != text]


def _table(found: re.Match[str]) -> str:
    begin = f"<!-- {found['module']}.{found['view']} {found['result']} -->"
    lines = view(found["module"], found["view"])(read_result(found["result"]))
    return "\n".join((begin, *lines, "<!-- end -->"))
