"""The figure of closeness along the graph: where the result leaves the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irtools.errors import DataError, UnsupportedError, UsageError
from irtools.measure.divergence import compare_models
from irtools.measure.figures import Figure, Occasion
from irtools.passmanager import Instrument, Step

__all__ = ["Layer", "Layers", "LayersMeter"]

_SAMPLES = 16


@dataclass(frozen=True)
class Layer:
    """A tensor that the original and the result both name.

    Attributes:
        name: Of the tensor.
        module: Module of the source that it comes from; empty: not known.
        op: Operator that makes it in the original.
        sqnr_db: Signal-to-noise ratio against the original's, in dB; infinite where equal.
    """

    name: str
    module: str
    op: str
    sqnr_db: float


@dataclass(frozen=True)
class Layers(Figure):
    """Closeness of inner tensors to the original's; `--figures layers` measures it.

    Both models run exactly, without the runtime's own optimizations.

    Attributes:
        samples: They were compared on.
        layers: In the order in which the original computes them.
        unmatched: Float tensors of the original that the result does not have.
        largest_fall: Tensor at which the ratio falls most against the one before it.
    """

    key: ClassVar[str] = "layers"
    rank: ClassVar[int] = 65
    is_flat: ClassVar[bool] = False

    samples: int
    layers: tuple[Layer, ...]
    unmatched: int
    largest_fall: str | None

    @classmethod
    def instrument(cls, occasion: Occasion) -> LayersMeter:
        return LayersMeter(occasion)


class LayersMeter(Instrument):
    """Compares inner tensors of the original and of the result, once, at the end.

    Args:
        occasion: Where models run, and on what.
    """

    name: ClassVar[str] = "layers"

    def __init__(self, occasion: Occasion) -> None:
        self._occasion = occasion

    def end(self, step: Step) -> None:
        data = self._occasion.data
        if data is None:
            step.figures.notes.append("the layers are not compared: there are no samples")
            return
        threads = self._occasion.bench.threads
        try:
            found = compare_models(
                step.original,
                step.model,
                data.spread(_SAMPLES),
                self._occasion.target,
                layers=True,
                threads=threads,
            )
        except (DataError, UnsupportedError, UsageError) as error:
            step.figures.notes.append(f"the layers are not compared: {error}")
            return
        layers = tuple(
            Layer(one.name, one.module, one.producer, one.fidelity.sqnr_db) for one in found.layers
        )
        step.figures.put(Layers(found.samples, layers, found.unmatched, found.largest_fall))
