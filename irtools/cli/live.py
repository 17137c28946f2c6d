"""Live measurements in a terminal."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from irtools.data import Dataset
    from irtools.measure.contest import Contender, ContestResult
    from irtools.measure.live import LiveSettings

__all__ = ["LiveView", "check_live", "live_contest"]

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 40


class LiveView:
    """The figures of the last point, and the course of p50 and memory."""

    def __init__(self) -> None:
        self._state = "starting"
        self._point: Mapping[str, Any] = {"contenders": {}, "cores": [], "t": 0.0, "clients": 1}
        self._courses: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WIDTH))
        self._lock = threading.Lock()

    def add(self, document: Mapping[str, Any]) -> None:
        """Take up what a session emits."""
        with self._lock:
            if "state" in document:
                self._state = str(document["text"])
                return
            self._point = document
            for name, figures in document["contenders"].items():
                if figures["p50"] is not None:
                    self._courses[name].append(figures["p50"])

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        from irtools.words import counted, printable

        with self._lock:
            point = self._point
            cores = " ".join(f"{load:3.0f}%" for load in point["cores"])
            clients = counted(point["clients"], "client")
            gpus = "".join(map(_gpu_text, point.get("gpus", ())))
            head = f"{printable(self._state)}  {point['t']:.0f} s  {clients}  cores {cores}{gpus}"
            return Group(Text(head), self._table(point))

    def _table(self, point: Mapping[str, Any]) -> Table:
        from rich.table import Table
        from rich.text import Text

        from irtools.words import printable, size_text

        table = Table(pad_edge=False, show_edge=False)
        on_gpu = any("gpu_memory" in one for one in point["contenders"].values())
        more = ("GPU memory",) if on_gpu else ()
        for heading in ("model", "p50", "p95", "p99", "per second", "cores", "memory", *more):
            table.add_column(heading, justify="left" if heading == "model" else "right")
        table.add_column("p50 so far")
        for name, found in point["contenders"].items():
            times = (_milliseconds(found[key]) for key in ("p50", "p95", "p99"))
            rate = "" if found["throughput"] is None else f"{found['throughput']:.1f}"
            cores = "" if found["cpu"] is None else f"{found['cpu']:.2f}"
            cells: tuple[str, ...] = (name, *times, rate, cores, size_text(found["rss"]))
            cells = (*cells, size_text(found.get("gpu_memory"))) if on_gpu else cells
            course = sparkline(self._courses[name])
            table.add_row(*(Text(printable(cell)) for cell in (*cells, course)))
        return table


def _gpu_text(gpu: Mapping[str, Any]) -> str:
    from irtools.words import size_text

    load = "" if gpu["load"] is None else f" {gpu['load']:.0f}%"
    return f"  GPU{load} {size_text(gpu['memory'])}".rstrip()


def sparkline(values: deque[float]) -> str:
    """Return a course as a line of bars, the highest of them full."""
    top = max(values, default=0.0) or 1.0
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


def _measure(
    contenders: Mapping[str, Contender], settings: LiveSettings, samples: Dataset | None
) -> ContestResult:
    """Measure live and show it: redrawn on a terminal, else a line where it begins.

    Ctrl-C ends the measurement, not the command.
    """
    import signal
    import sys

    from rich.live import Live

    from irtools.cli.console import console
    from irtools.measure.live import LiveSession

    view = LiveView()
    shows = sys.stderr.isatty()
    session = LiveSession(contenders, settings, view.add if shows else _show_lines, samples)
    earlier = signal.signal(signal.SIGINT, lambda *_: session.stop())
    try:
        if not shows:
            return session.run()
        with Live(view, console=console(), refresh_per_second=4):
            return session.run()
    finally:
        signal.signal(signal.SIGINT, earlier)


def _show_lines(document: Mapping[str, Any]) -> None:
    """Say what is loaded, and nothing of the points: the table at the end has the figures."""
    from irtools.cli.console import say

    if "state" in document:
        say(f"irc: {document['text']}")


def _milliseconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def check_live(given: Mapping[str, Any]) -> None:
    """Refuse options of `irc bench` that do not go with `--live`."""
    if given["clients"] is not None and not given["live"]:
        raise click.UsageError("--clients is for --live")
    if not given["live"]:
        return
    for option, value in (
        ("--evaluate", given["evaluate"]),
        ("--kit", given["kit"]),
        ("--on", given["address"]),
    ):
        if value is not None:
            raise click.UsageError(f"--live times models here: leave {option} out")
    for option, values in (
        ("--batch", given["batch"]),
        ("--seq", given["sequence"]),
        ("--past", given["past"]),
    ):
        if values is not None and len(values) > 1:
            raise click.UsageError(f"--live runs at one size: give one value to {option}")


def live_contest(contenders: Mapping[str, Contender], given: Mapping[str, Any]) -> ContestResult:
    """Measure as the options of `irc bench --live` say."""
    from irtools.cli import options
    from irtools.driver.contenders import read_samples
    from irtools.measure.live import LiveSettings

    data = given["data"]
    reading = options.data_settings(given, data, None)
    samples = None if data is None else read_samples(data, contenders, reading)
    settings = LiveSettings(
        "alternating" if given["clients"] is None else "load",
        given["batch"][0],
        given["sequence"][0],
        None if given["past"] is None else given["past"][0],
        given["threads"],
        given["max_seconds"],
        given["clients"] or 1,
        seed=given["seed"],
        sizes=dict(given["drawn_sizes"]),
    )
    return _measure(contenders, settings, samples)
