"""Trials in a worker: sessions are opened there, for the targets that it is asked about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from irtools.driver.job import Job, as_model
from irtools.driver.session import open_session
from irtools.driver.settings import Settings
from irtools.executors import unpacked
from irtools.files import scratch_folder
from irtools.measure.cache import default_cache
from irtools.passmanager import Pipeline
from irtools.search.places import SeveralTrials
from irtools.search.trials import Question, Trials, Tried, untimed

__all__ = ["TrialService"]


class TrialService:
    """Trials in a worker, which reads the model and the data itself.

    Args:
        payload: `model`, `calibration`, `evaluation`, `holdout` as `packed` has them, `settings` by
            the texts of the targets, `objectives`, and `cache`: a folder that workers see, empty
            for that of their machine, None for none.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(scratch_folder("worker"))
        given = {
            name: unpacked(payload[name], folder / name)
            for name in ("model", "calibration", "evaluation", "holdout")
        }
        cache = payload["cache"]
        self._cache = default_cache() if cache == "" else cache and Path(cache)
        self._given = given
        self._objectives = tuple(payload["objectives"])
        settings: Mapping[str, Settings] = payload["settings"]
        opened = _Opened({target: self._opener(one) for target, one in settings.items()})
        self._several = SeveralTrials(opened)

    def _opener(self, settings: Settings) -> Callable[[], Trials]:
        # Times of this machine would not be those of the target; the scheduler asks for none here.
        if not settings.find_target().runs_here:
            settings = untimed(settings)

        def open_() -> Trials:
            data = {name: one for name, one in self._given.items() if name != "model"}
            model = as_model(self._given["model"], settings.loading)
            job = Job.read(model, Pipeline(), settings, **data, cache=self._cache)
            session = self._stack.enter_context(open_session(job, searching=True))
            return Trials(session, self._objectives)

        return open_

    def answer(self, question: Question) -> Tried | Mapping[str, float]:
        """Answer a question about a pipeline."""
        return self._several.answer(question)

    def close(self) -> None:
        """Remove what it has on disk."""
        self._stack.close()


class _Opened(Mapping[str, Trials]):
    """Trials by target, each opened when it is asked for."""

    def __init__(self, openers: Mapping[str, Callable[[], Trials]]) -> None:
        self._openers = openers
        self._trials: dict[str, Trials] = {}

    def __getitem__(self, target: str) -> Trials:
        if target not in self._trials:
            self._trials[target] = self._openers[target]()
        return self._trials[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self._openers)

    def __len__(self) -> int:
        return len(self._openers)
