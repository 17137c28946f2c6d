"""Which part of a model a node belongs to, and whether a pattern selects it."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from irtools.passes.quantization.sites import Weight

__all__ = ["module_of", "names_of", "selects"]

_SCOPES = "pkg.torch.onnx.name_scopes"
_ANONYMOUS = re.compile(r"(val|onnx::\w+|_v)_\d+|")


def module_of(node: ir.Node) -> str:
    """Return the dotted name of the torch module that a node comes from, or ''.

    Today's exporter writes the scopes from the outside in, the last being the node's own.
    """
    text = node.metadata_props.get(_SCOPES, "")
    try:
        scopes = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return ""
    return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) > 1 else ""


def names_of(weight: Weight) -> Iterator[str]:
    """Yield every name by which a user may know a weight, the most telling first."""
    for use in weight.uses:
        if module := module_of(use.node):
            yield module
    if not _ANONYMOUS.fullmatch(weight.name):
        yield weight.name
    for use in weight.uses:
        if use.bias is not None:
            yield use.bias.node.inputs[use.bias.index].name or ""  # type: ignore[union-attr]
        yield use.node.name or ""
        yield use.output.name or ""
    yield weight.name


def selects(patterns: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first pattern that selects one of the names.

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
