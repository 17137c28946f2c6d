"""A live measurement: contenders in processes of their own, asked block by block, and watched."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from irtools.data import Dataset, resolve_sizes
from irtools.errors import IrtoolsError
from irtools.files import scratch_folder
from irtools.measure.base import BenchSettings, LatencyResult
from irtools.measure.contest.base import ContestResult, Standing
from irtools.measure.contest.entrants import Entrant, check_targets, prepare
from irtools.measure.contest.feeds import check_same_inputs, drawing_model, timed_feeds
from irtools.measure.drawable import drawn_for
from irtools.measure.live.gpus import Gpus
from irtools.measure.live.requests import answer_requests
from irtools.measure.live.sampler import Sampler, check_sampler
from irtools.measure.live.settings import LiveSettings
from irtools.measure.live.track import Track
from irtools.measure.stream import Stream
from irtools.measure.timing import Contender, Samples, latency_result, rotated
from irtools.targets import Feeds, find_target

__all__ = ["LiveSession"]

_LOAD_ROUNDS = 3
_WARM_UP_SHARE = 0.4
_FOREVER = 10**9

Emit = Callable[[dict[str, Any]], None]


class LiveSession:
    """Measures models live and reports figures several times a second.

    All contenders stay loaded, each in a process of its own, and are asked one at a time: a
    process that waits for requests uses no CPU time.

    Args:
        contenders: Name to model or compiled file, and what runs it; the first is the baseline.
        settings: How.
        emit: Called from another thread with documents: `state` (`loading`, `measuring`), or a
            point with `t` in seconds, `clients`, `active`, `cores` in percent, where there are GPUs
            `gpus` as `Gpus.points` has them, and per contender the figures of `Track.point`.
        samples: What to run on; None: drawn inputs.
        gpus: What GPUs are read; None: those of this machine.
    """

    def __init__(
        self,
        contenders: Mapping[str, Contender],
        settings: LiveSettings,
        emit: Emit,
        samples: Dataset | None = None,
        gpus: Gpus | None = None,
    ) -> None:
        check_sampler()
        self._gpus = Gpus() if gpus is None else gpus
        check_targets(contenders, timed=True)
        self._contenders = contenders
        self._settings = settings
        self._emit = emit
        self._data = samples
        self._stopped = threading.Event()
        self._clients = 1
        self._active = ""
        self._start = 0.0

    def stop(self) -> None:
        """End after the block that runs; from any thread."""
        self._stopped.set()

    def run(self) -> ContestResult:
        """Measure until the time is over or `stop` is called; return it as `irc bench` does.

        Raises:
            UsageError: Contenders that do not take the same inputs.
            UnsupportedError: A runtime refuses a model, or crashes on it.
            DataError: Nothing can be drawn for their inputs.
        """
        with ExitStack() as stack:
            self._emit({"state": "loading", "text": "reading the models"})
            folder = stack.enter_context(scratch_folder("live"))
            entrants = list(prepare(self._contenders, self._settings.threads, folder))
            check_same_inputs(entrants)
            label, feeds = self._feeds(entrants)
            asked = {e.name: stack.enter_context(_Asked(e, feeds, _batch(label))) for e in entrants}
            for one in asked.values():
                self._emit({"state": "loading", "text": f"loading {one.name}"})
                one.load()
            tracks = {name: one.track for name, one in asked.items()}
            self._start = time.monotonic()
            self._emit({"state": "measuring", "text": label})
            processes = {name: one.pid for name, one in asked.items()}
            with Sampler(
                processes,
                tracks,
                lambda: self._active,
                lambda cores: self._point(tracks, cores),
                self._gpus,
            ):
                self._measure(asked, label)
        return _result(entrants, asked, feeds, self._bench)

    @property
    def _bench(self) -> BenchSettings:
        s = self._settings
        past = None if s.past is None else (s.past,)
        return BenchSettings((s.batch,), (s.sequence,), s.threads, past=past)

    def _feeds(self, entrants: Sequence[Entrant]) -> tuple[str, Sequence[Feeds]]:
        drawing = drawing_model(entrants)
        data = None if self._data is None else [self._data] * len(entrants)
        sizes = resolve_sizes(drawing.model, self._settings.sizes.items())
        target = find_target(drawing.target)
        with drawn_for(drawing.model, target, sizes, self._settings.threads) as drawn:
            found = timed_feeds(entrants, self._bench, data, self._settings.seed, drawn.adapt)
        # Of a decoder a token counts more than the prompt: there are more of them.
        label = next((one for one in found if one.startswith("decode")), next(iter(found)))
        feeds = found[label]
        return label, [feeds] if isinstance(feeds, Mapping) else list(feeds)

    def _measure(self, asked: Mapping[str, _Asked], label: str) -> None:
        names = list(asked)
        for shape, clients, seconds, number in self._blocks(label, len(names)):
            if clients != self._clients:
                for one in asked.values():
                    one.track.forget()
            self._clients = clients
            for name in rotated(names, number):
                if self._stopped.is_set():
                    return
                self._active = name
                if len(asked[name].samples.times.get(shape, ())) == 0:
                    asked[name].block(None, clients, seconds * _WARM_UP_SHARE)
                asked[name].block(shape, clients, seconds)

    def _blocks(self, label: str, count: int) -> Iterator[tuple[str, int, float, int]]:
        """Yield shape, clients, seconds and number of each round of blocks."""
        s = self._settings
        if s.mode == "alternating":
            end = float("inf") if s.seconds is None else time.monotonic() + s.seconds
            for number in range(_FOREVER):
                if time.monotonic() >= end:
                    return
                yield label, 1, s.block_seconds, number
            return
        steps = list(s.client_steps())
        total = s.seconds or len(steps) * count * _LOAD_ROUNDS * s.block_seconds
        seconds = total / (len(steps) * count * (_LOAD_ROUNDS + _WARM_UP_SHARE))
        for clients in steps:
            for number in range(_LOAD_ROUNDS):
                yield f"{label} clients={clients}".strip(), clients, seconds, number

    def _point(self, tracks: Mapping[str, Track], cores: list[float]) -> None:
        now = time.monotonic()
        self._emit(
            {
                "t": round(now - self._start, 3),
                "clients": self._clients,
                "active": self._active,
                "cores": cores,
                **({"gpus": self._gpus.points()} if self._gpus.names else {}),
                "contenders": {name: track.point(now) for name, track in tracks.items()},
            }
        )


class _Asked:
    """A contender that is asked. A context manager."""

    def __init__(self, entrant: Entrant, feeds: Sequence[Feeds], batch: int) -> None:
        self.name = entrant.name
        self.track = Track(batch)
        self.samples = Samples({}, {})
        self.clients: dict[str, int] = {}
        self._turns = len(feeds)
        self._answers: queue.SimpleQueue[dict[str, Any] | IrtoolsError] = queue.SimpleQueue()
        self._stream = Stream(
            answer_requests,
            entrant.path.absolute(),
            entrant.target,
            entrant.options,
            [dict(one) for one in feeds],
            label=f"{entrant.target} on {entrant.name}",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._stream.pid

    def load(self) -> None:
        """Wait until it is loaded."""
        found = self._answer()
        self.samples.loads.append(found["load_seconds"])
        self.samples.firsts.append(found["first_seconds"])

    def block(self, shape: str | None, clients: int, seconds: float) -> None:
        """Ask it for a while; without a shape to warm it up."""
        self.track.begin()
        self._stream.send({"clients": clients, "seconds": seconds})
        peak = self._answer()["peak_bytes"]
        times = self.track.end()
        if shape is None or not len(times):
            return
        self.samples.turns[shape] = 1 if clients > 1 else self._turns
        self.samples.times.setdefault(shape, []).append(times)
        self.samples.peaks.append(peak)
        self.clients[shape] = clients

    def __enter__(self) -> _Asked:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.stop()
        self._reader.join()
        self._stream.close()

    def _answer(self) -> dict[str, Any]:
        found = self._answers.get()
        if isinstance(found, IrtoolsError):
            raise found
        return found

    def _read(self) -> None:
        try:
            for message in self._stream:
                if "times" in message:
                    self.track.add(message["times"])
                else:
                    self._answers.put(message)
        except IrtoolsError as error:
            self._answers.put(error)


def _batch(label: str) -> int:
    sizes = [part.removeprefix("batch=") for part in label.split() if part.startswith("batch=")]
    return int(sizes[0]) if sizes else 1


def _result(
    entrants: Sequence[Entrant],
    asked: Mapping[str, _Asked],
    feeds: Sequence[Feeds],
    bench: BenchSettings,
) -> ContestResult:
    samples = {name: one.samples for name, one in asked.items()}
    # A measurement that was stopped has shapes that some contenders did not come to.
    first = next(iter(asked.values()))
    shapes = [s for s in first.clients if all(s in one.clients for one in asked.values())]

    def latency(name: str, shape: str) -> LatencyResult:
        found = latency_result(name, shape, feeds[0], samples, bench)
        return replace(found, throughput=found.throughput * first.clients[shape])

    standings = tuple(
        Standing(
            e.name,
            e.target,
            e.options.precision,
            e.file_bytes,
            tuple(latency(e.name, shape) for shape in shapes),
        )
        for e in entrants
    )
    notes = ["measured live: all models were loaded at the same time, and ran one at a time"]
    if not shapes:
        notes.append("it was stopped before every model had run")
    return ContestResult(standings, notes=tuple(notes))
