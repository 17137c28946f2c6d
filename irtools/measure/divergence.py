"""Numbers of two models side by side, down to the tensor where they part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.data import Dataset, fit_dataset
from irtools.errors import UsageError
from irtools.files import scratch_folder
from irtools.measure.contest.entrants import prepare
from irtools.measure.contest.outputs import OutputScores
from irtools.measure.timing import Contender
from irtools.metrics import Fidelity
from irtools.model import Model, infer_shapes
from irtools.statistics import expose
from irtools.targets import RunnerOptions, Target, target_text
from irtools.words import printable

__all__ = ["Comparison", "TensorFidelity", "compare_models"]

_FLOATS = frozenset(
    {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
)
_EQUAL_DB = 150.0


@dataclass(frozen=True)
class TensorFidelity:
    """A tensor that both models name, in the order in which the first computes it.

    Attributes:
        producer: Operator that makes it in the first model.
        module: Module of the source that it comes from, as far as the exporter told.
    """

    name: str
    producer: str
    module: str
    fidelity: Fidelity


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        outputs: By output name.
        layers: Matched inner tensors, in topological order; empty unless asked for.
        unmatched: Float tensors of the first model that the second does not have.
        parts_at: First matched tensor, outputs included, below `threshold_db`; None where the
            models agree.
        largest_fall: Tensor at which the SQNR falls most against the matched one before it.
    """

    samples: int
    source: str
    threshold_db: float
    outputs: Mapping[str, Fidelity]
    layers: tuple[TensorFidelity, ...]
    unmatched: int
    parts_at: str | None
    largest_fall: str | None


def compare_models(
    first: Model,
    second: Model | Path,
    data: Dataset,
    target: Target,
    *,
    layers: bool = False,
    threshold_db: float = 60.0,
    threads: int | None = None,
) -> Comparison:
    """Run two models on the same data, exactly, each in a child process, and compare.

    Args:
        first: The reference.
        second: The other one; same inputs and outputs. A file is run as it is, without `layers`.
        data: Feeds.
        target: What runs them, without its own optimizations.
        layers: Also compare inner tensors of the same name.
        threshold_db: SQNR under which two tensors count as parted.
        threads: Threads; None: the CPU quota.

    Raises:
        UsageError: The models have different inputs or outputs.
        UnsupportedError: The target refuses a model.
    """
    first = _typed(first)
    names: list[str] = []
    if isinstance(second, Model):
        _check_same_interface(first, second)
        second = _typed(second)
        names = _matched(first, second) if layers else []
    figures = _figures(first, second, names, data, target, threads)
    outputs = [info.name for info in first.interface.outputs]
    inner = tuple(
        TensorFidelity(name, *_producer(value), figures[name])
        for value in _floats(first)
        if (name := value.name or "") in figures and name not in outputs
    )
    return Comparison(
        samples=len(data),
        source=data.source,
        threshold_db=threshold_db,
        outputs={name: figures[name] for name in outputs if name in figures},
        layers=inner,
        unmatched=sum(1 for _ in _floats(first)) - len(names) if layers else 0,
        parts_at=_first_below([*_ordered(inner, outputs, figures)], threshold_db),
        largest_fall=_largest_fall([*_ordered(inner, outputs, figures)]) if layers else None,
    )


def _check_same_interface(first: Model, second: Model) -> None:
    for what in ("inputs", "outputs"):
        wanted = [(i.name, i.dtype) for i in getattr(first.interface, what)]
        found = [(i.name, i.dtype) for i in getattr(second.interface, what)]
        if wanted != found:
            raise UsageError(
                f"the models have different {what}: {_listed(wanted)} and {_listed(found)}"
            )


def _listed(infos: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{printable(name)}: {dtype}" for name, dtype in infos) or "none"


def _typed(model: Model) -> Model:
    """Return a copy whose inner values have types, by which float tensors are known."""
    copy = model.clone()
    infer_shapes(copy.ir)
    return copy


def _floats(model: Model) -> Iterator[ir.Value]:
    for node in model.ir.graph:
        if node.op_type == "Constant" and not node.domain:
            continue  # It computes nothing that could part.
        for value in node.outputs:
            if value.name and value.dtype in _FLOATS:
                yield value


def _matched(first: Model, second: Model) -> list[str]:
    there = {value.name for value in _floats(second)}
    return [value.name for value in _floats(first) if value.name in there and value.name]


def _producer(value: ir.Value) -> tuple[str, str]:
    node = value.producer()
    return (node.op_type, module_name(node)) if node is not None else ("", "")


def _figures(
    first: Model,
    second: Model | Path,
    names: Sequence[str],
    data: Dataset,
    target: Target,
    threads: int | None,
) -> Mapping[str, Fidelity]:
    """Return the fidelity of the second model by output, inner tensors of some names included."""
    text, exact = target_text(target), RunnerOptions(exact=True)
    contenders = {
        what: Contender(m if isinstance(m, Path) else _exposed(m, names), text, exact)
        for what, m in (("the first model", first), ("the second model", second))
    }
    with scratch_folder("compare") as folder:
        entrants = list(prepare(contenders, threads, folder))
        both = [fit_dataset(data, entrant.model) for entrant in entrants]
        # A tensor of one name may have another layout in the other model; then it is no match.
        found = OutputScores(entrants, both, isolation="each", lenient=True)
        _, score = found
    return score.by_output


def _exposed(model: Model, names: Sequence[str]) -> Model:
    return Model(expose(model.ir, names).model) if names else model


def _ordered(
    inner: Sequence[TensorFidelity], outputs: Sequence[str], figures: Mapping[str, Fidelity]
) -> Iterator[tuple[str, Fidelity]]:
    yield from ((tensor.name, tensor.fidelity) for tensor in inner)
    yield from ((name, figures[name]) for name in outputs if name in figures)


def _first_below(tensors: Sequence[tuple[str, Fidelity]], threshold_db: float) -> str | None:
    for name, figure in tensors:
        if figure.sqnr_db < threshold_db or figure.nonfinite:
            return name
    return None


def _largest_fall(tensors: Sequence[tuple[str, Fidelity]]) -> str | None:
    """Return where most is lost.

    Float32 cannot hold more than about 150 dB: equal tensors count as that, and figures above it
    come from attention masks, whose huge numbers drown the rest.
    """
    levels = [
        (name, min(figure.sqnr_db, _EQUAL_DB))
        for name, figure in tensors
        if figure.sqnr_db <= _EQUAL_DB or figure.sqnr_db == float("inf")
    ]
    falls = [(before - after, name) for (_, before), (name, after) in pairwise(levels)]
    fall, name = max(falls, default=(0.0, ""))
    return name if fall > 0 else None
