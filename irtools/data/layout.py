"""Where the samples of each input lie: along an axis, or one whole array per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from irtools.data.signature import InputSpec, Shape, required_inputs, shape_of
from irtools.model import Model

__all__ = ["Layout", "find_layout", "layout_of"]

_IMAGE_CHANNELS = 3
_IMAGE_RANK = 3
_PAIR = 2


@dataclass(frozen=True)
class Layout:
    """How the inputs of one call are made of samples.

    Attributes:
        axes: Input name to the axis along which its samples lie: 0 of most, 1 of a recurrent
            state [layers, batch, width]. Inputs that are not named are given per sample and fed
            whole: a rate [], sizes [2], one image [3, H, W].
        fixed: Samples that the model takes at a time; None: any number.
        named: All inputs.
    """

    axes: Mapping[str, int]
    fixed: int | None
    named: frozenset[str]

    def is_whole(self, name: str) -> bool:
        """Whether each sample holds this input as the model takes it."""
        return name not in self.axes

    def inner(self) -> Mapping[str, int]:
        """Return the inputs whose samples lie along another axis than the first."""
        return {name: axis for name, axis in self.axes.items() if axis}


def find_layout(model: Model | ir.Model) -> Layout:
    """Return how a model's inputs are made of samples, by what it states.

    Raises:
        UnsupportedError: An input that is not a tensor.
    """
    graph = (model.ir if isinstance(model, Model) else model).graph
    return layout_of(required_inputs(model), [shape_of(value) for value in graph.outputs])


def layout_of(specs: Iterable[InputSpec], outputs: Sequence[Shape | None] = (None,)) -> Layout:
    """As `find_layout`, by the inputs and the shapes of the outputs.

    The first axis is the batch where it is dynamic, unless another one is called so ([time, batch,
    width]). A static first axis next to dynamic ones
    holds no samples unless it is 1, or an output begins with it, too, and it is not the only axis
    (the state [25] of one stream). Where all first axes are
    static and equal, they are a batch of that size, unless no output begins with it; where they
    differ, those of size 1 are a batch of 1, and the others are fed whole. A graph (nodes with a
    list of edges) is one sample, since its edges count its nodes.

    Args:
        specs: What the model must be fed.
        outputs: Shapes of its outputs; None where the rank is unknown.
    """
    specs = tuple(specs)
    names = frozenset(spec.name for spec in specs)
    if any(_is_edge_list(spec) for spec in specs):
        return Layout(MappingProxyType({}), 1, names)
    first = {spec.name: spec.shape[0] for spec in specs if spec.shape}
    unknown = {spec.name: 0 for spec in specs if spec.shape is None}
    if any(not isinstance(size, int) for size in first.values()) or unknown:
        return _dynamic(specs, unknown, outputs)
    sizes = {size for size in first.values() if isinstance(size, int)}
    if not sizes:
        return Layout(MappingProxyType({}), 1, names)
    return _static(specs, first, sizes, outputs)


def _dynamic(
    specs: Sequence[InputSpec],
    unknown: Mapping[str, int],
    outputs: Sequence[Shape | None],
) -> Layout:
    time_first = {spec.name: axis for spec in specs if (axis := _batch_after_time(spec))}
    batches = {spec.shape[time_first.get(spec.name, 0)] for spec in specs if spec.shape}
    symbols = {size for size in batches if isinstance(size, str)}
    axes: dict[str, int] = {**unknown, **time_first}
    fixed: int | None = None
    for spec in specs:
        if not spec.shape or spec.name in time_first:
            continue
        size = spec.shape[0]
        inner = next((a for a, s in enumerate(spec.shape) if a and s in symbols), None)
        if not isinstance(size, int):
            axes[spec.name] = 0
        elif inner is not None:
            axes[spec.name] = inner
        elif size == 1 or (len(spec.shape) > 1 and _begins(outputs, size)):
            axes[spec.name] = 0
            fixed = size
    return Layout(MappingProxyType(axes), fixed, frozenset(spec.name for spec in specs))


def _batch_after_time(spec: InputSpec) -> int | None:
    """Return the axis after a dynamic first one whose name says that samples lie along it."""
    names = [size if isinstance(size, str) else "" for size in spec.shape or ()]
    if not names or not names[0] or _names_batch(names[0]):
        return None
    return next((axis for axis, name in enumerate(names) if _names_batch(name)), None)


def _names_batch(name: str) -> bool:
    return name.lower() in {"b", "bs"} or "batch" in name.lower()


def _static(
    specs: Sequence[InputSpec],
    first: Mapping[str, int | str | None],
    sizes: set[int],
    outputs: Sequence[Shape | None],
) -> Layout:
    batch: int | None
    if len(sizes) == 1:
        (batch,) = sizes
        if batch > 1 and (_nowhere(outputs, batch) or _is_image(specs, batch, outputs)):
            batch = None
    elif 1 in sizes:
        batch = 1
    else:
        batch = next((size for size in sorted(sizes) if _begins(outputs, size)), None)
    axes = {} if batch is None else {name: 0 for name, size in first.items() if size == batch}
    return Layout(MappingProxyType(axes), batch or 1, frozenset(spec.name for spec in specs))


def _is_edge_list(spec: InputSpec) -> bool:
    """Whether an input holds pairs of nodes, [2, edges], as PyTorch Geometric names them."""
    shape = spec.shape
    return (
        "edge" in spec.name.lower()
        and spec.dtype.kind == "i"
        and shape is not None
        and len(shape) == _PAIR
        and _PAIR in shape
    )


def _begins(outputs: Sequence[Shape | None], size: int) -> bool:
    """Whether an output is known to have this first axis."""
    return any(bool(shape) and shape[0] == size for shape in outputs if shape is not None)


def _nowhere(outputs: Sequence[Shape | None], size: int) -> bool:
    """Whether no output can have this first axis."""
    return bool(outputs) and all(
        shape is not None and (not shape or (isinstance(shape[0], int) and shape[0] != size))
        for shape in outputs
    )


def _is_image(specs: Sequence[InputSpec], size: int, outputs: Sequence[Shape | None]) -> bool:
    """Whether the only input with axes is an image [3, H, W] without a batch axis."""
    shapes = [spec.shape for spec in specs if spec.shape]
    return (
        size == _IMAGE_CHANNELS
        and len(shapes) == 1
        and len(shapes[0]) == _IMAGE_RANK
        and all(not isinstance(side, int) or side > _IMAGE_CHANNELS for side in shapes[0][1:])
        and not _begins(outputs, size)
    )
