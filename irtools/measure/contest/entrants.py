"""Contenders made ready: a file, what it takes, and how it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from irtools.errors import UnsupportedError, UsageError
from irtools.measure.contest.base import Isolation
from irtools.measure.contest.samples import Outputs
from irtools.measure.contest.scoring import LazyRunner
from irtools.measure.cpu import cpu_quota
from irtools.measure.jobs import describe_inputs, run_several
from irtools.measure.own_machine import refuse_foreign
from irtools.measure.sandbox import ChildLimits, run_isolated
from irtools.measure.timing import Contender
from irtools.model import Model
from irtools.targets import Feeds, RunnerOptions, find_target

__all__ = ["Entrant", "Opened", "check_targets", "describe", "prepare"]

_LIMITS = ChildLimits(seconds=600.0)
_CHUNK_BYTES = 64 << 20


class Opened(Protocol):
    """A model that is opened when it first runs. A context manager."""

    def run(self, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        """Run on batches, one after the other."""

    def __enter__(self) -> Opened: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, eq=False)
class Entrant:
    """A contender made ready.

    Attributes:
        name: As it was entered.
        path: The file that runs.
        target: What runs it, as target text.
        options: How, with the number of threads.
        model: The model; of a file that a runtime alone can read one with its inputs and nothing
            else.
        is_file: It is such a file.
        file_bytes: Size on disk, external weights included.
    """

    name: str
    path: Path
    target: str
    options: RunnerOptions
    model: Model
    is_file: bool
    file_bytes: int

    @property
    def label(self) -> str:
        """What a message calls its run."""
        return f"{self.target.partition(':')[0]} on {self.name}"

    def open(self, isolation: Isolation, batch_bytes: int) -> Opened:
        """Return it ready to run.

        Args:
            isolation: As in `ContestSettings`; a first batch has run before.
            batch_bytes: Size of the outputs of a batch, by which a child process runs several.
        """
        if isolation == "each":
            return _Apart(self, max(1, _CHUNK_BYTES // max(1, batch_bytes)))
        target, path, options = self.target, self.path, self.options
        return LazyRunner(lambda: find_target(target).runner(path, options))

    def run_apart(self, feeds: list[Feeds]) -> list[Outputs]:
        """Run on some batches in a child process.

        Raises:
            UnsupportedError: The runtime refuses the model, or crashes on it.
            DataError: The feeds do not fit.
            LimitError: It takes too long.
        """
        plain = [dict(one) for one in feeds]
        found: list[Outputs] = run_isolated(
            run_several,
            self.path.absolute(),
            self.target,
            self.options,
            plain,
            limits=_LIMITS,
            label=self.label,
        )
        return found


class _Apart:
    """A model whose batches run in child processes, several in each."""

    def __init__(self, entrant: Entrant, chunk: int) -> None:
        self._entrant = entrant
        self._chunk = chunk

    def run(self, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        """Run on batches, one after the other."""
        left = iter(feeds)
        while some := list(islice(left, self._chunk)):
            yield from self._entrant.run_apart(some)

    def __enter__(self) -> _Apart:
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""


def check_targets(contenders: Mapping[str, Contender], *, timed: bool) -> None:
    """Refuse targets that are unknown, that this machine lacks, or that it cannot time.

    Raises:
        UsageError: There is no contender, or one is timed on a target of another machine.
        UnknownNameError: There is no such target.
        TargetUnavailableError: Its runtime or device is absent here.
    """
    if not contenders:
        raise UsageError("nothing to compare: give at least one contender")
    for text in dict.fromkeys(contender.target for contender in contenders.values()):
        target = find_target(text)
        if timed:
            refuse_foreign(target, "the benchmark")


def prepare(
    contenders: Mapping[str, Contender], threads: int | None, folder: Path
) -> Iterator[Entrant]:
    """Yield the contenders, models written to a folder.

    Raises:
        UnsupportedError: A runtime refuses a file.
        IrtoolsError: As `Model.load`, of an ONNX file.
    """
    for number, (name, contender) in enumerate(contenders.items()):
        options = contender.options
        options = replace(options, threads=options.threads or threads or cpu_quota())
        is_file = False
        if isinstance(contender.model, Path):
            path, size = contender.model, _size_of(contender.model)
            is_file = path.suffix != ".onnx"
            model = describe(path, contender.target) if is_file else Model.load(path)
        else:
            model = contender.model
            saved = model.save(folder / f"{number}.onnx", scratch=True)
            path, size = saved.files[0], saved.size
        yield Entrant(name, path, contender.target, options, model, is_file, size)


def _size_of(path: Path) -> int:
    """Return the size of a file with that of its weights, where they lie next to it."""
    beside = (path.with_suffix(".bin"), path.with_name(f"{path.name}.data"))
    weights = {".xml": beside[:1], ".onnx": beside[1:]}.get(path.suffix, ())
    return sum(file.stat().st_size for file in (path, *weights) if file.is_file())


def describe(path: Path, target: str) -> Model:
    """Return a model with the inputs of a file that a runtime alone can read, and nothing else.

    Raises:
        UnsupportedError: The runtime refuses the file.
        UsageError: An input is not a dense tensor of known rank.
    """
    label = f"{target.partition(':')[0]} on {path.name}"
    try:
        slots = run_isolated(describe_inputs, path, target, limits=_LIMITS, label=label)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from error
    inputs = []
    for found in slots:
        if found["dtype"] is None or found["shape"] is None:
            raise UsageError(f"{path}: input {found['name']!r} is not a dense tensor of known rank")
        is_text = found["dtype"] == "object"
        dtype = ir.DataType.STRING if is_text else ir.DataType.from_numpy(np.dtype(found["dtype"]))
        # Names of dynamic axes are lost; those at one place are most likely the same size.
        sizes = [
            f"{'batch' if axis == 0 else f'axis{axis}'}" if size is None else size
            for axis, size in enumerate(found["shape"])
        ]
        inputs.append(ir.val(found["name"], dtype, sizes))
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 20}, name=path.stem)
    return Model(ir.Model(graph, ir_version=10), path)
