"""The page of one report, and the part of it that a notebook shows."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

from irtools.pages.blocks import Head, HeadLine, Section
from irtools.pages.engine import fragment, section_page
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
_LARGEST_PAGE = 1_450_000
"""Bytes of a page that also holds the document, which is left out of a larger one."""


@refuse_impossible()
def report_page(report: Report) -> str:
    """Return a page that needs no other file, no network, and no script for what it says.

    Raises:
        DataError: The report holds numbers that no run has.
    """
    target = report.target
    passes = report.pipeline or "no passes"
    place = f"{target.name} ({target.runtime}, isa {target.isa})"
    head = Head(
        title=f"{passes} on {report.model.source}",
        heading=report.model.source,
        lines=(HeadLine(code=passes), HeadLine(", ".join((*heading_of(report)[1:], place)))),
        footer=f"Made by irtools from a report of {report.created}.",
        download=_base64(report.to_json()),
    )
    sections, scripts = list(sections_of(report)), (asset("picker.js", _PACKAGE),)
    if len(head.download) < _LARGEST_PAGE:
        made = section_page(head, sections, scripts=scripts)
        if len(made.encode()) <= _LARGEST_PAGE:
            return made
    return section_page(replace(head, download=""), sections, scripts=scripts)


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


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
