"""The folder of a training: what is half done, what is done, and whose it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from irtools.errors import FileError, UsageError
from irtools.files import json_text, write_text
from irtools.frontends.students.training.loop import Run
from irtools.report.plain import plain_data

__all__ = ["Done", "TrainingFolder", "processes"]

_JOB = "job.json"
_DONE = "training.json"


@dataclass(frozen=True)
class Done:
    """A training that is finished.

    Attributes:
        folder: The network as the trainer wrote it.
    """

    folder: Path
    steps: int
    seconds: float
    losses: dict[str, float]


def processes() -> PartialState:
    """Return what knows the processes of this run.

    It is asked before the trainer is made, so it must find the same ones as the trainer will:
    without saying that there are CPUs alone, each process would take itself for the only one.
    """
    wanted = parse_flag_from_env("ACCELERATE_USE_CPU")
    return PartialState(cpu=wanted or not torch.accelerator.is_available())


class TrainingFolder:
    """A folder with a part per training.

    Args:
        folder: Made where it is missing.
        job: What decides the outcome; a resumed training must be of the same job.
        resume: Go on with what is there.

    Raises:
        UsageError: There is a training and `resume` is not wanted, or one of another job.
        FileError: The folder cannot be made.
    """

    def __init__(self, folder: Path, job: object, *, resume: bool) -> None:
        self.folder = folder
        self.state = processes()
        if self.state.is_main_process:
            self._claim(_digest(job), resume)
        self.state.wait_for_everyone()

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that reports."""
        return bool(self.state.is_main_process)

    def _claim(self, digest: str, resume: bool) -> None:
        note = self.folder / _JOB
        if note.exists():
            if not resume:
                raise UsageError(
                    f"{self.folder} holds an interrupted training: --resume goes on with it; "
                    "remove it to begin anew"
                )
            if json.loads(note.read_text(encoding="utf-8")).get("job") != digest:
                raise UsageError(
                    f"{self.folder} holds a training of another teacher, student, data or budget; "
                    "give the same as then, or remove it to begin anew"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if any(self.folder.iterdir()):
                raise UsageError(
                    f"{self.folder} is not empty: checkpoints need a folder of their own"
                )
            write_text(note, json_text({"job": digest}))
        except OSError as error:
            raise FileError(f"cannot write to {self.folder}: {error.strerror}") from error

    def run(self, name: str, train: Callable[[Path, Path], Run]) -> Done:
        """Train unless that is done already.

        Args:
            train: Takes the folder for checkpoints and the one for the network.
        """
        place = self.folder / name
        note = place / _DONE
        if not note.exists():
            if self.is_main:
                shutil.rmtree(place / "trained", ignore_errors=True)
            self.state.wait_for_everyone()
            made = train(place / "checkpoints", place / "trained")
            self.state.wait_for_everyone()
            if self.is_main:
                _note(note, made)
            self.state.wait_for_everyone()
        told = json.loads(note.read_text(encoding="utf-8"))
        return Done(place / "trained", told["steps"], told["seconds"], told["losses"])


def _note(note: Path, made: Run) -> None:
    told = {"steps": made.steps, "seconds": made.seconds, "losses": dict(made.losses)}
    write_text(note, json_text(told, any_number=True))


def _digest(job: object) -> str:
    return hashlib.sha256(json.dumps(plain_data(job), sort_keys=True).encode()).hexdigest()
