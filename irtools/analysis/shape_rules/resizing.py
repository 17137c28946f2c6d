"""Pictures and signals made larger, smaller, or sampled elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from irtools.analysis.dims import Dim, add, divide, multiply
from irtools.analysis.facts import Shape, ShapeFacts
from irtools.analysis.shape_rules.common import (
    input_at,
    int_attribute,
    ints_attribute,
    numbers,
    product,
    unknown,
    unknown_shape,
)

__all__ = [
    "affine_grid",
    "center_crop_pad",
    "col2im",
    "depth_to_space",
    "grid_sample",
    "pad",
    "resize",
    "space_to_depth",
    "upsample",
]


def pad(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    x = facts.shape(node.inputs[0])
    if x is None:
        return [None]
    pads: Sequence[Dim] | None = ints_attribute(node, "pads") or ints_attribute(node, "paddings")
    if pads is None:
        pads = numbers(input_at(node, 1), facts)
    axes: Sequence[Dim] | None = range(len(x))
    if input_at(node, 3) is not None:
        axes = numbers(node.inputs[3], facts)
    if pads is None or axes is None or len(pads) != 2 * len(axes):
        return [unknown_shape(node, len(x))]
    dims = list(x)
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        if not isinstance(axis, int):
            return [unknown_shape(node, len(x))]
        dims[axis] = add(add(dims[axis], before), after)
    return [tuple(dims)]


def resize(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    dims: list[Dim] = [unknown(node, axis) for axis in range(len(shape))]
    axes = [a % len(shape) for a in ints_attribute(node, "axes") or range(len(shape))]
    for axis in set(range(len(shape))).difference(axes):
        dims[axis] = shape[axis]
    sizes = facts.integers(node.inputs[3]) if len(node.inputs) > 3 else None
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and len(sizes) == len(axes) and policy == "stretch":
        for axis, size in zip(axes, sizes, strict=True):
            dims[axis] = size
    scales = facts.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scales is not None and scales.size == len(axes):
        crops = node.attributes.get_string("coordinate_transformation_mode", "")
        for axis, scale in zip(axes, scales.numpy().astype(np.float32), strict=True):
            size = shape[axis]
            if scale == 1:
                dims[axis] = size
            elif isinstance(size, int) and crops != "tf_crop_and_resize":
                dims[axis] = int(np.float32(size) * scale)
    return [tuple(dims)]


def upsample(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """Scales are an attribute before opset 9 and an input after: floor(size * scale)."""
    shape = facts.shape(node.inputs[0])
    if shape is None:
        return [None]
    given = node.attributes.get("scales")
    stored = facts.constant(input_at(node, 1))
    if given is not None:
        scales = np.asarray(given.value, np.float32)
    elif stored is not None:
        scales = stored.numpy()
    else:
        return [unknown_shape(node, len(shape))]
    dims: list[Dim] = []
    for axis, (size, scale) in enumerate(zip(shape, scales.tolist(), strict=False)):
        if isinstance(size, int):
            dims.append(int(size * scale))
        else:
            dims.append(multiply(size, int(scale)) if scale == int(scale) else unknown(node, axis))
    return [tuple(dims)]


def depth_to_space(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    return [_blocks(node, facts, into_space=True)]


def space_to_depth(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    return [_blocks(node, facts, into_space=False)]


def _blocks(node: ir.Node, facts: ShapeFacts, *, into_space: bool) -> Shape | None:
    shape, side = facts.shape(node.inputs[0]), int_attribute(node, "blocksize", 1)
    if shape is None or len(shape) != 4:
        return None
    batch, channels, *sizes = shape
    if into_space:
        return (
            batch,
            divide(channels, side * side) or unknown(node, 1),
            *(multiply(size, side) for size in sizes),
        )
    spatial = (divide(size, side) or unknown(node, axis + 2) for axis, size in enumerate(sizes))
    return (batch, multiply(channels, side * side), *spatial)


def center_crop_pad(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    shape, sizes = facts.shape(node.inputs[0]), numbers(input_at(node, 1), facts)
    if shape is None:
        return [None]
    axes = ints_attribute(node, "axes") or tuple(range(len(shape)))
    dims = list(shape)
    for index, axis in enumerate(axes):
        dims[axis] = unknown(node, axis % len(shape)) if sizes is None else sizes[index]
    return [tuple(dims)]


def col2im(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """[N, C * prod(block), L] -> [N, C, image...]."""
    x = facts.shape(node.inputs[0])
    image, block = numbers(input_at(node, 1), facts), numbers(input_at(node, 2), facts)
    if x is None:
        return [None]
    if image is None:
        length = facts.shape(input_at(node, 1))
        axes = length[0] if length else None
        return [unknown_shape(node, 2 + axes) if isinstance(axes, int) else None]
    channels = None if block is None else divide(x[1], product(block))
    return [(x[0], channels or unknown(node, 1), *image)]


def affine_grid(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """size (N, C, spatial...) -> [N, spatial..., number of spatial axes]."""
    size = numbers(input_at(node, 1), facts)
    if size is not None:
        return [(size[0], *size[2:], len(size) - 2)]
    length = facts.shape(input_at(node, 1))
    if length is None or not isinstance(length[0], int):
        return [None]
    spatial = length[0] - 2
    return [(*unknown_shape(node, spatial + 1), spatial)]


def grid_sample(node: ir.Node, facts: ShapeFacts) -> Sequence[Shape | None]:
    """X [N, C, ...] at grid [N, spatial..., axes] -> [N, C, spatial...]."""
    x, grid = (facts.shape(value) for value in node.inputs[:2])
    return [None if x is None or grid is None else (*x[:2], *grid[1:-1])]
