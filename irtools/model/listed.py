"""Weights that a file lists as inputs, because its format or its exporter lists all of them.

Before IR version 4 every initializer had to be an input as well, and exporters went on with it for
years (PyTorch up to 1.2, `keep_initializers_as_inputs`). Taken by the letter a caller might then
override any weight, and nothing could be computed, fused, pruned or quantized.
"""

from __future__ import annotations

import onnx

from irtools.words import counted

__all__ = ["drop_listed_weights"]

_FREE_SINCE = 4
"""IR version from which on an initializer need not be an input."""
_MATRIX = 2


def drop_listed_weights(message: onnx.ModelProto) -> tuple[str, ...]:
    """Take weights out of the inputs, in place, where the file lists all of them.

    From IR version 4 on a weight among the inputs is an offer to callers where others are not
    listed, where it is the only one, or where there are only scalars and vectors; it stays one.

    Returns:
        A note, where there were any.
    """
    graph = message.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    names = {*weights, *(sparse.values.name for sparse in graph.sparse_initializer)}
    inputs = [value for value in graph.input if value.name not in names]
    listed = len(graph.input) - len(inputs)
    if not listed:
        return ()
    has_matrix = any(len(weight.dims) >= _MATRIX for weight in weights.values())
    is_habit = listed == len(names) > 1 and has_matrix
    if message.ir_version >= _FREE_SINCE and not is_habit:
        return ()
    del graph.input[:]
    graph.input.extend(inputs)
    message.ir_version = max(message.ir_version, _FREE_SINCE)
    return (
        f"the file lists {counted(listed, 'weight')} as inputs, as all files had to before IR "
        f"version {_FREE_SINCE}: taken as constants",
    )
