"""Sizes obey arithmetic whatever their symbols stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irtools.analysis.dims import (
    Dim,
    SymbolicSize,
    add,
    divide,
    evaluate,
    floor_divide,
    multiply,
    name_of,
    never_equal,
    parse,
    shape_text,
    symbol,
)

VALUES = {"a": 3, "b": 5, "c": 7}

dims = st.recursive(
    st.one_of(st.integers(-4, 9), st.sampled_from(sorted(VALUES)).map(symbol)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: add(*p)),
        st.tuples(inner, inner).map(lambda p: multiply(*p)),
    ),
    max_leaves=4,
)


def value(dim: Dim) -> int:
    found = evaluate(dim, VALUES)
    assert found is not None
    return found


@given(dims, dims)
def test_arithmetic_holds_for_numbers(a: Dim, b: Dim) -> None:
    assert value(add(a, b)) == value(a) + value(b)
    assert value(add(a, b, -1)) == value(a) - value(b)
    assert value(multiply(a, b)) == value(a) * value(b)


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
        assert value(a) != value(b)


def test_repeated_squaring_stays_small() -> None:
    size: Dim = add(symbol("n"), 3)
    for _ in range(200):
        size = multiply(size, size)
    assert isinstance(size, SymbolicSize)
    assert len(size.terms) <= 32


def test_a_size_without_a_number_for_each_symbol_has_none() -> None:
    size = add(multiply(symbol("a"), symbol("b")), 2)
    assert evaluate(size, VALUES) == 17
    assert evaluate(size, {"a": 3}) is None and evaluate(None, VALUES) is None
    assert evaluate(True, {}) == 1


def test_the_name_of_a_plain_symbol() -> None:
    assert name_of(symbol("a")) == "a"
    others = (3, add(symbol("a"), 1), multiply(symbol("a"), 2), multiply(symbol("a"), symbol("a")))
    assert [name_of(other) for other in others] == [None] * 4


def test_sizes_that_the_model_does_not_name_are_not_spelt_out() -> None:
    grown = add(multiply(symbol("batch"), 2), 1)
    unnamed = multiply(symbol("?broadcast(m, n)"), 3)
    assert shape_text([symbol("batch"), 12, grown, unnamed]) == "[batch, 12, 1 + 2*batch, ?]"
    assert shape_text([]) == "[]"


@given(dims, st.integers(1, 9), st.integers(1, 9))
def test_quotients_are_rounded_down(a: Dim, b: int, c: int) -> None:
    quotient = floor_divide(a, b)
    assert value(quotient) == value(a) // b
    assert value(floor_divide(quotient, c)) == value(a) // b // c
    assert floor_divide(multiply(a, b), b) == a


@given(dims, st.integers(1, 9))
def test_a_size_is_read_as_it_is_written(a: Dim, b: int) -> None:
    for dim in (a, floor_divide(a, b), multiply(floor_divide(a, b), symbol("c"))):
        assert parse(str(dim)) == dim


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("4*batch", "batch + 3*batch"),
        ("((samples//10)) - 1", "-1 + samples//5//2"),
        ("(samples - 10)//5 + 1", "samples//5 - 1"),
        ("2*(n//3)", "n//3 + n//3"),
    ],
)
def test_exporters_write_one_size_in_several_ways(written: str, same: str) -> None:
    assert parse(written) == parse(same)


@pytest.mark.parametrize("name", ["Max(1, s0)", "s0/2", "n//0", "a b", "n // m", "1.5*n", "x." * 9])
def test_what_is_no_such_size_is_a_symbol(name: str) -> None:
    assert parse(name) == symbol(name)
