"""Sizes that are not numbers yet: polynomials over named symbols.

A dimension is an `int` or a `SymbolicSize`. Two symbolic sizes are equal exactly when their
polynomials are, so `batch * sequence` is the same however it was written. Symbols stand for
sizes, hence for numbers that are not negative.

`onnx_ir.SymbolicDim` also has arithmetic, through sympy; at some 100 microseconds an operation
it takes seconds on the shape subgraphs of a large export, and it cannot tell an unknown size
from itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Dim",
    "SymbolicSize",
    "add",
    "divide",
    "evaluate",
    "is_named",
    "multiply",
    "name_of",
    "never_equal",
    "shape_text",
    "symbol",
]

Monomial = tuple[str, ...]
"""Product of symbols, sorted; a square repeats its symbol; `()` is 1."""


@dataclass(frozen=True)
class SymbolicSize:
    """Sum of integer multiples of monomials, sorted by monomial; never a plain number."""

    terms: tuple[tuple[Monomial, int], ...]

    def __str__(self) -> str:
        return " + ".join(
            "*".join([str(factor)] * (factor != 1 or not monomial) + list(monomial))
            for monomial, factor in self.terms
        )


Dim = int | SymbolicSize

_MAX_TERMS = 32
_MAX_DEGREE = 8
_MAX_FACTOR = 2**62
_MAX_NAME = 160


def symbol(name: str) -> SymbolicSize:
    """Return the size that a name stands for; names that start with `?` are not the model's."""
    if len(name) > _MAX_NAME:
        name = f"?{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}"
    return SymbolicSize((((name,), 1),))


def add(a: Dim, b: Dim, sign: int = 1) -> Dim:
    """Return `a + sign * b`."""
    total = _terms(a)
    for monomial, factor in _terms(b).items():
        total[monomial] = total.get(monomial, 0) + sign * factor
    return _from_terms(total)


def multiply(a: Dim, b: Dim) -> Dim:
    """Return `a * b`."""
    product: dict[Monomial, int] = {}
    for left, p in _terms(a).items():
        for right, q in _terms(b).items():
            monomial = tuple(sorted(left + right))
            product[monomial] = product.get(monomial, 0) + p * q
    return _from_terms(product)


def divide(a: Dim, b: Dim) -> Dim | None:
    """Return `a / b` where b is one term that divides every term of a, else None."""
    divisor = _terms(b)
    if len(divisor) != 1:
        return None
    ((removed, factor),) = divisor.items()
    quotient: dict[Monomial, int] = {}
    for monomial, p in _terms(a).items():
        rest = _without(monomial, removed)
        if rest is None or p % factor:
            return None
        quotient[rest] = p // factor
    return _from_terms(quotient)


def never_equal(a: Dim, b: Dim) -> bool:
    """Whether a and b differ for all sizes, as `n` and -1 or `n` and `n + 1` do."""
    difference = add(a, b, -1)
    if isinstance(difference, int):
        return difference != 0
    terms = _terms(difference)
    constant = terms.pop((), 0)
    signs = {factor > 0 for factor in terms.values()}
    return constant != 0 and signs == {constant > 0}


def evaluate(dim: Dim | bool | None, sizes: Mapping[str, int]) -> int | None:
    """Return a size with numbers for its symbols; None where one has no number."""
    if not isinstance(dim, SymbolicSize):
        return None if dim is None else int(dim)
    total = 0
    for monomial, factor in dim.terms:
        for name in monomial:
            if name not in sizes:
                return None
            factor *= sizes[name]
        total += factor
    return total


def name_of(dim: Dim) -> str | None:
    """Return the symbol that a size is, where it is nothing more."""
    if isinstance(dim, int) or len(dim.terms) != 1:
        return None
    ((monomial, factor),) = dim.terms
    return monomial[0] if factor == 1 and len(monomial) == 1 else None


def is_named(dim: Dim) -> bool:
    """Whether a size is a number or made of symbols that the model itself names."""
    if isinstance(dim, int):
        return True
    return all(not name.startswith("?") for monomial, _ in dim.terms for name in monomial)


def shape_text(shape: Sequence[Dim]) -> str:
    """Write a shape for a reader: `[batch, 12, ?]`; `?` is a size that the model does not name."""
    return f"[{', '.join(str(dim) if is_named(dim) else '?' for dim in shape)}]"


def _terms(dim: Dim) -> dict[Monomial, int]:
    if isinstance(dim, SymbolicSize):
        return dict(dim.terms)
    return {(): dim} if dim else {}


def _from_terms(terms: dict[Monomial, int]) -> Dim:
    kept = tuple(sorted((m, factor) for m, factor in terms.items() if factor))
    if len(kept) > _MAX_TERMS or any(
        len(m) > _MAX_DEGREE or abs(factor) > _MAX_FACTOR for m, factor in kept
    ):
        # No shape looks like this, int64 would overflow, and repeated squaring must stay cheap.
        return symbol(f"?large({kept})")
    if all(monomial == () for monomial, _ in kept):
        return kept[0][1] if kept else 0
    return SymbolicSize(kept)


def _without(monomial: Monomial, removed: Monomial) -> Monomial | None:
    rest = list(monomial)
    for name in removed:
        if name not in rest:
            return None
        rest.remove(name)
    return tuple(rest)
