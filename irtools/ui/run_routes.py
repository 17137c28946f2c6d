"""Pages about runs: the list, one report, two against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from irtools.errors import UsageError
from irtools.report.document import Report
from irtools.report.page import bench_page, comparison_page, report_page
from irtools.ui.finding import bench_of, find_runs, is_bench, report_of
from irtools.ui.pages import fragment, page
from irtools.ui.state import UiState

__all__ = ["State", "router", "state_of"]

router = APIRouter()

_FRAMED = "sandbox allow-scripts; frame-ancestors 'self'"


def state_of(request: Request) -> UiState:
    """Return what the server holds."""
    found: UiState = request.app.state.ui
    return found


State = Annotated[UiState, Depends(state_of)]
Paths = Annotated[Sequence[str], Query()]


@router.get("/")
def runs(request: Request, state: State, words: str = "") -> Response:
    """List the runs that match a filter; for a browser without a token, ask for it."""
    if not request.scope["admitted"]:
        return page("login.html", "")
    found = [run for run in find_runs(state.root) if run.matches(words)]
    values: dict[str, Any] = {"runs": found, "words": words, "folder": str(state.root.path)}
    if "hx-request" in request.headers:
        return fragment("run_rows.html", **values)
    return page("runs.html", "/", **values)


@router.get("/report")
def report(state: State, path: str) -> Response:
    """Show a report or a benchmark in a frame."""
    file = state.root.existing(path)
    if is_bench(file):
        bench_of(file)  # What is wrong with it is said here, not in the frame.
        return page("report.html", "/", name=path, pipelines=[])
    pipelines = _pipelines(report_of(file))
    return page("report.html", "/", name=path, pipelines=pipelines)


@router.get("/report/page")
def report_alone(state: State, path: str) -> Response:
    """Return a report or a benchmark as the page that `irc report` writes."""
    file = state.root.existing(path)
    if is_bench(file):
        return _framed(bench_page(bench_of(file), path))
    return _framed(report_page(report_of(file)))


@router.get("/compare")
def compare(state: State, path: Paths = ()) -> Response:
    """Show two reports against each other in a frame."""
    names = _two(path)
    for name in names:
        report_of(state.root.existing(name))
    return page("compare.html", "/", names=names)


@router.get("/compare/page")
def compare_alone(state: State, path: Paths = ()) -> Response:
    """Return two reports as the page that `irc report A B` writes."""
    names = _two(path)
    first, second = (report_of(state.root.existing(name)) for name in names)
    return _framed(comparison_page(first, second, names))


def _framed(text: str) -> Response:
    """Return a page with a policy of its own, without access to this server's cookies."""
    return HTMLResponse(text, headers={"content-security-policy": _FRAMED})


def _two(path: Sequence[str]) -> tuple[str, str]:
    if len(path) != 2:
        raise UsageError(f"{len(path)} reports are chosen, expected 2")
    return path[0], path[1]


def _pipelines(found: Report) -> list[tuple[str, str]]:
    """Return each pass and the pipeline up to it."""
    texts = [row.text for row in found.rows[1:]]
    return [(text, ",".join(texts[: number + 1])) for number, text in enumerate(texts)]
