"""Sizes obey arithmetic whatever their symbols stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from irtools.analysis.dims import Dim, SymbolicSize, add, divide, multiply, never_equal, symbol

VALUES = {"a": 3, "b": 5, "c": 7}

dims = st.recursive(
    st.one_of(st.integers(-4, 9), st.sampled_from(sorted(VALUES)).map(symbol)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: add(*p)),
        st.tuples(inner, inner).map(lambda p: multiply(*p)),
    ),
    max_leaves=4,
)


def evaluate(dim: Dim) -> int:
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, factor in dim.terms:
        for name in monomial:
            factor *= VALUES[name]
        total += factor
    return total


@given(dims, dims)
def test_arithmetic_holds_for_numbers(a: Dim, b: Dim) -> None:
    assert evaluate(add(a, b)) == evaluate(a) + evaluate(b)
    assert evaluate(add(a, b, -1)) == evaluate(a) - evaluate(b)
    assert evaluate(multiply(a, b)) == evaluate(a) * evaluate(b)


@given(dims, dims)
def test_order_does_not_matter(a: Dim, b: Dim) -> None:
    assert add(a, b) == add(b, a)
    assert multiply(a, b) == multiply(b, a)
    assert add(a, a, -1) == 0


@given(dims, dims)
def test_division_is_exact_or_refused(a: Dim, b: Dim) -> None:
    quotient = divide(a, b)
    if quotient is not None:
        assert multiply(quotient, b) == a


@given(dims, dims)
def test_never_equal_is_never_wrong(a: Dim, b: Dim) -> None:
    if never_equal(a, b):
        assert evaluate(a) != evaluate(b)


def test_repeated_squaring_stays_small() -> None:
    size: Dim = add(symbol("n"), 3)
    for _ in range(200):
        size = multiply(size, size)
    assert isinstance(size, SymbolicSize)
    assert len(size.terms) <= 32
