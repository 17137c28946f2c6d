"""Axes of a model's inputs whose size a caller chooses, and the names by which to choose it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx_ir as ir

from irtools.data.drawer import SyntheticSettings
from irtools.data.signature import required_inputs
from irtools.data.synthetic import layout_for
from irtools.errors import UsageError
from irtools.model import Model

__all__ = ["OpenAxis", "named_sizes", "open_axes", "resolve_sizes"]

_IMAGE_RANK = 4


@dataclass(frozen=True)
class OpenAxis:
    """Dynamic axes that have one size.

    Attributes:
        key: Their name, or INPUT.AXIS where they have none.
        places: Input names and axes.
        of_image: Whether it is a side of an image, or of a map of features.
        is_batch: Whether samples lie along it.
    """

    key: str
    places: tuple[tuple[str, int], ...]
    of_image: bool
    is_batch: bool


def open_axes(
    model: Model | ir.Model, settings: SyntheticSettings = SyntheticSettings()
) -> tuple[OpenAxis, ...]:
    """Return the dynamic axes of all inputs, one for all axes of a name.

    Sums of names (`past + sequence`) are left out: they follow from the others.
    """
    layout = layout_for(model, settings)
    found: dict[str, OpenAxis] = {}
    for spec in required_inputs(model):
        shape = spec.shape
        if shape is None:
            shape = (None,) * (settings.rank or 0)
        for axis, size in enumerate(shape):
            if isinstance(size, int) or (size is not None and "+" in size):
                continue
            key = size or f"{spec.name}.{axis}"
            known = found.get(key, OpenAxis(key, (), of_image=False, is_batch=False))
            found[key] = replace(
                known,
                places=(*known.places, (spec.name, axis)),
                of_image=known.of_image or (len(shape) == _IMAGE_RANK and spec.dtype.kind == "f"),
                is_batch=known.is_batch or layout.axes.get(spec.name) == axis,
            )
    return tuple(found.values())


def resolve_sizes(model: Model | ir.Model, given: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    """Return the sizes of `--size` by the names that settings know, `""` for the batch.

    Args:
        model: The model.
        given: Names and sizes: of an axis (`audio`), of an input with one open axis, or
            INPUT.AXIS.

    Raises:
        UsageError: A name that no open axis has; lists those that there are.
    """
    asked = tuple(given)
    axes = open_axes(model) if asked else ()
    sizes: dict[str, int] = {}
    for name, size in asked:
        axis = _find(axes, name)
        if axis is None:
            raise UsageError(
                f"--size {name}={size}: no open axis is called so; open are {_listed(axes)}"
            )
        sizes["" if axis.is_batch else axis.key] = size
    return MappingProxyType(sizes)


def named_sizes(model: Model | ir.Model, settings: SyntheticSettings) -> SyntheticSettings:
    """Return settings whose sizes are named as `resolve_sizes` reads them, by axis.

    Raises:
        UsageError: A name that no open axis has.
    """
    sizes = dict(resolve_sizes(model, (settings.sizes or {}).items()))
    together = sizes.pop("", settings.together)
    return replace(settings, sizes=sizes or None, together=together)


def _find(axes: Iterable[OpenAxis], name: str) -> OpenAxis | None:
    """Return the axis that a name stands for."""
    axes = tuple(axes)
    exact = [axis for axis in axes if axis.key == name]
    exact += [axis for axis in axes if name in {f"{i}.{a}" for i, a in axis.places}]
    of_input = [axis for axis in axes if not axis.is_batch and name in {i for i, _ in axis.places}]
    if exact:
        return exact[0]
    return of_input[0] if len(of_input) == 1 else None


def _listed(axes: Iterable[OpenAxis]) -> str:
    return (
        ", ".join(
            f"{axis.key} ({', '.join(f'{name} axis {place}' for name, place in axis.places)})"
            for axis in axes
        )
        or "none: the model states all sizes"
    )
