"""Scores of models on samples, kept between runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irtools.measure.cache import OutputCache
from irtools.measure.contest.samples import Part
from irtools.metrics import Fidelity, PerSampleMetric
from irtools.model import Model
from irtools.targets import RunnerOptions

__all__ = ["Asked", "KeptScores"]

_OURS = "irtools."


@dataclass(frozen=True)
class Asked:
    """What is to be measured of a model.

    Attributes:
        part: The samples.
        options: How the model runs.
        compared: Fidelity is asked for.
        metrics: Those whose rows are asked for.
    """

    part: Part
    options: RunnerOptions
    compared: bool
    metrics: tuple[PerSampleMetric, ...] = ()


class KeptScores:
    """What was measured of models, by the hashes of all that decides it.

    Args:
        cache: Where it is kept; None: nowhere.
        identity: What decides scores besides model and samples: the original and the data it was
            compared on, runtime, machine, code.
    """

    def __init__(self, cache: OutputCache | None, identity: Mapping[str, object]) -> None:
        self._cache = cache
        self._identity = dict(identity)

    def get(
        self, model: Model, asked: Asked
    ) -> tuple[Fidelity | None, tuple[np.ndarray, ...]] | None:
        """Return fidelity and the rows of each metric; None: they must be measured."""
        if self._cache is None or not all(map(_is_ours, asked.metrics)):
            return None
        found: Any = self._cache.get(self._key(model, asked))
        if found is None:
            return None
        fidelity = None if found["fidelity"] is None else Fidelity(**found["fidelity"])
        return fidelity, tuple(found["rows"])

    def put(
        self,
        model: Model,
        asked: Asked,
        fidelity: Fidelity | None,
        rows: Sequence[np.ndarray],
    ) -> None:
        """Keep what was measured."""
        if self._cache is None or not all(map(_is_ours, asked.metrics)):
            return
        plain = None if fidelity is None else _plain(fidelity)
        self._cache.put(self._key(model, asked), {"fidelity": plain, "rows": list(rows)})

    def _key(self, model: Model, asked: Asked) -> str:
        companions = hashlib.sha256()
        for name, content in sorted(model.companions.items()):
            companions.update(f"{name}\0{len(content)}\0".encode() + content)
        return OutputCache.key(
            what="score",
            model=model.fingerprint(),
            companions=companions.hexdigest(),
            rows=asked.part.digest,
            batch=asked.part.batch,
            options=asked.options,
            compared=asked.compared,
            metrics=[_named(metric) for metric in asked.metrics],
            **{f"of {name}": value for name, value in self._identity.items()},
        )


def _is_ours(metric: object) -> bool:
    """Whether the code of a metric is known by the version: a caller's may change at any time."""
    return type(metric).__module__.startswith(_OURS)


def _named(metric: object) -> str:
    return f"{type(metric).__module__}.{type(metric).__qualname__} {sorted(vars(metric).items())}"


def _plain(fidelity: Fidelity) -> dict[str, Any]:
    found = dataclasses.asdict(fidelity)
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in found.items()}
