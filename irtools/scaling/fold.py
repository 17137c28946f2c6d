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

from irtools.editing import Editor, require_array, set_contents
from irtools.analysis.scales.sites import Cut, Site

__all__ = ["fold"]


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
    alike: dict[tuple[ir.Value, bytes], list[tuple[ir.Node, int]]] = {}
    shapes: dict[tuple[ir.Value, bytes], np.ndarray] = {}
    for (node, position), factor in whole.items():
        value = node.inputs[position]
        assert value is not None
        places = (value, factor.tobytes())
        alike.setdefault(places, []).append((node, position))
        shapes[places] = factor
    for (value, digest), places in alike.items():
        array = require_array(value)
        factor = _trimmed(shapes[value, digest], array.ndim)
        scaled = (array.astype(np.float64) * factor).astype(array.dtype)
        set_contents(editor, places, scaled, "scaled")


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
