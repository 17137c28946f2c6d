"""Models are asked in child processes, block by block, and what they use is sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from irtools.errors import UnsupportedError, UsageError
from irtools.measure.live import LiveSession, LiveSettings
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
    from irtools.measure.live.track import Track

    track = Track(batch=4)
    # Two clients for a second, a pause of three seconds, one client for a second.
    track.add(np.array([[1.0, 1.0], [1.0, 1.0], [5.0, 1.0]]))
    point = track.point(5.0)
    assert point["throughput"] == pytest.approx(4 * 3 / 2) and point["p50"] == 1000.0
    assert track.point(20.0)["p50"] is None
