"""The page of a release: all its models, with links to theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from irtools.builds.records import BuildRecord
from irtools.report.document import Report
from irtools.report.page import Listed, many_page

__all__ = ["release_page"]


def release_page(
    name: str, builds: Sequence[BuildRecord], folder: Path, files: Sequence[tuple[str, str]]
) -> str:
    """Return the page.

    Args:
        name: Of the release.
        builds: What it holds.
        folder: Where they lie, each with its report.
        files: Further files of the release, each with what it is.

    Raises:
        DataError: A report holds numbers that no run has.
    """
    return many_page(name, _listed(builds, folder), files)


def _listed(builds: Sequence[BuildRecord], folder: Path) -> list[Listed]:
    """Return the builds with their reports and the links to their pages."""
    texts = ((folder / one.name / "report.json").read_text(encoding="utf-8") for one in builds)
    return [
        Listed(one.name, Report.from_json(text), f"{quote(one.name)}/report.html")
        for one, text in zip(builds, texts, strict=True)
    ]
