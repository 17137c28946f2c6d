"""What agents can do: short work at once, long work as jobs."""

from __future__ import annotations

import json
from typing import Any, Literal

from irtools.background import Job, Jobs, optimize_request, run_irc
from irtools.errors import UnsupportedError
from irtools.files import RootFolder
from irtools.passmanager import described, pass_document
from irtools.plugins import registry

__all__ = ["Tools"]

_SHOWN_LINES = 20
_PASSES = "irtools.passes"


class Tools:
    """The tools over one folder, the only one that they read and write.

    Models are loaded in child processes, never in this one. Docstrings are what agents read.
    """

    def __init__(self, root: RootFolder, jobs: Jobs) -> None:
        self._root = root
        self._jobs = jobs

    def inspect(self, model: str, profile: bool = False) -> dict[str, Any]:
        """Say what a model consists of: operators, sizes, inputs, precision, history.

        Args:
            model: An ONNX file or a checkpoint folder.
            profile: Also run it and give the time of each node.
        """
        path = str(self._root.existing(model))
        return self._figures("inspect", path, *(["--profile"] if profile else []))

    def passes(self, name: str = "") -> dict[str, Any]:
        """List the passes that pipelines are made of, or explain one with its options.

        Args:
            name: A pass; empty: all of them, a line each.
        """
        if name:
            return _pass(name)
        names = registry.names(_PASSES)
        return {
            "presets": dict(registry.PRESETS),
            "passes": {one: str(_pass(one)["summary"]) for one in names},
        }

    def optimize(
        self,
        model: str,
        output: str,
        passes: str = "",
        options: dict[str, str] | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Start to make a model smaller and faster; answers with a job at once.

        Args:
            model: An ONNX file or a checkpoint folder.
            output: NAME.onnx, with its report in NAME.report.json, or a new folder, with its
                report in report.json.
            passes: Pipeline such as `cleanup,fuse,int8:bits=8`; empty: found for the goals.
            options: target, calibrate, evaluate, holdout, tokenizer, max-drop, min-metric, speedup,
                max-latency, max-size, max-memory, metric, batch, seq, samples, seed, effort
                (quick, normal, thorough), bench (each, end, last, none).
            force: Replace what exists.
        """
        request = optimize_request(self._root, model, output, passes, options, force=force)
        return self._jobs.start(request).to_dict()

    def job(self, job: int, wait_seconds: float = 0.0) -> dict[str, Any]:
        """Say how far a job is, with the last lines that it printed.

        Args:
            job: The number that `optimize` gave.
            wait_seconds: Answer when it has ended, and after so many seconds at the latest (60).
        """
        found = self._jobs.find(job)
        found.wait(min(max(wait_seconds, 0.0), 60.0))
        return _state(found)

    def cancel(self, job: int) -> dict[str, Any]:
        """End a job. It leaves no output; what existed before is as it was.

        Args:
            job: The number that `optimize` gave.
        """
        found = self._jobs.find(job)
        found.cancel()
        return _state(found)

    def compare(
        self, first: str, second: str, data: str = "", layers: bool = False
    ) -> dict[str, Any]:
        """Compare the numbers of two models on the same inputs: SQNR and agreement by output.

        Args:
            first: The original.
            second: The model that is to do the same.
            data: Samples; empty: drawn inputs.
            layers: Also inner tensors of the same name.
        """
        paths = [str(self._root.existing(name)) for name in (first, second)]
        more = [f"--data={self._root.existing(data)}"] if data else []
        return self._figures("compare", *paths, *more, *(["--layers"] if layers else []))

    def report(self, path: str, form: Literal["markdown", "json", "table"] = "markdown") -> str:
        """Return the report of a finished job as text.

        Args:
            path: NAME.report.json, or report.json of a folder.
            form: `markdown` for people, `json` for all figures, `table` for a terminal.
        """
        found = self._root.existing(path)
        return self._run("report", str(found), "--format", form)

    def _figures(self, verb: str, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._run(verb, *args, "--json", "-"))
        return found

    def _run(self, *args: str) -> str:
        done = run_irc(args, self._root.path)
        # `irc compare` ends with 5 where the models differ, which is an answer.
        if done.code != 0 and not (args[0] == "compare" and done.out.strip()):
            raise UnsupportedError(done.error.removeprefix("irc: "))
        return done.out


def _pass(name: str) -> dict[str, Any]:
    known = described(_PASSES, name) if name in registry.names(_PASSES) else None
    return dict(known or pass_document(name, registry.load(_PASSES, name)))


def _state(job: Job) -> dict[str, Any]:
    lines, _ = job.lines()
    return job.to_dict() | {"lines": lines[-_SHOWN_LINES:]}
