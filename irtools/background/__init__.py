"""Background jobs: `irc` in child processes that are watched, can be cancelled and die with us."""

from __future__ import annotations

from irtools.background.commands import JobRequest, build_request, optimize_request
from irtools.background.job import Job, State
from irtools.background.queue import Jobs
from irtools.background.run import Finished, run_irc

__all__ = [
    "Finished",
    "Job",
    "JobRequest",
    "Jobs",
    "State",
    "build_request",
    "optimize_request",
    "run_irc",
]
