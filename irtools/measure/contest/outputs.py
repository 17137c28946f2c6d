"""Outputs of all contenders over the same samples, compared with those of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from irtools.analysis.data_sizes import DataSizes
from irtools.analysis.rankings import ranked_outputs, told_of_ranked
from irtools.data import (
    Batch,
    BatchPlan,
    Dataset,
    has_several_labels,
    plan_batches,
    required_inputs,
)
from irtools.errors import UsageError
from irtools.measure.contest.base import Isolation
from irtools.measure.contest.entrants import Entrant
from irtools.measure.contest.samples import KeptOutputs, Outputs, Part
from irtools.measure.contest.scoring import Tally, answers, output_bytes
from irtools.metrics import (
    Fidelity,
    FidelityMeter,
    Metric,
    PerSampleMetric,
    Resampled,
    join_outputs,
    resample_outputs,
    resample_rows,
)
from irtools.model import padded_outputs
from irtools.plugins import NullProgress, Progress
from irtools.words import printable

__all__ = ["OutputScores", "EntrantScore"]

_BATCH = 16
_OUTPUT_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class EntrantScore:
    """Outputs and task metric of one contender.

    Attributes:
        fidelity: Closeness to the first contender, of the output that differs most.
        by_output: The same of each output.
        metric: The task metric; None without one.
    """

    fidelity: Fidelity
    by_output: Mapping[str, Fidelity]
    metric: Resampled | None


@dataclass(eq=False)
class OutputScores:
    """Runs contenders over the same samples and compares them with the first.

    Outputs of the first are kept where they are small, else it runs along with each other one.

    Attributes:
        entrants: The contenders.
        data: The same samples as each of them takes them.
        metric: Task metric, or None.
        seed: Seed of the bootstrap samples.
        isolation: As in `ContestSettings`.
        lenient: Outputs of one name and two shapes are left out, not refused.
        progress: Where to report how far it is.
        notes: What a reader should know, once the scores are there.
    """

    entrants: Sequence[Entrant]
    data: Sequence[Dataset]
    metric: Metric | None = None
    seed: int = 0
    isolation: Isolation = "first"
    lenient: bool = False
    progress: Progress = field(default_factory=NullProgress)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, data = self.entrants[0], self.data[0]
        sizes = [DataSizes.of(entrant.model.ir) for entrant in self.entrants]
        self._sized = frozenset(name for found in sizes for name in found.shapes)
        self._ranked = ranked_outputs(first.model.ir)
        if self._ranked:
            self._note(told_of_ranked(self._ranked))
        self._without_batch = sizes[0].without_batch()
        self._several = has_several_labels(first.model.ir.metadata_props, data.labels)
        self._plan = _common_plan(self.entrants, self.data)

    def __iter__(self) -> Iterator[EntrantScore]:
        """Yield a score per contender.

        Raises:
            UsageError: Outputs that do not correspond.
            DataError: Labels that do not fit the outputs.
            UnsupportedError: A runtime refuses a model, or crashes on it.
        """
        size = self._meet()
        most = 1 if self._sized else _BATCH
        batch = max(1, min(most, _OUTPUT_BYTES // size))
        part = Part(self._plan, batch, np.arange(len(self.data[0])))
        kept = KeptOutputs(size)
        for entrant, data in zip(self.entrants, self.data, strict=True):
            yield self._score(entrant, data, part, kept, size * batch)

    def _meet(self) -> int:
        """Run one batch of each contender in a child process; returns the bytes of a sample."""
        first = self.entrants[0]
        if self.isolation == "none":
            return output_bytes(first.model, self.data[0])
        batch = next(self._plan.batches(1))
        wanted: Outputs = {}
        for entrant, data in zip(self.entrants, self.data, strict=True):
            own = batch if entrant is first else self._plan.same_rows(batch, data)
            (outputs,) = entrant.run_apart([own.feeds])
            wanted = wanted or outputs
            self._match(wanted, outputs, entrant)
        bytes_of_batch = sum(array.nbytes for array in wanted.values())
        return max(1, bytes_of_batch // batch.samples)

    def _match(self, wanted: Outputs, outputs: Outputs, entrant: Entrant) -> list[str]:
        """Return the outputs to compare.

        Raises:
            UsageError: There are none, or two of one name differ in shape.
        """
        first = self.entrants[0].name
        common = [name for name in wanted if name in outputs]
        if not common:
            raise UsageError(
                f"{entrant.name} gives {_listed(outputs)}, and {first} gives {_listed(wanted)}: "
                "there is no output of the same name to compare"
            )
        if lost := [name for name in wanted if name not in outputs]:
            self._note(f"{entrant.name} has no output {_listed(lost)}: left out of the comparison")
        for name in common:
            if wanted[name].shape != outputs[name].shape and name not in self._sized:
                if self.lenient:
                    continue
                raise UsageError(
                    f"output {printable(name)} of {entrant.name} has shape "
                    f"{list(outputs[name].shape)}, that of {first} {list(wanted[name].shape)}: "
                    "outputs of different shapes cannot be compared"
                )
        return [
            name
            for name in common
            if name in self._sized or wanted[name].shape == outputs[name].shape
        ]

    def _note(self, text: str) -> None:
        if not self.lenient and text not in self.notes:
            self.notes.append(text)

    def _score(
        self, entrant: Entrant, data: Dataset, part: Part, kept: KeptOutputs, size: int
    ) -> EntrantScore:
        meter = FidelityMeter(
            several_labels=self._several, sized_by_data=self._sized, ranked=self._ranked
        )
        by_sample = self.metric if isinstance(self.metric, PerSampleMetric) else None
        padded = padded_outputs(self.entrants[0].model.ir, entrant.model.ir)
        tally = Tally(data, () if by_sample is None else (by_sample,), meter, padded)
        whole = _Collected(self._without_batch)
        done = 0
        for batch, own, outputs, wanted in self._runs(entrant, data, part, kept, size):
            names = self._match(wanted, outputs, entrant)
            tally.add(own, outputs, {name: wanted[name] for name in names}, batch.keep)
            if self.metric is not None and by_sample is None:
                whole.add(batch, outputs)
            done += batch.samples
            self.progress.step(f"evaluating {entrant.name}", done, len(part))
        found: Resampled | None = None
        if by_sample is not None:
            found = resample_rows(by_sample, tally.rows[0], self.seed)
        elif self.metric is not None:
            found = resample_outputs(self.metric, *whole.of(data), self.seed)
        return EntrantScore(meter.result(), meter.by_output(), found)

    def _runs(
        self, entrant: Entrant, data: Dataset, part: Part, kept: KeptOutputs, size: int
    ) -> Iterator[tuple[Batch, Batch, Outputs, Outputs]]:
        """Yield each batch, the batch as the contender takes it, its outputs and the first's."""
        first = self.entrants[0]
        with first.open(self.isolation, size) as reference:
            expected = kept.batches(part, first.options, reference.run)
            if entrant is first:
                for batch, outputs in expected:
                    yield batch, batch, outputs, outputs
                return
            with entrant.open(self.isolation, size) as opened:
                found = answers(part, opened.run, data)
                for (batch, wanted), (_, own, outputs) in zip(expected, found, strict=True):
                    yield batch, own, outputs, wanted


class _Collected:
    """Outputs of all samples, for a metric that needs them at once."""

    def __init__(self, without_batch: frozenset[str]) -> None:
        self._without_batch = without_batch
        self._outputs: list[Outputs] = []
        self._rows: list[np.ndarray] = []

    def add(self, batch: Batch, outputs: Outputs) -> None:
        self._rows.append(batch.rows)
        self._outputs.append(
            {n: array[None] if n in self._without_batch else array for n, array in outputs.items()}
        )

    def of(self, data: Dataset) -> tuple[dict[str, np.ndarray], Dataset]:
        """Return the outputs, and the data in the same order."""
        names = self._outputs[0]
        joined = {name: join_outputs([one[name] for one in self._outputs]) for name in names}
        return joined, data.select(np.concatenate(self._rows))


def _common_plan(entrants: Sequence[Entrant], data: Sequence[Dataset]) -> BatchPlan:
    """Return batches that every contender takes.

    Raises:
        UsageError: Two contenders take different numbers of samples at a time.
    """
    first = data[0]
    fixed = {d.fixed_batch: e for e, d in zip(entrants, data, strict=True) if d.fixed_batch}
    if len(fixed) > 1:
        (one, a), (two, b), *_ = fixed.items()
        raise UsageError(
            f"{a.name} takes exactly {one} at a time and {b.name} exactly {two}: they cannot run "
            "on the same batches"
        )
    if fixed or any(one.fixed_length for one in data):
        everything = np.arange(len(first))
        return BatchPlan(first, ((everything, None),), next(iter(fixed), None))
    return plan_batches(first, required_inputs(entrants[0].model), skip_empty=False)


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(map(printable, names)) or "nothing"
