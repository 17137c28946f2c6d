"""Which module of the source a node comes from."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Sequence

import onnx_ir as ir

from irtools.editing import SCOPES, constant_of

__all__ = ["module_name", "module_of", "selects"]


def module_of(node: ir.Node) -> str:
    """Return the dotted name of the module that a node comes from, or '' where it is not known.

    Read from the scopes in the metadata, else from a path-like node name; unlike `module_name`,
    never guessed from parameters.
    """
    return _from_scopes(node) or _from_path(node)


def selects(patterns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first pattern that selects one of the names of a part of a model.

    A pattern may hold `*`, `?` and `[..]`, and matches whole words: `layer.1` is found in
    `encoder.layer.1.output`, but not in `encoder.layer.11.output`.
    """
    for pattern in patterns:
        inner = fnmatch.translate(pattern).removeprefix("(?s:").removesuffix(r")\z")
        inner = inner.removesuffix(r")\Z")
        found = re.compile(rf"(?<![A-Za-z0-9])(?s:{inner})(?![A-Za-z0-9])")
        if any(found.search(name) for name in names):
            return pattern
    return None


def module_name(node: ir.Node) -> str:
    """Return the dotted module name that a node was exported from.

    Read, in this order, from the scopes that `torch.onnx.export(dynamo=True)` writes into the
    metadata, from a path-like node name of the TorchScript exporter
    (`/encoder/layer.0/output/dense/MatMul`) or of ours (`encoder.layer.0.output.dense/MatMul`),
    from the name of a parameter of the node or of the bias that is added to it. Falls back to the
    node's own name, then to its first output's.
    """
    return (
        _from_scopes(node)
        or _from_path(node)
        or _from_parameter(node)
        or node.name
        or (node.outputs[0].name if node.outputs else None)
        or node.op_type
    )


def _from_scopes(node: ir.Node) -> str:
    try:
        scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    except (ValueError, SyntaxError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2:
        return ""
    # The last scope is the operator inside its module, the first one the model itself.
    return str(scopes[-2])


def _from_path(node: ir.Node) -> str:
    name = node.name or ""
    if not name.startswith("/"):
        # As our own exports name nodes; what a pass makes of one may add to the end.
        module, _, leaf = name.rpartition("/")
        return module if _is_dotted(module) and leaf.startswith(node.op_type) else ""
    parts = name.strip("/").split("/")[:-1]
    if not parts:
        return ""  # `/Concat`: an operator of the model itself, in no module.
    # Sequential containers repeat their own name as a prefix of their children's.
    kept = [p for p, after in zip(parts, [*parts[1:], ""], strict=True) if not _repeats(p, after)]
    return ".".join(kept)


def _is_dotted(name: str) -> bool:
    return re.fullmatch(r"\w+(\.\w+)*", name) is not None


def _repeats(name: str, child: str) -> bool:
    return child.startswith(name + ".")


def _from_parameter(node: ir.Node) -> str:
    values = [*node.inputs]
    if len(node.outputs) == 1:
        for user, _ in node.outputs[0].uses():
            if user.op_type == "Add":
                values.extend(user.inputs)
    for value in values:
        if value is None or value.name is None or constant_of(value) is None:
            continue
        module, _, leaf = value.name.rpartition(".")
        if module and leaf in ("weight", "bias"):
            return module
    return ""
