"""A model as it is run where products of 8-bit integers would saturate.

A child process that runs a file asks here first: what reads and rewrites models is imported only
where there is something to rewrite.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from irtools.analysis.int8_operators import may_multiply_int8
from irtools.errors import ModelError

if TYPE_CHECKING:
    from irtools.model import Model

__all__ = ["exact_products"]


def exact_products(model: Model | Path) -> Model | Path:
    """Return the model with unsigned weights where its products would saturate, else as it is.

    What is in the format of a runtime alone cannot be looked at, and is returned as it is.
    """
    if not isinstance(model, Path):
        return _rewritten(model) or model
    known = (model.absolute(), _stamp(model))
    if known in _EXACT:
        return model
    found = _rewritten_file(model)
    if found is None:
        _EXACT.add(known)
    return found or model


_Stamp: TypeAlias = tuple[int, int] | None
_EXACT: set[tuple[Path, _Stamp]] = set()
"""Files in which nothing is to be rewritten: who times a start has them looked at before."""


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _rewritten_file(path: Path) -> Model | None:
    found = _load(path)
    return None if found is None else _rewritten(found)


def _rewritten(model: Model) -> Model | None:
    from irtools.analysis.int8_products import saturating_products
    from irtools.backends.unsigned_weights import make_weights_unsigned

    if not saturating_products(model.ir):
        return None
    copy = model.clone()
    return copy if make_weights_unsigned(copy.ir) else None


def _load(path: Path) -> Model | None:
    if path.suffix != ".onnx":
        return None
    try:
        if not may_multiply_int8(path):
            return None
        from irtools.model import Model

        return Model.load(path)
    except ModelError:
        return None
