"""Which part of a model a node belongs to, and whether a pattern selects it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from irtools.analysis.provenance import module_of, selects
from irtools.passes.quantization.sites.stored import StoredWeight
from irtools.passes.quantization.sites.uses import Weight

__all__ = ["names_of", "names_of_stored", "selects"]

_ANONYMOUS = re.compile(r"(val|onnx::\w+|_v)_\d+|")


def _is_telling(name: str) -> bool:
    """Whether a name is more than a number that an exporter has counted."""
    return _ANONYMOUS.fullmatch(name) is None


def names_of(weight: Weight) -> Iterator[str]:
    """Yield every name by which a user may know a weight, the most specific first."""
    for use in weight.uses:
        if module := module_of(use.node):
            yield module
    if _is_telling(weight.name):
        yield weight.name
    for use in weight.uses:
        if use.bias is not None:
            yield use.bias.node.inputs[use.bias.index].name or ""  # type: ignore[union-attr]
        yield use.node.name or ""
        yield use.output.name or ""
    yield weight.name


def names_of_stored(weight: StoredWeight) -> Sequence[str]:
    """Return every name by which a user may know a weight, the most specific first."""
    names = [module for node in weight.readers if (module := module_of(node))]
    names += [weight.name] if _is_telling(weight.name) else []
    for node in weight.readers:
        names += [node.name or "", *(value.name or "" for value in node.outputs)]
    return tuple(dict.fromkeys(name for name in (*names, weight.name) if name))
