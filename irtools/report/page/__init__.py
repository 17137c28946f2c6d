"""A report as a page: what a reader asks, section by section, of one run or of two."""

from __future__ import annotations

from irtools.report.page.compare import comparison_page
from irtools.report.page.make import report_fragment, report_page

__all__ = ["comparison_page", "report_fragment", "report_page"]
