"""Models are asked in child processes, block by block, and what they use is sampled."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError, UsageError
from irtools.measure.live import Gpus, LiveSession, LiveSettings, Sampler, Track
from irtools.measure.stream import Channel, Stream
from irtools.measure.timing import Contender

_TEXT = (
    '<ir_version: 10, opset_import: ["" : 20]> m (float[batch,8] x) => (float[batch,8] y) '
    "{ y = Neg(x) }"
)


def _count(channel: Channel, number: int) -> None:
    for one in range(number):
        channel.emit({"one": one, "array": np.arange(one)})
    channel.emit({"order": channel.receive()})


def _fail(channel: Channel) -> None:
    channel.emit("before")
    raise UsageError("not like this")


def _crash(channel: Channel) -> None:
    import os

    os.abort()


def test_a_stream_is_read_and_takes_orders() -> None:
    with Stream(_count, 3, label="counting") as stream:
        stream.send("go")
        *counted, last = list(stream)
    assert [found["one"] for found in counted] == [0, 1, 2]
    assert counted[2]["array"].tolist() == [0, 1] and last == {"order": "go"}


def test_a_stream_ends_with_what_went_wrong() -> None:
    with Stream(_fail, label="failing") as stream:
        messages = iter(stream)
        assert next(messages) == "before"
        with pytest.raises(UsageError, match="not like this"):
            next(messages)
    crashing = pytest.raises(UnsupportedError, match="SIGABRT")
    with Stream(_crash, label="crashing") as stream, crashing:
        list(stream)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "model.onnx"
    ir.save(ir.from_onnx_text(_TEXT), path)
    return path


@pytest.mark.ui
@pytest.mark.slow
def test_load_gives_a_curve_over_clients(model: Path) -> None:
    points: list[dict[str, Any]] = []
    contenders = {name: Contender(model, "ort-cpu") for name in ("a", "b")}
    settings = LiveSettings(mode="load", clients=3, seconds=1.5, threads=2)
    found = LiveSession(contenders, settings, points.append).run()
    shapes = [result.shape for result in found.standings[1].latency]
    assert shapes == [f"batch=1 clients={n}" for n in (1, 2, 3)]
    assert all(result.speedup is not None for result in found.standings[1].latency)
    assert [point["text"] for point in points if "state" in point][-1] == "batch=1"
    figures = [point["contenders"]["a"] for point in points if "contenders" in point]
    assert figures[-1]["p50"] <= figures[-1]["p95"] <= figures[-1]["p99"]
    assert figures[-1]["rss"] > 1e6 and figures[-1]["throughput"] > 0


@pytest.mark.ui
def test_a_measurement_is_stopped(model: Path) -> None:
    session: LiveSession

    def stop(document: dict[str, Any]) -> None:
        if document.get("state") == "measuring":
            session.stop()

    session = LiveSession({"a": Contender(model, "ort-cpu")}, LiveSettings(seconds=None), stop)
    found = session.run()
    assert found.latency == () and "before every model had run" in found.notes[-1]


@pytest.mark.parametrize(
    "wrong", [{"mode": "often"}, {"batch": 0}, {"clients": 1000}, {"seconds": 0.0}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LiveSettings(**wrong)


def test_clients_double_up_to_the_last() -> None:
    assert list(LiveSettings(clients=6).client_steps()) == [1, 2, 4, 6]
    assert list(LiveSettings(clients=1).client_steps()) == [1]


def test_throughput_counts_the_time_in_which_requests_were_under_way() -> None:
    track = Track(batch=4)
    # Two clients for a second, a pause of three seconds, one client for a second.
    track.add(np.array([[1.0, 1.0], [1.0, 1.0], [5.0, 1.0]]))
    point = track.point(5.0)
    assert point["throughput"] == pytest.approx(4 * 3 / 2) and point["p50"] == 1000.0
    assert track.point(20.0)["p50"] is None


class _NvmlError(Exception):
    pass


class _Nvml:
    """What nvidia-ml-py says on a machine with two GPUs, of which the second says little."""

    NVMLError = _NvmlError

    def __init__(self, pid: int = 0, *, driver: bool = True) -> None:
        self._pid = pid
        self._driver = driver

    def nvmlInit(self) -> None:
        if not self._driver:
            raise _NvmlError

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return (b"GPU A", "GPU B")[handle]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise _NvmlError
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=(handle + 1) << 30)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 250_500

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        used = (5 << 20, None)[handle]
        return [SimpleNamespace(pid=self._pid, usedGpuMemory=used)]


def test_gpus_say_what_they_do() -> None:
    gpus = Gpus(_Nvml(pid=17))
    assert gpus.points() == [
        {"name": "GPU A", "load": 37, "memory": 1 << 30, "power": 250.5},
        {"name": "GPU B", "load": None, "memory": 2 << 30, "power": 250.5},
    ]
    assert gpus.memory_of(17) == 5 << 20 and gpus.memory_of(18) is None


def test_without_a_driver_there_are_no_gpus() -> None:
    gpus = Gpus(_Nvml(driver=False))
    assert gpus.names == () and gpus.points() == [] and gpus.memory_of(17) is None


@pytest.mark.ui
@pytest.mark.parametrize("present", [True, False])
def test_figures_of_gpus_are_in_the_points_where_there_are_some(present: bool) -> None:
    found = threading.Event()
    track = Track(batch=1)
    gpus = Gpus(_Nvml(os.getpid(), driver=present))
    with Sampler({"a": os.getpid()}, {"a": track}, lambda: "a", lambda _: found.set(), gpus):
        assert found.wait(30)
    point = track.point(0.0)
    assert point.get("gpu_memory") == (5 << 20 if present else None)
    assert ("gpu_memory" in point) == present and point["rss"] > 1e6
