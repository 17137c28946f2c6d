"""Trackers: what a report becomes, and what each of them has of it afterwards."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest

from irtools.driver.settings import Settings
from irtools.errors import BudgetError, FileError, MissingExtraError, UnknownNameError, UsageError
from irtools.instruments.scores import FidelityFigure, FurtherMetrics, MetricFigure
from irtools.instruments.sizes import Size
from irtools.instruments.speed import Latency
from irtools.measure.base import BenchSettings, LatencyResult, Ratio
from irtools.measure.figures import Figure
from irtools.measure.machine import Machine
from irtools.plugins import registry
from irtools.report.document import Report
from irtools.report.entries import ModelEntry, PassEntry, Row, TargetEntry, TriedEntry
from irtools.trackers import RunLog, find_trackers, metrics_of, parameters_of, tags_of


@dataclass(frozen=True)
class Heat(Figure):
    """A figure of another package."""

    key: ClassVar[str] = "heat"

    degrees: tuple[float, ...] = (40.5,)
    hot: bool = True
    name: str = "x"


def _timed(shape: str, phase: Any = None, ratio: Ratio | None = None) -> LatencyResult:
    return LatencyResult(
        "m", shape, 2.0, 2.5, 3.0, 500.0, 10**7, 0.1, 9, (2.0,), ratio, phase=phase
    )


def _row(index: int, text: str, **figures: Any) -> Row:
    size = Size(100 // (index + 1), 90)
    fidelity = FidelityFigure(math.inf if index == 0 else 31.5, 0.0, 0.0, 1.0, 0.0, 0.99, 32)
    return Row(
        index=index,
        text=text,
        modified=index > 0,
        skipped=False,
        counters={},
        changed=0,
        skipped_parts=0,
        notes=(),
        checks=(),
        figures={"size": size, "fidelity": fidelity, **figures},
        seconds={"pass": 1.0, "numerics": 0.5},
    )


@pytest.fixture
def report() -> Report:
    metric = MetricFigure("accuracy", 0.97, 0.96, 0.98, 100)
    times = Latency(
        (_timed("batch=1"), _timed("batch=8", ratio=Ratio(2.0, 1.9, 2.1))),
    )
    rows = (_row(0, "original"), _row(1, "int8", metric=metric, latency=times))
    return Report(
        created="2026-01-01T00:00:00+00:00",
        model=ModelEntry("m.onnx", "0" * 64, 5, 20),
        calibration=None,
        evaluation=None,
        target=TargetEntry("ort-cpu", "vnni", "onnxruntime 1"),
        machine=Machine("CPU", "vnni", 2, 2, "Linux"),
        versions={"irtools": "0"},
        pipeline="int8",
        passes=(PassEntry("int8", "int8:mode=dynamic", "lossy", {"mode": "dynamic"}),),
        settings=Settings(threads=2, goals="max-drop=1%").entry(),
        bench=BenchSettings(),
        rows=rows,
        result=ModelEntry("result", "1" * 64, 4, 20),
        kernels=None,
        verdicts=(),
        seconds=3.0,
    )


def _logged(place: str, name: str, report: Report, told: list[str]) -> None:
    """Write a run as `irc optimize` does: the original has no time before the first pass."""
    first, last = report.rows
    with RunLog(find_trackers([place]), name, told.append, parameters={"pipeline": "int8"}) as log:
        log.row(first)
        log.row(dataclasses.replace(last, seconds={}))
        log.finish(report)


def test_rows_become_steps_with_intervals(report: Report) -> None:
    first, last = map(metrics_of, report.rows)
    # What is infinite is left out: no tracker can draw it.
    assert "sqnr_db" not in first and last["sqnr_db"] == 31.5
    assert (last["file_bytes"], last["seconds"]) == (50, 1.5)
    assert (last["accuracy"], last["accuracy_low"], last["accuracy_high"]) == (0.97, 0.96, 0.98)
    # The first shape has plain names.
    assert last["median_ms"] == last["median_ms batch=8"] == 2.0 and "speedup" not in last
    assert (last["speedup batch=8"], last["speedup_low batch=8"]) == (2.0, 1.9)
    parameters, tags = parameters_of(report), tags_of(report)
    assert parameters["pipeline"] == "int8"
    assert parameters["pass.1"] == "int8:mode=dynamic"
    assert parameters["pass.1.int8.mode"] == "dynamic"
    assert (parameters["threads"], parameters["goals"]) == ("2", "max-drop=1%")
    assert tags["source.sha256"] == "0" * 64 and tags["version.irtools"] == "0"


def test_figures_of_decoders_and_of_other_packages_have_names() -> None:
    times = Latency((_timed("p", "prefill"), _timed("d", "decode"), _timed("e", "decode")))
    further = FurtherMetrics((MetricFigure("f1-macro", 0.5, 0.4, 0.6, 10),))
    found = metrics_of(_row(1, "x", latency=times, heat=Heat(), further_metrics=further))
    names = {name for name in found if name.endswith("ms") or "median" in name}
    assert {"prefill/median_ms", "decode/median_ms", "decode/median_ms e"} <= names
    assert found["heat/degrees/0"] == 40.5 and found["f1-macro_high"] == 0.6
    assert not {"heat/hot", "heat/name", "inherited"} & found.keys()


@pytest.mark.mlflow
def test_mlflow_has_what_the_report_has(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _check_mlflow(report, f"file:{tmp_path}/store")
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.slow
@pytest.mark.mlflow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_database(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _check_mlflow(report, f"sqlite:///{tmp_path}/runs.db")


def _check_mlflow(report: Report, place: str) -> None:
    from mlflow.tracking import MlflowClient

    told: list[str] = []
    _logged(f"mlflow:{place}", "m/int8", report, told)
    [tracker] = find_trackers([f"mlflow:{place}"])
    with (
        pytest.raises(BudgetError),
        RunLog([tracker], "whole", told.append) as whole,
        RunLog([tracker], "fails", told.append, parent=whole) as log,
    ):
        log.row(report.rows[0])
        # What is measured can be seen while the run goes on.
        running = _mlflow_runs(MlflowClient(tracking_uri=place))["fails"]
        assert running.info.status == "RUNNING" and running.data.metrics["file_bytes"] == 100
        log.tried(TriedEntry("int8", "cleanup,int8", "left", "slower"))
        raise BudgetError("max-drop=1% is not kept")
    assert [line.partition(", ")[0] for line in told] == [
        "m/int8: tracked by mlflow",
        "fails: tracked as failed by mlflow",
        "whole: tracked as failed by mlflow",
    ]
    client = MlflowClient(tracking_uri=place)
    runs = _mlflow_runs(client)
    run, failed = runs["m/int8"], runs["fails"]
    assert runs.keys() == {"m/int8", "whole", "fails"} and run.info.status == "FINISHED"
    assert failed.info.status == runs["whole"].info.status == "FAILED"
    assert failed.data.tags["failure"] == "max-drop=1% is not kept"
    assert failed.data.tags["tried.1"] == "cleanup,int8: left: slower"
    assert failed.data.tags["mlflow.parentRunId"] == runs["whole"].info.run_id
    assert run.data.params["pass.1.int8.mode"] == "dynamic" and run.data.tags["cpu"] == "CPU"
    sizes = client.get_metric_history(run.info.run_id, "file_bytes")
    assert [(one.step, one.value) for one in sizes] == [(0, 100), (1, 50)]
    last = report.rows[1]
    # Known only when the run ended.
    assert run.data.metrics["seconds"] == 1.5
    assert run.data.metrics["accuracy_low"] == last.metric.low
    assert run.data.metrics["speedup batch-8"] == last.latency.results[1].speedup.value
    folder = client.download_artifacts(run.info.run_id, "")
    assert Report.from_json((Path(folder) / "report.json").read_text()) == report


def _mlflow_runs(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("irtools")
    return {one.info.run_name: one for one in client.search_runs([experiment.experiment_id])}


@pytest.mark.tensorboard
def test_tensorboard_has_what_the_report_has(report: Report, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    told: list[str] = []
    place = f"tensorboard:{tmp_path}/runs"
    _logged(place, "m/int8", report, told)
    [folder] = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("m-int8-") and told == [
        f"m/int8: tracked by tensorboard, {folder}"
    ]
    found = EventAccumulator(str(folder)).Reload()
    assert [(one.step, one.value) for one in found.Scalars("file_bytes")] == [(0, 100), (1, 50)]
    assert found.Scalars("accuracy_high")[0].value == pytest.approx(0.98)
    [text] = found.Tensors("text/report")
    assert text.tensor_proto.string_val[0].decode() == (folder / "report.md").read_text()
    assert Report.from_json((folder / "report.json").read_text()) == report
    # A name is a figure's or a text's: TensorBoard shows one kind of it.
    assert not {*found.Tags()["scalars"]} & {*found.Tags()["tensors"]}
    assert [
        (one.step, one.tensor_proto.string_val[0].decode()) for one in found.Tensors("text/pass")
    ] == [(0, "original"), (1, "int8")]
    trackers = find_trackers([place])
    with RunLog(trackers, "whole") as whole, RunLog(trackers, "part", parent=whole) as part:
        part.row(report.rows[0])
        part.tried(TriedEntry("int8", "cleanup,int8", "left", "slower"))
        [inner] = (tmp_path / "runs").glob("whole-*/part-*")
        # What is measured can be read while the run goes on.
        running = EventAccumulator(str(inner)).Reload()
        assert running.Scalars("file_bytes")
        part.finish(report)
    found = EventAccumulator(str(inner)).Reload()
    # The end adds names and leaves those of the rows as they were.
    added = {*found.Tags()["tensors"]} - {*running.Tags()["tensors"]}
    assert {"text/run", "text/report"} <= added
    for name in running.Tags()["tensors"]:
        assert found.Tensors(name)[: len(running.Tensors(name))] == running.Tensors(name)
    assert len(found.Tensors("text/tried.1")) == 1 and _table(found)["cpu"] == "CPU"
    [outer] = (tmp_path / "runs").glob("whole-*")
    ended = EventAccumulator(str(outer)).Reload().SummaryMetadata(metadata.SESSION_END_INFO_TAG)
    status = HParamsPluginData.FromString(ended.plugin_data.content).session_end_info.status
    assert status == 2, "STATUS_FAILURE: it was not finished"
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="is a file"):
        find_trackers([f"tensorboard:{tmp_path}/file"])


def _table(found: Any) -> dict[str, str]:
    """Return the tags that a run ended with."""
    [text] = found.Tensors("text/run")
    rows = text.tensor_proto.string_val[0].decode().splitlines()[2:]
    return {cells[1].strip(): cells[2].strip() for cells in (row.split("|") for row in rows)}


@pytest.mark.slow
@pytest.mark.wandb
@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_without_a_network(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    told: list[str] = []
    _logged("wandb:team/nets", "m", report, told)
    import wandb

    wandb.teardown()  # Its own process writes the file, and ends with ours otherwise.
    [line] = told
    folder = Path(line.rpartition(", ")[2])
    assert line.startswith("m: tracked by wandb, ") and folder.is_relative_to(tmp_path)
    [kept] = folder.glob("*.wandb")
    content = kept.read_bytes()
    assert b"accuracy_low" in content and b"int8:mode=dynamic" in content
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


class Broken:
    """A tracker of another package, whose server is away."""

    name = "broken"

    def __init__(self, place: str | None) -> None:
        self.place = place

    def check(self) -> None:
        """Nothing is in the way."""

    def start(self, run: Any) -> Any:
        raise ConnectionError(f"no route to {self.place}\nat all")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, EntryPoint]:
    points: Any = registry.plugins("irtools.trackers")
    made = EntryPoint("broken", f"{__name__}:Broken", "irtools.trackers")
    monkeypatch.setattr(EntryPoint, "load", _loading(EntryPoint.load))
    monkeypatch.setitem(points, "broken", made)
    other = EntryPoint("empty", "json:JSONDecoder", "irtools.trackers")
    monkeypatch.setitem(points, "empty", other)
    return points


def _loading(real: Any) -> Any:
    """Load this module's class as it is here; the module has no name to import it by."""
    return lambda point: Broken if point.value.endswith(":Broken") else real(point)


def test_a_tracker_that_fails_costs_one_line(report: Report, installed: Any) -> None:
    told: list[str] = []
    _logged("broken:host", "m", report, told)
    assert told == ["note: broken did not take the run m: ConnectionError: no route to host at all"]


def test_what_is_no_tracker_is_told(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="no tracker 'mlfow'; did you mean 'mlflow'"):
        find_trackers(["mlfow"])
    with pytest.raises(UsageError, match="names no place"):
        find_trackers(["broken:"])
    with pytest.raises(UsageError, match="expected a class with check and start"):
        find_trackers(["empty"])
    for name in ("mlflow", "tensorboard", "wandb"):
        monkeypatch.setattr(f"irtools.trackers.{name}.find_spec", lambda package: None)
        with pytest.raises(MissingExtraError, match=rf"irtools-compiler\[{name}\]"):
            find_trackers([name])


def test_the_same_tracker_is_asked_once(installed: Any) -> None:
    assert len(find_trackers(["broken:a", "broken:a", "broken:b"])) == 2
