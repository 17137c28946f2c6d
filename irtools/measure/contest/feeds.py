"""What contenders are timed on: the same inputs for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from irtools.analysis.tables import indexed_rows
from irtools.data import Dataset, SyntheticSettings
from irtools.errors import UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.contest.entrants import Entrant
from irtools.measure.shapes import bench_feeds, branches, sample_feeds
from irtools.model import Model
from irtools.targets import Feeds

__all__ = ["Timed", "check_same_inputs", "drawing_model", "shortened", "timed_feeds"]

Timed: TypeAlias = Mapping[str, Feeds | Sequence[Feeds]]
"""Label of a shape to what is run at it."""


def check_same_inputs(entrants: Sequence[Entrant]) -> None:
    """Refuse to time models on the same feeds that do not take the same inputs.

    Raises:
        UsageError: Names both.
    """
    first, *others = entrants
    wanted = _inputs(first)
    for other in others:
        found = _inputs(other)
        if found != wanted:
            raise UsageError(
                f"{other.name} takes {_listed(found)} and {first.name} takes {_listed(wanted)}: "
                "only models with the same inputs can be timed against each other"
            )


def _inputs(entrant: Entrant) -> set[tuple[str, str]]:
    return {(info.name, info.dtype) for info in entrant.model.interface.required}


def _listed(infos: set[tuple[str, str]]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in sorted(infos)) or "nothing"


def drawing_model(entrants: Sequence[Entrant]) -> Entrant:
    """Return the contender from whose signature inputs are drawn.

    A model says more of its inputs (ids, lengths) than a file of a runtime, and ids of the smallest
    tables (of words, types and positions) are ids of all others.
    """
    models = [entrant for entrant in entrants if not entrant.is_file] or entrants
    tables = [_tables(entrant.model) for entrant in models]
    names = {name for rows in tables for name in rows}
    sizes = [sum(rows.get(name, float("inf")) for name in names) for rows in tables]
    return models[sizes.index(min(sizes))]


def _tables(model: Model) -> Mapping[str, int]:
    """Return the rows of the smallest table that each input of ids indexes."""
    found = ((value.name or "", indexed_rows(value)) for value in model.ir.graph.inputs)
    return {name: rows for name, rows in found if rows is not None}


def timed_feeds(
    entrants: Sequence[Entrant],
    settings: BenchSettings,
    samples: Sequence[Dataset] | None,
    seed: int,
    adapt: Callable[[SyntheticSettings], SyntheticSettings],
) -> Timed:
    """Return what all contenders are timed on.

    Where one of them branches, its time depends on the sample: then real samples take turns.

    Args:
        entrants: The contenders.
        settings: Sizes.
        samples: Real samples, as each contender takes them; None: there are none.
        seed: Seed of drawn values.
        adapt: As `bench_feeds` takes it.

    Raises:
        DataError: Nothing can be drawn, and there are no samples.
    """
    drawing = drawing_model(entrants)
    if samples is not None:
        for entrant, data in zip(entrants, samples, strict=True):
            if branches(entrant.model):
                return sample_feeds(data, settings)
    own = None if samples is None else samples[list(entrants).index(drawing)]
    return bench_feeds(drawing.model, settings, own, seed, adapt)


def shortened(settings: BenchSettings, labels: Iterable[str]) -> Iterator[str]:
    """Say which lengths could not be had.

    Args:
        settings: Lengths asked for.
        labels: Shapes that there are feeds for.
    """
    labels = tuple(labels)
    yield from _lost(settings.sequence, labels, "sequence")
    yield from _lost(settings.past or settings.sequence, labels, "past")


def _lost(wanted: Sequence[int], labels: Iterable[str], what: str) -> Iterator[str]:
    lengths = {
        part.removeprefix(f"{what}=")
        for label in labels
        for part in label.split()
        if part.startswith(f"{what}=")
    }
    lost = [str(length) for length in wanted if str(length) not in lengths]
    if lengths and lost:
        yield (
            f"timed at {what}={','.join(sorted(lengths, key=int))}, not {','.join(lost)}: "
            "the model fixes the length, or holds no more positions"
        )
