"""What a server holds while it runs."""

from __future__ import annotations

from typing import Any

from irtools.background import Jobs
from irtools.errors import LimitError, UnknownNameError, UsageError
from irtools.files import RootFolder, json_text, write_text
from irtools.measure.live import LiveSettings
from irtools.ui.finding import find_models
from irtools.ui.samples import try_sample
from irtools.ui.watched import Watched
from irtools.ui.workers import measure

__all__ = ["UiState"]

_MOST_CONTENDERS = 8
_MOST_TRIALS = 4
_KEPT_TRIALS = 64


class UiState:
    """The folder, the jobs, the live measurement and the trials. `close` ends all children.

    Args:
        root: The only folder that is read and written.
    """

    def __init__(self, root: RootFolder) -> None:
        self.root = root
        self.jobs = Jobs(root.path)
        self.live: Watched | None = None
        self.contenders: tuple[str, ...] = ()
        self._trials: dict[int, Watched] = {}
        self._next_trial = 1

    def start_live(self, chosen: list[str], settings: dict[str, Any]) -> None:
        """Start to measure models (`PATH@TARGET`).

        Raises:
            UsageError: None or too many, a setting out of range, or one is being measured.
            FileError: A model that does not exist.
        """
        if self.live is not None and not self.live.ended:
            raise UsageError("a measurement is running: stop it first")
        contenders = self._contenders(chosen, _MOST_CONTENDERS)
        LiveSettings(**settings)  # Refused here, and not in the child.
        self.contenders = tuple(name for name, _, _ in contenders)
        self.live = Watched(measure, contenders, settings, label="the live measurement")

    def stop_live(self) -> None:
        """End the measurement after the block that runs; what was measured is kept."""
        if self.live is not None:
            self.live.send("stop")

    def bench(self) -> dict[str, Any] | None:
        """Return what was measured, as `irc bench` writes it; None before the end."""
        messages = [] if self.live is None else self.live.since(0)[0]
        return next((m["bench"] for m in reversed(messages) if "bench" in m), None)

    def save_bench(self, name: str) -> str:
        """Write what was measured as NAME.json, and return its path below the folder.

        Raises:
            UsageError: Nothing was measured, or the name exists or is not one.
            FileError: It cannot be written.
        """
        document = self.bench()
        if document is None:
            raise UsageError("there is nothing to save: the measurement has not ended")
        path = self.root.new(name if name.endswith(".json") else f"{name}.json")
        if path.exists():
            raise UsageError(f"{self.root.name_of(path)} exists: give another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json_text(document))
        return self.root.name_of(path)

    def start_trial(self, chosen: str, sample: dict[str, Any]) -> int:
        """Start to run a model (`PATH@TARGET`) on a sample, and return the number of the trial.

        Raises:
            UsageError: It is not one.
            FileError: It does not exist.
            LimitError: Too many run.
        """
        if sum(not one.ended for one in self._trials.values()) >= _MOST_TRIALS:
            raise LimitError(f"{_MOST_TRIALS} trials are running: wait for one of them")
        ((name, path, target),) = self._contenders([chosen], 1)
        number, self._next_trial = self._next_trial, self._next_trial + 1
        self._trials[number] = Watched(try_sample, path, target, sample, label=name)
        for old in [n for n, one in self._trials.items() if one.ended][:-_KEPT_TRIALS]:
            del self._trials[old]
        return number

    def trial(self, number: int) -> Watched:
        """Return a trial.

        Raises:
            UnknownNameError: There is no such trial.
        """
        if number not in self._trials:
            raise UnknownNameError(f"there is no trial {number}")
        return self._trials[number]

    def models(self) -> list[str]:
        """Return the models below the folder."""
        return find_models(self.root)

    def close(self) -> None:
        """End all children and wait until they are gone."""
        self.jobs.close()
        for watched in (*self._trials.values(), *([self.live] if self.live else [])):
            watched.close()

    def _contenders(self, chosen: list[str], most: int) -> list[tuple[str, str, str]]:
        if not 1 <= len(chosen) <= most:
            raise UsageError(f"{len(chosen)} models are chosen, expected 1 to {most}")
        found = []
        for text in dict.fromkeys(chosen):
            name, at, target = text.rpartition("@")
            if not at:
                raise UsageError(f"{text} names no target: expected PATH@TARGET")
            found.append((text, str(self.root.existing(name)), target))
        return found
