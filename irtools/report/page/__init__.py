"""A report as a page: what a reader asks, section by section, of one run, two or many."""

from __future__ import annotations

from irtools.report.page.bench import bench_page
from irtools.report.page.compare import comparison_page
from irtools.report.page.make import report_fragment, report_page
from irtools.report.page.many import Listed, many_cells, many_page

__all__ = ["Listed", "bench_page", "comparison_page", "many_cells", "many_page"]
__all__ += ["report_fragment", "report_page"]
