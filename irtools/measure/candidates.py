"""Ways to draw inputs, the most likely to run first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod

import onnx_ir as ir

from irtools.data import InputSpec, OpenAxis, SyntheticSettings, open_axes, required_inputs
from irtools.measure.hints import suggested_sizes

__all__ = ["candidates"]

# Powers of two, sizes of images, and sizes of windows and chunks of sound at 16 kHz.
_LADDER = (
    *(16, 64, 32, 128, 224, 256, 8, 4, 320, 512, 640, 2, 1, 1024, 100, 400, 80, 299, 96),
    *(2048, 4000, 8000, 16000, 32000, 48000),
)
_SHORT = (16, 64, 1, 128, 2, 32, 4, 8, 256, 640, 1024, 16000)
_SIDES = (224, 256, 320, 640, 32, 64)
_VALUES = (1, 2, 4, 8, 16, 32, 64, 128, 224, 3, 0)
_RANKS = (2, 4, 3, 1)
_SCANNED = 400
_MOST_AXES = 3
_MOST_ELEMENTS = 1 << 22


def candidates(
    model: ir.Model, base: SyntheticSettings, known: Mapping[str, int]
) -> Iterator[SyntheticSettings]:
    """Yield settings to try in turn; endless enough for the caller to bound it.

    First the usual sizes with fewer samples at a time and with a call per sample, then masks that
    hide by what others show by, then one axis short (graphs among their nodes, a state among
    samples), then sizes that the graph suggests, then a ladder of sizes: the same for all axes,
    images and others apart, then every size up to 400, also of all axes but the first, and last
    the long end of the ladder and a short ladder for each axis. Sizes that would ask for much
    memory are left out.

    Args:
        model: The model.
        base: What is drawn usually; its `sizes` are the caller's and stay.
        known: Sizes of open axes that real samples have; none: no samples are known.
    """
    specs = required_inputs(model)
    for ranked in _with_ranks(model, base):
        for settings in _of_rank(model, ranked, known):
            if _elements(specs, settings) <= _MOST_ELEMENTS:
                yield settings


def _elements(specs: Sequence[InputSpec], settings: SyntheticSettings) -> int:
    """Return about how many elements the largest input of a call has."""
    sizes = settings.sizes or {}
    largest = 1
    for spec in specs:
        shape = (None,) * (settings.rank or 0) if spec.shape is None else spec.shape
        named = (
            sizes.get(f"{spec.name}.{axis}", sizes.get(size or "", 1))
            if not isinstance(size, int)
            else size
            for axis, size in enumerate(shape)
        )
        largest = max(largest, prod(named))
    return largest


def _with_ranks(model: ir.Model, base: SyntheticSettings) -> Iterator[SyntheticSettings]:
    if all(spec.shape is not None for spec in required_inputs(model)):
        yield base
        return
    for rank in _RANKS:
        yield replace(base, rank=rank)


def _of_rank(
    model: ir.Model, base: SyntheticSettings, known: Mapping[str, int]
) -> Iterator[SyntheticSettings]:
    modes = [base, replace(base, together=1), replace(base, calls=True)]
    axes = {mode.calls: _free(model, mode) for mode in modes}
    for mode in modes:
        if known:
            yield _sized(mode, {axis.key: known.get(axis.key, 1) for axis in axes[mode.calls]})
        yield _sized(mode, {axis.key: _usual(axis, mode) for axis in axes[mode.calls]})
    yield from _unmasked(model, base, axes[base.calls])
    yield from _valued(model, modes[1], axes[False])
    yield from _one_short(base, axes[base.calls])
    small = [size for size in _LADDER if size < _SCANNED]
    large = [size for size in _LADDER if size >= _SCANNED]
    for size in (*suggested_sizes(model), *small):
        for mode in modes[1:]:
            yield _uniform(mode, axes[mode.calls], size)
    one = modes[1]
    yield from _by_kind(one, axes[False])
    for size in range(1, _SCANNED):
        yield _uniform(one, axes[False], size)
    yield from _columns(modes[2], axes[True])
    for size in large:
        for mode in modes[1:]:
            yield _uniform(mode, axes[mode.calls], size)
    for mode in modes[1:]:
        yield from _by_axis(mode, axes[mode.calls], suggested_sizes(model))


def _free(model: ir.Model, mode: SyntheticSettings) -> tuple[OpenAxis, ...]:
    """Return the axes whose size is still open."""
    taken = mode.sizes or {}
    return tuple(
        axis for axis in open_axes(model, mode) if not axis.is_batch and axis.key not in taken
    )


def _usual(axis: OpenAxis, mode: SyntheticSettings) -> int:
    return mode.image if axis.of_image else mode.sequence


def _sized(mode: SyntheticSettings, sizes: Mapping[str, int]) -> SyntheticSettings:
    return replace(mode, sizes={**sizes, **(mode.sizes or {})})


def _uniform(mode: SyntheticSettings, axes: tuple[OpenAxis, ...], size: int) -> SyntheticSettings:
    return _sized(mode, {axis.key: size for axis in axes})


def _by_kind(mode: SyntheticSettings, axes: tuple[OpenAxis, ...]) -> Iterator[SyntheticSettings]:
    """Yield sides of images and other axes apart."""
    if not any(axis.of_image for axis in axes):
        return
    for side, size in product(_SIDES, _SHORT):
        yield _sized(mode, {axis.key: side if axis.of_image else size for axis in axes})


def _by_axis(
    mode: SyntheticSettings, axes: tuple[OpenAxis, ...], hints: list[int]
) -> Iterator[SyntheticSettings]:
    """Yield each combination over a short ladder, where there are few axes."""
    if not 1 < len(axes) <= _MOST_AXES:
        return
    ladder = tuple(dict.fromkeys((*hints[:_MOST_AXES], *_SHORT)))
    for sizes in product(ladder, repeat=len(axes)):
        yield _sized(mode, {axis.key: size for axis, size in zip(axes, sizes, strict=True)})


def _columns(mode: SyntheticSettings, axes: tuple[OpenAxis, ...]) -> Iterator[SyntheticSettings]:
    """Yield first axes as usual and every size of the others: frames without a batch axis."""
    first = {axis.key for axis in axes if any(not place for _, place in axis.places)}
    if not 0 < len(first) < len(axes):
        return
    for size in range(1, _SCANNED):
        sizes = {axis.key: _usual(axis, mode) if axis.key in first else size for axis in axes}
        yield _sized(mode, sizes)


def _one_short(mode: SyntheticSettings, axes: tuple[OpenAxis, ...]) -> Iterator[SyntheticSettings]:
    """Yield one axis short and the others as usual, where there are several."""
    if len(axes) < 2:
        return
    usual = {axis.key: _usual(axis, mode) for axis in axes}
    for size, axis in product((2, 1), axes):
        yield _sized(mode, {**usual, axis.key: size})


def _unmasked(
    model: ir.Model, mode: SyntheticSettings, axes: tuple[OpenAxis, ...]
) -> Iterator[SyntheticSettings]:
    """Yield masks of zeros: where 1 hides, masks of ones leave nothing to attend to."""
    names = [
        spec.name
        for spec in required_inputs(model)
        if spec.dtype.kind in "iub" and "mask" in spec.name
    ]
    if names:
        valued = replace(mode, values={**dict.fromkeys(names, 0), **(mode.values or {})})
        yield _sized(valued, {axis.key: _usual(axis, mode) for axis in axes})


def _valued(
    model: ir.Model, mode: SyntheticSettings, axes: tuple[OpenAxis, ...]
) -> Iterator[SyntheticSettings]:
    """Yield values of small integer inputs, which may be sizes, counts or places."""
    names = [
        spec.name
        for spec in required_inputs(model)
        if spec.dtype.kind == "i" and spec.shape is not None and len(spec.shape) <= 1
    ]
    if not names:
        return
    for value in _VALUES:
        valued = replace(mode, values=dict.fromkeys(names, value))
        yield _sized(valued, {axis.key: _usual(axis, mode) for axis in axes})
