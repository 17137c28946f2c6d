"""The page of a release: all its models, with links to theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from irtools.report.document import Report
from irtools.report.page import Listed, many_page

__all__ = ["release_page"]


def release_page(name: str, reports: Mapping[str, Report], files: Sequence[tuple[str, str]]) -> str:
    """Return the page.

    Args:
        name: Of the release.
        reports: Of what it holds, by the name of the build, which is its folder.
        files: Further files of the release, each with what it is.

    Raises:
        DataError: A report holds numbers that no run has.
    """
    found = [
        Listed(build, report, f"{quote(build)}/report.html") for build, report in reports.items()
    ]
    return many_page(name, found, files)
