"""A search at the size of a data centre, simulated: who decides how fast, and what becomes slow.

    python -m benchmarks run scheduler [--workers N...] [--trials N] [--study N...] [--write [NAME]]

`--workers` or `--study` without a number leaves that part out.

The scheduler is the real one, with real time taken for each of its decisions; the workers are a
clock and random durations. One worker in ten is on a machine of another kind, on which no times are
taken, and workers are lost and come back. Then the study is asked and told, with as many trials in
it as it is said to have: its cost for a trial does depend on their number.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recording import about, add_write_option, store
from irtools.executors import Hardware, Scheduler, Task, Worker
from irtools.search import Space, Study

_FITTING, _OTHER = Hardware("vnni", 8, "wanted"), Hardware("avx2", 8, "another kind")
_QUALITY_S, _TIMES_S, _AWAY_S = 30.0, 20.0, 180.0
_LOSS = 0.002
"""Share of jobs during which their worker is lost."""


@dataclass
class Simulation:
    """A search on workers that are a clock.

    Attributes:
        decisions: What the scheduler was asked and told.
        deciding: Seconds of real time that this took.
        clock: Seconds of the simulated search.
        busy: Seconds that workers spent on jobs that ended.
        lost: Workers that were lost.
    """

    workers: int
    trials: int
    seed: int = 0
    decisions: int = 0
    deciding: float = 0.0
    clock: float = 0.0
    busy: float = 0.0
    lost: int = 0

    def run(self) -> None:
        """Run all trials: each is a job anywhere, then a timed one where its model is."""
        rng = np.random.default_rng(self.seed)
        of = Scheduler(lambda worker: worker.hardware == _FITTING)
        events: list[tuple[float, int, str, str]] = []
        workers = [_worker(number) for number in range(self.workers)]
        by_name = {worker.name: worker for worker in workers}
        for worker in workers:
            of.join(worker)
        drawn, ended, place = 0, 0, 0
        while ended < self.trials:
            started = time.perf_counter()
            while drawn < self.trials and of.waiting < self.workers:
                of.add(Task(f"{drawn}"))
                drawn += 1
            given = []
            while (one := of.assign()) is not None:
                given.append(one)
            self.deciding += time.perf_counter() - started
            self.decisions += len(given)
            for one in given:
                mean = _TIMES_S if one.task.timed else _QUALITY_S
                seconds = mean * float(rng.lognormal(0, 0.4))
                lost = rng.random() < _LOSS
                what = "lost" if lost else "ended"
                self.busy += 0 if lost else seconds
                heapq.heappush(events, (self.clock + seconds, place, what, one.worker.name))
                place += 1
            self.clock, _, what, name = heapq.heappop(events)
            started = time.perf_counter()
            if what == "ended":
                task = of.finish(name)
                if not task.timed:
                    of.add(Task(task.key, timed=True, near=name))
                else:
                    ended += 1
            elif what == "lost":
                ended += of.lose(name) is not None
                self.lost += 1
                heapq.heappush(events, (self.clock + _AWAY_S, place, "joins", name))
                place += 1
            else:
                of.join(by_name[name])
            self.deciding += time.perf_counter() - started
            self.decisions += 1


def _worker(number: int) -> Worker:
    hardware = _OTHER if number % 10 == 0 else _FITTING
    return Worker(f"w{number}", f"host {number}", hardware, f"machine {number}")


def main(argv: Sequence[str]) -> None:
    """Simulate, ask and tell, and print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--study", type=int, nargs="*", default=[100, 1000, 4000, 10_000])
    add_write_option(parser, "scheduler")
    given = parser.parse_args(argv)
    document = {
        **about("scheduler"),
        "rows": [_simulated(number, given.trials) for number in given.workers],
        "study": [*_studies(given.study)],
    }
    print("\n".join((*table(document), "", *study_table(document))))
    if given.write:
        store(given.write, document)


def _simulated(workers: int, trials: int) -> dict[str, Any]:
    one = Simulation(workers, trials)
    one.run()
    return {
        "workers": workers,
        "trials": trials,
        "lost": one.lost,
        "decisions": one.decisions,
        "microseconds": 1e6 * one.deciding / one.decisions,
        "hours": one.clock / 3600,
        "busy": one.busy / (one.clock * workers),
        "trials_per_second": trials / one.clock,
    }


def _studies(sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder) / 'tune.db'}"
            yield {"trials": size, **_asked_and_told(url, size)}


def _asked_and_told(url: str, size: int, rounds: int = 10) -> dict[str, float]:
    """Return milliseconds of drawing a trial in memory and of keeping it in a file."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(0)
    space = Space(True, ("int8", "int4", "fp16"), is_decoder=False)
    made = []
    for _ in range(size):
        choices: dict[str, Any] = {}
        kinds: dict[str, Any] = {}

        def choose(
            name: str,
            options: Sequence[str],
            c: dict[str, Any] = choices,
            k: dict[str, Any] = kinds,
        ) -> str:
            k[name] = optuna.distributions.CategoricalDistribution(tuple(options))
            c[name] = str(rng.choice(options))
            return str(c[name])

        space.draw(choose)
        value = float(rng.random())
        made.append(optuna.trial.create_trial(params=choices, distributions=kinds, value=value))
    whole = optuna.create_study()
    whole.add_trials(made)
    study = Study(1, 0, whole)
    kept = optuna.create_study(storage=url)
    kept.add_trials(made[:100])  # Keeping one more costs the same for any number.
    asking, telling = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        trial = study.ask()
        space.draw(trial.suggest_categorical)
        asking.append(time.perf_counter() - started)
        started = time.perf_counter()
        kept.add_trial(trial.study.tell(trial, float(rng.random())))
        telling.append(time.perf_counter() - started)
    return {"ask_ms": 1e3 * float(np.median(asking)), "tell_ms": 1e3 * float(np.median(telling))}


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of simulated searches."""
    yield (
        "| workers | trials | workers lost | decisions | each | search | workers busy "
        "| trials a second |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in document["rows"]:
        yield (
            f"| {row['workers']:,} | {row['trials']:,} | {row['lost']:,} | {row['decisions']:,} "
            f"| {row['microseconds']:.1f} us | {row['hours']:.1f} h | {100 * row['busy']:.0f} % "
            f"| {row['trials_per_second']:.2f} |"
        )


def study_table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of what the study costs."""
    yield "| trials in the study | drawing one more | keeping it in SQLite |"
    yield "| --- | --- | --- |"
    for row in document["study"]:
        yield (f"| {row['trials']:,} | {row['ask_ms']:.0f} ms | {row['tell_ms']:.0f} ms |")


VIEWS = {"table": table, "study": study_table}
