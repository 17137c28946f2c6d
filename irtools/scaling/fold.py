"""Writing scales into a model.

    member     constant <- constant * s[layout] ** power
    branched   other readers of X read  Mul(X, s)       (X is divided where it is made)
    inserted   products read            Mul(X, 1 / s)

New constants are made; the tensors of the caller's model stay. They are multiplied in float64 and
rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from irtools.analysis.scales import Cut, Member, Site
from irtools.editing import Editor, require_array, set_contents

__all__ = ["fits", "fold", "is_half"]

_LOST = 1e-6
"""Relative error of a constant, undone by its scales, from which on a scale is declined."""

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def is_half(site: Site) -> bool:
    """Whether a constant has 16 bits: then only powers of two scale it exactly."""
    return any(member.tensor.dtype in _HALVES for member in site.members)


def fits(site: Site, scales: np.ndarray) -> bool:
    """Whether scaled constants keep their digits: none leaves the range of its type."""
    factors = np.concatenate([[1.0], scales.astype(np.float64)])
    return all(_fits(member, factors[member.layout] ** member.power) for member in site.members)


def _fits(member: Member, factor: np.ndarray) -> bool:
    array = member.tensor.numpy()
    factor = _trimmed(factor, array.ndim)
    with np.errstate(over="ignore", under="ignore"):
        exact = array.astype(np.float64)
        back = (exact * factor).astype(array.dtype).astype(np.float64) / factor
        lost = float(np.square(back - exact).sum())
    return bool(lost <= _LOST**2 * float(np.square(exact).sum()))


def fold(editor: Editor, site: Site, scales: np.ndarray) -> None:
    """Divide the channels of a site by their scales, where they are made and read.

    Args:
        editor: Of the model that the site was found in.
        site: A site of the model as it is, or as folding other sites left it.
        scales: [units], positive.
    """
    factors = np.concatenate([[1.0], scales.astype(np.float64)])
    _scale_members(editor, site, factors)
    for cut in site.cuts:
        if site.way == "inserted":
            _insert(editor, cut, 1.0 / factors[cut.layout])
        else:
            _branch(editor, cut, factors[cut.layout])


def _scale_members(editor: Editor, site: Site, factors: np.ndarray) -> None:
    """Multiply the constants; those of one tensor that change alike stay one tensor."""
    whole: dict[tuple[ir.Node, int], np.ndarray] = {}
    for member in site.members:
        key = (member.node, member.input)
        factor = factors[member.layout] ** member.power
        whole[key] = whole[key] * factor if key in whole else factor
    alike: dict[tuple[ir.Value, bytes], tuple[np.ndarray, list[tuple[ir.Node, int]]]] = {}
    for place, factor in whole.items():
        value = place[0].inputs[place[1]]
        assert value is not None
        alike.setdefault((value, factor.tobytes()), (factor, []))[1].append(place)
    for (value, _), (factor, places) in alike.items():
        array = require_array(value)
        factor = _trimmed(factor, array.ndim)
        set_contents(editor, places, array.astype(np.float64) * factor, "scaled")


def _trimmed(factor: np.ndarray, rank: int) -> np.ndarray:
    """Drop axes of one element in front that the constant does not have."""
    while factor.ndim > rank and factor.shape[0] == 1:
        factor = factor[0]
    return factor


def _insert(editor: Editor, cut: Cut, factor: np.ndarray) -> None:
    scaled = _multiplied(editor, cut, factor)
    for node, position in cut.readers:
        node.replace_input_with(position, scaled)


def _branch(editor: Editor, cut: Cut, factor: np.ndarray) -> None:
    value, readers = cut.value, set(cut.readers)
    others = [(u.node, u.idx) for u in value.uses() if (u.node, u.idx) not in readers]
    others = [(node, position) for node, position in others if node.op_type != "Shape"]
    if not others and not value.is_graph_output():
        return
    restored = _multiplied(editor, cut, factor)
    for node, position in others:
        node.replace_input_with(position, restored)
    if value.is_graph_output():
        editor.replace_output(value, restored, f"{value.name}_divided")


def _multiplied(editor: Editor, cut: Cut, factor: np.ndarray) -> ir.Value:
    value = cut.value
    dtype = value.dtype or ir.DataType.FLOAT
    array = _trimmed(factor, 1).astype(dtype.numpy())
    constant = editor.constant(f"{value.name}_scales", array)
    outputs = {f"{value.name}_scaled": dtype}
    return editor.after(value, "Mul", [value, constant], outputs=outputs)
