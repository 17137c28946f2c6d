"""Sizes that are not numbers yet: polynomials over named symbols.

A dimension is an `int` or a `SymbolicSize`. Two symbolic sizes are equal exactly when their
polynomials are, so `batch * sequence` is the same however it was written. Symbols stand for
sizes, hence for numbers that are not negative. How often a number goes into a size, rounded down,
is a symbol of its own, `(samples//320)`: strided windows and what exporters compute from them.

`onnx_ir.SymbolicDim` also has arithmetic, through sympy; at some 100 microseconds an operation
it takes seconds on the shape subgraphs of a large export, and it cannot tell an unknown size
from itself.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Dim",
    "SymbolicSize",
    "add",
    "divide",
    "evaluate",
    "floor_divide",
    "is_named",
    "multiply",
    "name_of",
    "never_equal",
    "never_negative",
    "parse",
    "rounded_down",
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


def floor_divide(a: Dim, b: int) -> Dim:
    """Return `a / b` rounded down, for a number b above 0."""
    whole: Dim = 0
    rest: Dim = 0
    for monomial, factor in _terms(a).items():
        quotient, left = divmod(factor, b)
        whole = add(whole, _from_terms({monomial: quotient}))
        rest = add(rest, _from_terms({monomial: left}))
    if isinstance(rest, int):
        return whole
    name = name_of(rest)
    inner = None if name is None else rounded_down(name)
    if inner is not None:
        name, b = inner[0], inner[1] * b
    return add(whole, symbol(f"({f'({rest})' if name is None else name}//{b})"))


def never_negative(a: Dim) -> bool:
    """Whether a size has no term that is taken away."""
    return all(factor >= 0 for factor in _terms(a).values())


def parse(name: str, scope: str = "") -> Dim:
    """Read a size as exporters write it, such as `4*batch` or `samples//320 - 1`.

    What is not a sum, product or quotient rounded down of names and numbers is a symbol. Symbols
    begin with the scope that they belong to.
    """
    if name.isidentifier():
        return symbol(scope + name)
    try:
        found = _parsed(ast.parse(name.strip(), mode="eval").body, scope)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        found = None
    return symbol(scope + name) if found is None else found


def _parsed(tree: ast.expr, scope: str) -> Dim | None:
    match tree:
        case ast.Name(id=name):
            return symbol(scope + name)
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _parsed(operand, scope)
            return None if inner is None else multiply(inner, -1)
        case ast.BinOp(left=left, op=sign, right=right):
            a, b = _parsed(left, scope), _parsed(right, scope)
        case _:
            return None
    if a is None or b is None:
        return None
    match sign:
        case ast.Add() | ast.Sub():
            return add(a, b, 1 if isinstance(sign, ast.Add) else -1)
        case ast.Mult():
            return multiply(a, b)
        case ast.FloorDiv() if isinstance(b, int) and b > 0:
            return floor_divide(a, b)
        case _:
            return None


def rounded_down(name: str) -> tuple[str, int] | None:
    """Return what a symbol rounds down, and by what it divides."""
    if not (name.startswith("(") and name.endswith(")")):
        return None
    inner, sign, divisor = name[1:-1].rpartition("//")
    return (inner, int(divisor)) if sign and divisor.isdecimal() else None


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
            size = _size(name, sizes)
            if size is None:
                return None
            factor *= size
        total += factor
    return total


def _size(name: str, sizes: Mapping[str, int]) -> int | None:
    if name in sizes:
        return sizes[name]
    inner = rounded_down(name)
    whole = None if inner is None else evaluate(parse(inner[0]), sizes)
    return None if inner is None or whole is None else whole // inner[1]


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
