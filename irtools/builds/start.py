"""The `irc.toml` to start from."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from irtools.builds.matrix import is_function
from irtools.builds.tables import AUTO
from irtools.errors import FileError
from irtools.plugins import is_task
from irtools.sources import find_frontend

__all__ = ["Start", "starting_config"]


@dataclass(frozen=True)
class Start:
    """What is known when a build file is written.

    Attributes:
        folder: That `irc.toml` will be in: paths in it are relative to it.
        calibrate: Data, or None; likewise `evaluate`.
    """

    source: str
    folder: Path
    pipeline: str = "O3"
    target: str = "ort-cpu"
    calibrate: str | None = None
    evaluate: str | None = None
    max_drop: str = "1%"


def starting_config(start: Start) -> str:
    """Return a build file for one model, with the lines that most will want next.

    Raises:
        FileError: The source or data does not exist.
        ModelError: It is not a source that a frontend reads.
    """
    find_frontend(start.source)
    named = (start.source, start.calibrate, start.evaluate)
    for text in (text for text in named if text is not None):
        known = text == "synthetic" or is_function(text) or is_task(text)
        if not known and not Path(text).exists():
            raise FileError(f"{text} does not exist")
    return "\n".join(_lines(start)) + "\n"


def _lines(start: Start) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(start.source).stem).strip("-._") or "model"
    yield "# What `irc build` makes: every model, through every pipeline, for every target."
    yield "# Keys: docs/builds.md, or `irc build --schema`. Paths are relative to this file."
    yield ""
    yield f"[models.{_quoted_key(name)}]"
    yield f"source = {_text(_relative(start.source, start.folder))}"
    yield ""
    yield "[data.main]"
    for key, value, example in (
        ("calibrate", start.calibrate, "train.jsonl"),
        ("evaluate", start.evaluate, "test.jsonl"),
    ):
        given = None if value is None else _relative(value, start.folder)
        yield f"# {key} = {_text(example)}" if given is None else f"{key} = {_text(given)}"
    yield ""
    yield "[pipelines]"
    yield f"{_quoted_key(_pipeline_name(start.pipeline))} = {_text(start.pipeline)}"
    if start.pipeline != AUTO:
        yield f"# found = {_text(AUTO)}  # the passes that a search finds, which keep the goals"
    yield ""
    yield "[targets]"
    yield f"{_quoted_key(start.target.partition(':')[0])} = {_text(start.target)}"
    yield ""
    yield "# What every result must keep, or nothing is released: docs/goals.md."
    yield "[goals]"
    # Without labelled data a budget would be about inputs that no one asks for.
    yield f"{'' if start.evaluate else '# '}max-drop = {_text(start.max_drop)}"
    yield "# speedup = 2"
    yield '# max-size = "25%"'


def _pipeline_name(pipeline: str) -> str:
    last = pipeline.split(",")[-1].partition(":")[0]
    return last if re.fullmatch(r"[A-Za-z0-9][\w.-]*", last) else "main"


def _relative(text: str, folder: Path) -> str:
    path = Path(text)
    if not path.exists() or path.is_absolute():
        return text
    return Path(os.path.relpath(path, folder)).as_posix()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _quoted_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _text(name)
