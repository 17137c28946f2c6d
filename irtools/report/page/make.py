"""The page of one report, and the part of it that a notebook shows."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from irtools.pages.blocks import Section
from irtools.pages.engine import fragment, page
from irtools.pages.policy import asset
from irtools.report.document import Report
from irtools.report.impossible import refuse_impossible
from irtools.report.page.accuracy import accuracy
from irtools.report.page.machine import machine
from irtools.report.page.modules import modules
from irtools.report.page.passes import passes
from irtools.report.page.samples import samples
from irtools.report.page.speed import speed
from irtools.report.page.time import time
from irtools.report.page.tradeoff import tradeoff
from irtools.report.page.verdict import verdict
from irtools.report.table import heading_of

__all__ = ["report_fragment", "report_page", "sections_of"]

_PACKAGE = "irtools.report"
_LARGEST_DOWNLOAD = 700_000
"""Bytes of a document that a page also holds, so that the page stays below 1.5 MB."""


@refuse_impossible()
def report_page(report: Report) -> str:
    """Return a page that needs no other file, no network, and no script for what it says.

    Raises:
        DataError: The report holds numbers that no run has.
    """
    document = report.to_json()
    return page(
        "report.html",
        _PACKAGE,
        scripts=(asset("picker.js", _PACKAGE),),
        heading=heading_of(report),
        report=report,
        sections=list(sections_of(report)),
        download=_data_url(document) if len(document) <= _LARGEST_DOWNLOAD else "",
    )


@refuse_impossible()
def report_fragment(report: Report) -> str:
    """Return verdict, passes and trade-off of a report for a notebook: no script, no policy.

    Raises:
        DataError: The report holds numbers that no run has.
    """
    shown = ("verdict", "passes", "tradeoff")
    return fragment(
        "fragment.html",
        _PACKAGE,
        heading=heading_of(report),
        sections=[one for one in sections_of(report) if one.key in shown],
    )


def sections_of(report: Report) -> Iterator[Section]:
    """Yield all sections; one without figures says what would fill it."""
    made = (verdict, passes, tradeoff, speed, time, accuracy, samples, modules, machine)
    yield from (make(report) for make in made)


def _data_url(text: str) -> str:
    return f"data:application/json;base64,{base64.b64encode(text.encode()).decode()}"
