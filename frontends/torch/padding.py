"""Positions that a mask hides: outputs there are ignored.

An inner network may put anything at padding (zeros on a fast path, NaN where a window of attention
leaves a row without any key), and nothing reads it. Of a network of Transformers the name of the
mask says its sense. Of any other module the sense is found by experiment: what is at hidden
positions of the inputs changes nothing at the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

__all__ = ["axes_of_sequence", "hidden_by_name", "hidden_by_trying", "spread"]

Feeds = Mapping[str, np.ndarray]

_HIDES = re.compile(r"padding_mask|pad_mask|ignore_mask")
_SHOWS = re.compile(r"attention_mask|attn_mask|valid_mask")
_LENGTHS = re.compile(r"(^|_)(len|lens|length|lengths)$")
_BLOCKED = -1e3
"""An additive mask has numbers below this where nothing is to be seen."""


def hidden_by_name(feeds: Feeds) -> np.ndarray | None:
    """Return where the padding mask hides a position, bool [B, S]; None without such a mask."""
    for name, array in feeds.items():
        if name.endswith("mask") and (found := _by_name(name, array)) is not None:
            return found
    return None


def hidden_by_trying(
    feeds: Feeds, wanted: Feeds, run: Callable[[Feeds], Feeds]
) -> tuple[np.ndarray | None, Mapping[str, tuple[int, ...]]]:
    """Find the hidden positions of a module that nothing is known of.

    Args:
        feeds: Inputs by name.
        wanted: What the module makes of them.
        run: Runs it.

    Returns:
        Hidden positions, bool [B, S], or None; and the axes of each output along which they lie.
    """
    for mask, hidden, is_named in _candidates(feeds):
        if not hidden.any() or hidden.all():
            continue
        axes = {n: _axes(array, hidden.shape) for n, array in wanted.items()}
        changed = _changes(wanted, run(_altered(feeds, hidden, mask)))
        if any((changed[n] & ~spread(hidden, wanted[n], axes[n])).any() for n in wanted):
            continue
        # Where positions do not see each other, a mask chooses among them and hides nothing.
        if not is_named:
            back = _changes(wanted, run(_altered(feeds, ~hidden, mask)))
            if not any((back[n] & spread(hidden, wanted[n], axes[n])).any() for n in wanted):
                continue
        own = {n: a for n, a in axes.items() if changed[n].any() or np.isnan(wanted[n]).any()}
        return hidden, own
    return None, {}


def axes_of_sequence(
    shapes: Sequence[tuple[int, ...]], sizes: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """Return the axes of an output that are as long as the sequence in every run.

    Args:
        shapes: Shape of the output in each run.
        sizes: Batch and sequence of each run.
    """
    if len({len(shape) for shape in shapes}) != 1:
        return ()
    each = [set(_axes(np.empty(s, bool), size)) for s, size in zip(shapes, sizes, strict=True)]
    return tuple(sorted(set.intersection(*each)))


def spread(hidden: np.ndarray, output: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Return where an output is at a hidden position, bool of its shape.

    Of attention weights [B, H, S, S] these are the rows and the columns.
    """
    found = np.zeros(output.shape, bool)
    for axis in axes:
        shape = [1] * output.ndim
        shape[0], shape[axis] = hidden.shape
        found |= hidden.reshape(shape)
    return found


def _axes(array: np.ndarray, size: tuple[int, ...]) -> tuple[int, ...]:
    batch, length = size
    if array.ndim < 2 or array.shape[0] != batch:
        return ()
    return tuple(axis for axis in range(1, array.ndim) if array.shape[axis] == length)


def _by_name(name: str, array: np.ndarray) -> np.ndarray | None:
    if _HIDES.search(name):
        return _keys(_nonzero(array))
    return _keys(~_nonzero(array)) if _SHOWS.search(name) else None


def _nonzero(array: np.ndarray) -> np.ndarray:
    """Return where a mask is set; of an additive one, where it lets through."""
    if array.dtype.kind == "f" and array.size and array.min() < _BLOCKED:
        return np.asarray(array > _BLOCKED)
    return np.asarray(array != 0)


def _keys(blocked: np.ndarray) -> np.ndarray | None:
    """Return [B, S] of a mask [B, S] or [B, (1 or H), (1 or S), S]: hidden from every query."""
    if blocked.ndim < 2:
        return None
    return np.asarray(blocked.reshape(len(blocked), -1, blocked.shape[-1]).all(axis=1))


def _candidates(feeds: Feeds) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Yield masks, what each may hide, and whether its name says so; the likeliest first."""
    unnamed: list[tuple[str, np.ndarray, bool]] = []
    for name, array in feeds.items():
        if _LENGTHS.search(name) and array.dtype.kind in "iu":
            yield from ((name, found, True) for found in _beyond(array, feeds))
        elif array.ndim >= 2 and len(np.unique(array[:1])) <= 2 >= len(np.unique(array)):
            both = [_keys(blocked) for blocked in (~_nonzero(array), _nonzero(array))]
            named = _by_name(name, array)
            if named is not None:
                yield name, named, True
            unnamed += [(name, found, False) for found in both if found is not None]
    yield from unnamed


def _beyond(lengths: np.ndarray, feeds: Feeds) -> Iterator[np.ndarray]:
    """Yield positions from a row's length on, for each size that can be the sequence's."""
    rows = lengths.reshape(len(lengths), -1)[:, 0] if lengths.ndim else lengths[None]
    top = int(rows.max(initial=0))
    for size in dict.fromkeys(
        size for a in feeds.values() if len(a.shape) > 1 for size in a.shape[1:] if size >= top
    ):
        yield np.arange(size) >= rows[:, None]


def _altered(feeds: Feeds, where: np.ndarray, mask: str) -> dict[str, np.ndarray]:
    """Return inputs with something else at these positions; the mask stays."""
    rng = np.random.default_rng(0)
    made = {}
    for name, array in feeds.items():
        axes = _axes(array, where.shape)
        if name == mask or not axes:
            made[name] = array
            continue
        # From the array itself, so that ids stay inside their table.
        other = rng.permutation(array.reshape(-1)).reshape(array.shape)
        if array.dtype.kind == "f":
            other = other + rng.normal(size=array.shape).astype(array.dtype)
        made[name] = np.where(spread(where, array, axes[:1]), other, array)
    return made


def _changes(before: Feeds, after: Feeds) -> dict[str, np.ndarray]:
    found = {}
    for name, array in before.items():
        other = after[name]
        if other.shape != array.shape:
            found[name] = np.ones(array.shape, bool)
            continue
        scale = float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) or 1.0
        same = np.isclose(array, other, rtol=0, atol=1e-5 * scale, equal_nan=True)
        found[name] = ~same
    return found
