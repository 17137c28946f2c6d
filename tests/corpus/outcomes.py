"""Runs pipelines over models of the corpus as `irc optimize --no-bench` does without data."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx

from irtools import IrtoolsError, optimize
from irtools.report.document import Report

from .corpus import CORPUS
from .models import CorpusModel
from .writer import Built

__all__ = ["Outcome", "built", "outcome"]

_BY_NAME = {model.name: model for model in CORPUS}


@dataclass(frozen=True)
class Outcome:
    """What a run left: a model and its report, or an error.

    Attributes:
        before: Size of the file that went in.
        after: Size of the file that came out.
    """

    before: int
    after: int = 0
    model: onnx.ModelProto | None = None
    report: Report | None = None
    error: IrtoolsError | None = None

    @property
    def ratio(self) -> float:
        """How many times smaller the result is."""
        return self.before / self.after

    @property
    def said(self) -> str:
        """Everything that is said about the passes."""
        assert self.report is not None
        notes = [f"{row.text}: {note}" for row in self.report.rows for note in row.notes]
        return "\n".join([*notes, *(verdict.text for verdict in self.report.verdicts)])


@cache
def built(name: str) -> Built:
    return _BY_NAME[name].make()


@cache
def outcome(name: str, pipeline: str, *, check: bool) -> Outcome:
    """Run a pipeline over a model of the corpus; the answer is kept, as several tests read it."""
    return run(_BY_NAME[name], pipeline, check=check)


def run(model: CorpusModel, pipeline: str, *, check: bool) -> Outcome:
    """Write the model to a file, optimize it, write the result and read that back."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder, "model.onnx"), Path(folder, "result.onnx")
        onnx.save(model.make().proto, source)
        before = source.stat().st_size
        try:
            found = optimize(source, pipeline, bench=None, check=check, threads=1, reproducer=False)
        except IrtoolsError as error:
            return Outcome(before, error=error)
        found.written.save(result)
        return Outcome(before, result.stat().st_size, onnx.load(result), found.report)
