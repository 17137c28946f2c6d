"""Values of what depends on weights alone, whatever its size."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from irtools.editing import constant_of

__all__ = ["evaluate"]

_OPERATORS = frozenset(
    {"Add", "Div", "LayerNormalization", "MatMul", "Mul", "Reshape", "Slice", "Squeeze"}
    | {"Transpose", "Unsqueeze"}
)
_MAX_NODES = 24


def evaluate(value: ir.Value) -> np.ndarray | None:
    """Compute a value that depends on constants alone, in float32; None where it does not.

    Only operators of which embeddings are projected and reshaped; no more than a few of them.
    """
    nodes: dict[ir.Node, None] = {}
    constants: dict[str, np.ndarray] = {}
    if not _collect(value, nodes, constants):
        return None
    if value.name is None or not nodes:
        return None if value.name is None else constants.get(value.name)
    graph = value.graph
    assert graph is not None
    versions = dict(graph.opset_imports) if isinstance(graph, ir.Graph) else {}
    made = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constant",
        [],
        [onnx.helper.make_empty_tensor_value_info(value.name)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = onnx.helper.make_opsetid("", versions.get("", 0))
    model = onnx.helper.make_model(made, opset_imports=[opset])
    from onnx.reference import ReferenceEvaluator  # It reads all of onnx's operators: 0.1 s.

    (result,) = ReferenceEvaluator(model).run(None, {})
    return np.ascontiguousarray(result)


def _collect(value: ir.Value, nodes: dict[ir.Node, None], constants: dict[str, np.ndarray]) -> bool:
    """Nodes and constants that a value is made of, in order; False where there are others."""
    tensor = constant_of(value)
    if tensor is not None and value.name is not None:
        constants[value.name] = tensor.numpy()
        return True
    node = value.producer()
    if node is None or node.domain != "" or node.op_type not in _OPERATORS:
        return False
    if node in nodes:
        return True
    if len(nodes) >= _MAX_NODES:
        return False
    made = all(v is None or _collect(v, nodes, constants) for v in node.inputs)
    nodes[node] = None
    return made
