"""Commands of `irc` for jobs, from values that a form or an agent gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from irtools.errors import UsageError
from irtools.files import RootFolder

__all__ = ["JobRequest", "build_request", "optimize_request"]

Verb = Literal["optimize", "tune"]

_PATHS = ("calibrate", "evaluate", "holdout", "tokenizer")
_TEXTS = (
    "target",
    "max-drop",
    "min-metric",
    "speedup",
    "max-latency",
    "max-size",
    "max-memory",
    "metric",
    "batch",
    "seq",
    "samples",
    "seed",
    "effort",
    "bench",
)
_TUNING = ("trials", "objective")
_SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class JobRequest:
    """What a job is to do.

    Attributes:
        title: For people.
        args: What follows `irc`.
        output: What it writes, relative to the root; empty for nothing.
    """

    title: str
    args: tuple[str, ...]
    output: str = ""


def optimize_request(
    root: RootFolder,
    source: str,
    output: str,
    passes: str = "",
    options: Mapping[str, str] | None = None,
    *,
    verb: Verb = "optimize",
    force: bool = False,
) -> JobRequest:
    """Return the job that optimizes or tunes a model below a folder.

    The folder that a file is to be written into is made.

    Args:
        root: The only folder that is read and written.
        source: The model, relative to it.
        output: `NAME.onnx`, or the name of a new folder. The report is written next to the file
            or into the folder.
        passes: Pipeline text; empty: found for the goals.
        options: Further options of the verb without `--` (`evaluate`, `max-drop`); empty values
            count as not given.
        force: Replace what exists.

    Raises:
        UsageError: A path outside the folder, or an option that is not offered here.
        FileError: The model or data do not exist.
    """
    given = {name: value for name, value in (options or {}).items() if value}
    known = (*_PATHS, *_TEXTS, *(_TUNING if verb == "tune" else ()))
    for name in given:
        if name not in known:
            raise UsageError(f"{name} is not an option here: expected {', '.join(known)}")
    model, place = root.existing(source), root.new(output)
    args = [verb, str(model), "--output", str(place)]
    if passes:
        if verb == "tune":
            raise UsageError("tune finds pipelines by itself: leave the passes out")
        args += ["--passes", passes]
    args += [word for name in known if name in given for word in _words(root, name, given[name])]
    if place.suffix == ".onnx":
        args += ["--json", str(place.with_suffix(".report.json"))]
    place.parent.mkdir(parents=True, exist_ok=True)
    title = f"{verb} {source}" + (f" by {passes}" if passes else "")
    return JobRequest(title, (*args, *(["--force"] if force else [])), root.name_of(place))


def build_request(root: RootFolder, config: str) -> JobRequest:
    """Return the job that builds what an `irc.toml` below a folder describes.

    Raises:
        UsageError: It is outside the folder.
        FileError: It does not exist.
    """
    return JobRequest(f"build {config}", ("build", "--config", str(root.existing(config))))


def _words(root: RootFolder, name: str, value: str) -> Iterator[str]:
    values: Sequence[str] = value.split(",") if name == "objective" else (value,)
    for one in values:
        is_path = name in _PATHS and one != _SYNTHETIC
        yield f"--{name}={root.existing(one) if is_path else one}"
