"""Which part of a model a node belongs to, and whether a pattern selects it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from irtools.analysis.provenance import module_of, selects
from irtools.passes.quantization.sites import Weight

__all__ = ["names_of", "selects"]

_ANONYMOUS = re.compile(r"(val|onnx::\w+|_v)_\d+|")


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
