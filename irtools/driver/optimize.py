"""The main job with a pipeline: passes over a model, measured and checked one by one."""

from __future__ import annotations

import time

from irtools.driver.job import Job
from irtools.driver.outcome import check_kept, outcomes
from irtools.driver.result import OptimizeResult, make_result
from irtools.driver.session import open_session

__all__ = ["run_job"]


def run_job(job: Job, started: float | None = None) -> OptimizeResult:
    """Run the pipeline of a job over a copy of its model.

    Args:
        job: What to run.
        started: When reading the job began, on the clock of `time.monotonic`; None: now.

    Raises:
        BudgetError: A goal is not kept.
        IrtoolsError: As `irtools.optimize`.
    """
    began = time.monotonic() if started is None else started
    with open_session(job) as session:
        steps = session.run(job.pipeline)
        found = outcomes(job.settings.wanted, session.quoted(steps))
        check_kept(found)
        return make_result(session, steps, began, found)
