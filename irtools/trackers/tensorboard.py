"""TensorBoard: a folder of event files."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from irtools.errors import FileError, MissingExtraError
from irtools.report.cells import Cells
from irtools.report.markdown import table
from irtools.trackers.base import OpenRun, RunEnd, RunStart, TrackedRow

__all__ = ["TensorBoardTracker"]

_FOLDER = "runs"


class TensorBoardTracker:
    """Writes runs to a folder of their own each.

    Args:
        place: Folder of all runs; None: `runs`.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self, place: str | None) -> None:
        self._folder = Path(place or _FOLDER)

    def check(self) -> None:
        if find_spec("tensorboard") is None:
            raise MissingExtraError("tracking by TensorBoard", "tensorboard")
        if self._folder.exists() and not self._folder.is_dir():
            raise FileError(f"{self._folder} is a file, expected a folder for TensorBoard")

    def start(self, run: RunStart) -> OpenRun:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        name = re.sub(r"[^\w.-]+", "-", run.name)
        # TensorBoard shows the folders of a folder as its parts.
        within = self._folder if run.parent is None else Path(run.parent.place)
        return _TensorBoardRun(within / f"{name}-{stamp}", run)


class _TensorBoardRun:
    """A folder of event files: figures have their own names, texts begin with `text/`.

    A name is either a figure's or a text's, and what the end adds has names that nothing before it
    has: TensorBoard shows one kind of a name, and the last of its texts.

    Args:
        folder: Is made.
        run: What it begins with.
    """

    def __init__(self, folder: Path, run: RunStart) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.place = str(folder)
        self._folder = folder
        self._parameters = dict(run.parameters)
        self._named: set[int] = set()
        self._writer = EventFileWriter(self.place)
        for name, value in run.tags.items():
            self.tag(name, value)

    def row(self, row: TrackedRow) -> None:
        self._write(_scalars(row.metrics), row.step)
        if row.step not in self._named:
            self._named.add(row.step)
            self._write(_text("pass", row.text), row.step)

    def tag(self, name: str, value: str) -> None:
        self._write(_text(name, value))

    def end(self, end: RunEnd) -> None:
        from tensorboard.plugins.hparams.api_pb2 import Status
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        failed = bool(end.failure)
        self._write(hparams_pb({**self._parameters, **end.parameters}))
        self._write(_session_end(Status.STATUS_FAILURE if failed else Status.STATUS_SUCCESS))
        if failed:
            self.tag("failure", end.failure)
        if end.tags:
            self.tag("run", _table(end.tags))
        if "report.md" in end.files:
            self.tag("report", end.files["report.md"])
        self._writer.close()
        for file, text in end.files.items():
            (self._folder / file).write_text(text, encoding="utf-8")

    def _write(self, summary: Any, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        self._writer.flush()


def _session_end(status: Any) -> Any:
    """Return what the page of parameters reads how a run ended from."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    content = plugin_data_pb2.HParamsPluginData(
        version=metadata.PLUGIN_DATA_VERSION,
        session_end_info=plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time()),
    )
    plugin = SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
    )
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG,
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=metadata.NULL_TENSOR,
    )
    return Summary(value=[value])


def _scalars(metrics: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    return Summary(value=values)


def _table(tags: Mapping[str, str]) -> str:
    """Return Markdown, which TensorBoard renders."""
    return "\n".join(table(Cells(("what", "value"), tuple(tags.items()))))


def _text(name: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()])
    metadata = create_summary_metadata(display_name=name, description="")
    return Summary(value=[Summary.Value(tag=f"text/{name}", tensor=tensor, metadata=metadata)])
