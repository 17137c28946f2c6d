"""The pages of jobs: a form, the list, and one job as it runs."""

from __future__ import annotations

from typing import Any, Literal, cast

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sse_starlette import EventSourceResponse

from irtools.background import Job, JobRequest, build_request, optimize_request
from irtools.errors import UsageError
from irtools.files import RootFolder
from irtools.passmanager import Pipeline
from irtools.ui.bodies import form_pairs
from irtools.ui.events import follow
from irtools.ui.forms import pass_form, pass_names, pipeline_of
from irtools.ui.pages import fragment, page
from irtools.ui.run_routes import State
from irtools.ui.targets import target_names

__all__ = ["router"]

router = APIRouter()

_OPTIONS = (
    "target",
    "calibrate",
    "evaluate",
    "max-drop",
    "speedup",
    "max-latency",
    "max-size",
    "metric",
    "batch",
    "seq",
    "effort",
    "trials",
    "objective",
)


@router.get("/jobs")
def show(state: State, source: str = "", passes: str = "") -> Response:
    """Show the jobs and the form for a new one, filled with a model and its passes."""
    chosen = [pass_form(one.name) for one in Pipeline.parse(passes)] if passes else []
    return page(
        "jobs.html",
        "/jobs",
        jobs=[job.to_dict() for job in state.jobs.all()],
        models=state.models(),
        configs=_configs(state.root),
        targets=target_names(),
        passes=pass_names(),
        source=source,
        chosen=chosen,
    )


@router.get("/jobs/pass")
def add_pass(name: str) -> Response:
    """Return the fields of a pass, for the form."""
    return fragment("pass.html", form=pass_form(name))


@router.get("/jobs/list")
def rows(state: State) -> Response:
    """Return the list alone, which the page asks for every two seconds."""
    return fragment("job_rows.html", jobs=[job.to_dict() for job in state.jobs.all()])


@router.post("/jobs")
async def start(request: Request, state: State) -> Response:
    """Start what the form says, and show it."""
    job = state.jobs.start(_request(state.root, await form_pairs(request)))
    return RedirectResponse(f"/jobs/{job.number}", status_code=303)


@router.get("/jobs/{number}")
def one(number: int, state: State) -> Response:
    """Show a job as it runs."""
    return page("job.html", "/jobs", job=state.jobs.find(number).to_dict())


@router.post("/jobs/{number}/cancel")
async def cancel(number: int, state: State) -> Response:
    """Cancel a job."""
    state.jobs.find(number).cancel()
    return RedirectResponse(f"/jobs/{number}", status_code=303)


@router.get("/jobs/{number}/events")
async def events(number: int, state: State) -> EventSourceResponse:
    """Send the lines and steps of a job."""
    job = state.jobs.find(number)
    return follow(lambda start: _news(job, start), lambda: job.to_dict() if job.ended else None)


def _news(job: Job, start: int) -> tuple[list[Any], int]:
    lines, end = job.lines(start)
    return ([{"lines": lines, "job": job.to_dict()}] if lines or start == 0 else []), end


def _configs(root: RootFolder) -> list[str]:
    found = sorted(path for path in root.path.glob("**/irc.toml") if path.is_file())
    return [root.name_of(path) for path in found[:100]]


def _request(root: RootFolder, pairs: list[tuple[str, str]]) -> JobRequest:
    given = dict(pairs)
    kind = given.get("kind", "optimize")
    if kind == "build":
        return build_request(root, given.get("config", ""))
    if kind not in ("optimize", "tune"):
        raise UsageError(f"{kind} is not a job: expected optimize, tune or build")
    options = {name: given[name].strip() for name in _OPTIONS if given.get(name, "").strip()}
    passes = pipeline_of(pairs)
    if kind == "optimize":
        options = {k: v for k, v in options.items() if k not in ("trials", "objective")}
    return optimize_request(
        root,
        given.get("source", ""),
        given.get("output", "").strip(),
        passes if kind == "optimize" else "",
        options,
        verb=cast(Literal["optimize", "tune"], kind),
        force="force" in given,
    )
