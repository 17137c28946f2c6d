"""Statistics of activations, kept between runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from irtools.data import Batch
from irtools.measure.cache import OutputCache
from irtools.statistics import (
    GramResult,
    HistogramResult,
    MinMaxResult,
    StatisticsService,
    Want,
)

__all__ = ["KeptStatistics", "StatisticsCache"]

StatisticsCache: TypeAlias = "tuple[OutputCache, Mapping[str, object]]"
"""Where statistics are kept, and what decides them besides model and data."""

_KEPT_BYTES = 64 << 20
_RESULTS: Mapping[str, Callable[..., object]] = {
    kind.__name__: kind for kind in (GramResult, HistogramResult, MinMaxResult)
}


class KeptStatistics:
    """A statistics service whose answers are kept between runs.

    Args:
        service: Answers what is not kept; made when it is needed.
        cache: Where answers are kept, and what decides them besides `identity`.
        identity: Fingerprint of the model, digest of the data.
        known: What does not have to be asked for: number of samples, whether they are synthetic.
    """

    def __init__(
        self,
        service: Callable[[], StatisticsService],
        cache: StatisticsCache,
        identity: Mapping[str, object],
        known: tuple[int, bool],
    ) -> None:
        self._make = service
        self._service: StatisticsService | None = None
        self._cache, more = cache
        self._identity = {**identity, **{f"run {name}": value for name, value in more.items()}}
        self._answers: dict[Want, object] = {}
        self.num_samples, self.synthetic = known

    def collect(self, wants: Iterable[Want]) -> Mapping[Want, object]:
        """Answer all wants, from what was kept where all of them were asked before.

        Raises:
            IrtoolsError: As the service.
        """
        asked = tuple(dict.fromkeys(wants))
        missing = tuple(want for want in asked if want not in self._answers)
        if missing:
            self._answers |= self._found(missing)
        return {want: self._answers[want] for want in asked}

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Iterate over the data itself; see `StatisticsService.batches`.

        Raises:
            DataError: The data does not fit the model.
        """
        return self._made().batches(size)

    def _made(self) -> StatisticsService:
        if self._service is None:
            self._service = self._make()
        return self._service

    def _found(self, wants: tuple[Want, ...]) -> Mapping[Want, object]:
        text = "\n".join(map(repr, wants))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        key = OutputCache.key(what="statistics", wants=digest, **self._identity)
        kept = self._cache.get(key)
        if kept is not None and len(kept["answers"]) == len(wants):
            return {w: _restored(a) for w, a in zip(wants, kept["answers"], strict=True)}
        found = self._made().collect(wants)
        if sum(_size(found[want]) for want in wants) <= _KEPT_BYTES:
            self._cache.put(key, {"answers": [_plain(found[want]) for want in wants]})
        return found


def _plain(answer: object) -> Any:
    """Return an answer in mappings and arrays; a numpy number is an array without axes."""
    if isinstance(answer, np.generic):
        return np.asarray(answer)
    if not dataclasses.is_dataclass(answer) or isinstance(answer, type):
        return answer
    fields = {f.name: _plain(getattr(answer, f.name)) for f in dataclasses.fields(answer)}
    return {"kind": type(answer).__name__, **fields}


def _restored(plain: Any) -> object:
    if isinstance(plain, np.ndarray) and plain.ndim == 0:
        return plain[()]
    if not isinstance(plain, Mapping):
        return plain
    fields = {name: _restored(value) for name, value in plain.items() if name != "kind"}
    return _RESULTS[plain["kind"]](**fields)


def _size(answer: object) -> int:
    if isinstance(answer, np.ndarray):
        return answer.nbytes
    if not dataclasses.is_dataclass(answer):
        return 0
    return sum(_size(getattr(answer, field.name)) for field in dataclasses.fields(answer))
