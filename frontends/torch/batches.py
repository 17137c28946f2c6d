"""Which batch sizes a torch module holds for, and where its inputs have the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

import numpy as np

__all__ = ["Batches", "find_batches", "rebatched", "size_of_batch"]

Feeds = Mapping[str, np.ndarray]

OTHER_SIZES = (1, 2, 3)
_TRIES = 24


@dataclass(frozen=True)
class Batches:
    """What was found by running a module.

    Attributes:
        size: Batch of the example.
        axes: Batch axis of each input; None where it has none.
        failed: Sizes at which the module does not run, and why.
    """

    size: int
    axes: Mapping[str, int | None]
    failed: Mapping[int, str]

    @property
    def is_fixed(self) -> bool:
        """Whether the module holds for the example's batch alone, one sample apart."""
        return any(size != 1 for size in self.failed) or (self.size == 1 and bool(self.failed))

    @property
    def reason(self) -> str:
        """Where it does not run, and why."""
        size = max(self.failed)
        return f"at batch {size}: {self.failed[size]}"


def find_batches(example: Feeds, run: Callable[[Feeds], str | None]) -> Batches:
    """Run a module at other batch sizes than the example's.

    Axis 0 is the batch wherever it has its size; where the module does not run so, other axes of
    that size are tried (states of a recurrent layer are [layers, batch, width]), and inputs left
    as they are.

    Args:
        example: Inputs that it runs on.
        run: Runs it; returns why it fails, or None.
    """
    size = size_of_batch(example)
    first: Batches | None = None
    for axes in islice(_layouts(example, size), _TRIES):
        failed = {}
        # The largest first: what does not hold for three samples needs no other try.
        for other in sorted(set(OTHER_SIZES) - {size}, reverse=True):
            reason = run(rebatched(example, axes, other))
            if reason is not None:
                failed[other] = reason
        found = Batches(size, axes, failed)
        if not failed:
            return found
        if first is None or (first.is_fixed and not found.is_fixed):
            first = found
    return first or Batches(size, dict.fromkeys(example), {})


def rebatched(example: Feeds, axes: Mapping[str, int | None], batch: int) -> dict[str, np.ndarray]:
    """Repeat or cut the samples of an example to `batch`."""
    made = {}
    for name, array in example.items():
        axis = axes[name]
        if axis is None:
            made[name] = array.copy()
        else:
            made[name] = array.take(np.arange(batch) % array.shape[axis], axis=axis)
    return made


def size_of_batch(example: Feeds) -> int:
    """Return the batch of an example: the leading size that most inputs have."""
    sizes = [len(array) for array in example.values() if array.ndim]
    return max(sizes, key=sizes.count, default=1)


def _layouts(example: Feeds, size: int) -> Iterator[dict[str, int | None]]:
    choices = []
    for array in example.values():
        axes: list[int | None] = [a for a in range(array.ndim) if array.shape[a] == size]
        choices.append([*axes, None])
    for chosen in product(*choices):
        if any(axis is not None for axis in chosen):
            yield dict(zip(example, chosen, strict=True))
