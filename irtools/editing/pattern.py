"""Patterns: the formula of a rule, written as a formula.

    X, DEVIATION = Var("x"), Var("deviation")
    NORMAL = X / DEVIATION | X * op("Reciprocal", DEVIATION) | X * (1 / DEVIATION)
    bound = bind(NORMAL, value)             bound["x"] is the value that x stands for

A pattern is matched against the node that makes a value, from the result upward. A variable stands
for any value, and for the same one wherever it occurs. `+` and `*` match operands in both orders; a
number matches a constant of one element.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.editing.readers import constant_of, only_user, producer_of, scalar_of
from irtools.editing.veto import Veto

__all__ = [
    "Bound",
    "OpPattern",
    "Pattern",
    "Var",
    "bind",
    "bind_user",
    "either",
    "equal",
    "expect",
    "expect_user",
    "number",
    "op",
    "splat",
]

Bound: TypeAlias = Mapping[str, ir.Value]
"""What the variables and the named nodes of a pattern stand for; of a node its first output."""

_COMMUTES = frozenset({"Add", "And", "Max", "Min", "Mul", "Or", "Sum", "Xor"})


class Pattern(ABC):
    """A form that a value may have."""

    @abstractmethod
    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        """Yield every way to match a value, given what is bound already."""

    def __add__(self, other: Pattern | float) -> OpPattern:
        return op("Add", self, other)

    def __radd__(self, other: float) -> OpPattern:
        return op("Add", other, self)

    def __sub__(self, other: Pattern | float) -> OpPattern:
        return op("Sub", self, other)

    def __mul__(self, other: Pattern | float) -> OpPattern:
        return op("Mul", self, other)

    def __rmul__(self, other: float) -> OpPattern:
        return op("Mul", other, self)

    def __truediv__(self, other: Pattern | float) -> OpPattern:
        return op("Div", self, other)

    def __rtruediv__(self, other: float) -> OpPattern:
        return op("Div", other, self)

    def __pow__(self, other: Pattern | float) -> OpPattern:
        return op("Pow", self, other)

    def __or__(self, other: Pattern) -> Pattern:
        return either(self, other)


@dataclass(frozen=True)
class Var(Pattern):
    """Any value, under a name."""

    name: str

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        known = bound.get(self.name)
        if known is None and value is not None:
            yield {**bound, self.name: value}
        elif known is value and value is not None:
            yield bound


@dataclass(frozen=True)
class _Number(Pattern):
    expected: float | None
    tolerance: float
    name: str

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        found = scalar_of(value)
        if found is None or value is None:
            return
        if self.expected is None or math.isclose(found, self.expected, rel_tol=self.tolerance):
            yield {**bound, self.name: value} if self.name else bound


@dataclass(frozen=True)
class _Splat(Pattern):
    expected: float
    most: int

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        tensor = constant_of(value)
        if tensor is None or tensor.size > self.most or tensor.dtype == ir.DataType.STRING:
            return
        array = tensor.numpy()
        if np.all(array == self.expected) and not np.signbit(array).any():
            yield bound


@dataclass(frozen=True)
class _Equal(Pattern):
    expected: ir.Value

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        if value is self.expected:
            yield bound


@dataclass(frozen=True)
class _Either(Pattern):
    forms: tuple[Pattern, ...]

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        for form in self.forms:
            yield from form.solutions(value, bound)


@dataclass(frozen=True)
class OpPattern(Pattern):
    """The first output of a standard operator; see `op`."""

    op_type: str
    operands: tuple[Pattern, ...]
    name: str
    more: bool

    def solutions(self, value: ir.Value | None, bound: Bound) -> Iterator[Bound]:
        node = producer_of(value, self.op_type)
        if node is None or value is not node.outputs[0] or len(node.inputs) < len(self.operands):
            return
        if len(node.inputs) > len(self.operands) and not self.more:
            return
        if self.name:
            bound = {**bound, self.name: node.outputs[0]}
        yield from _all(self.operands, node.inputs, bound)
        if self.op_type in _COMMUTES and len(self.operands) == 2:
            yield from _all(self.operands, node.inputs[::-1], bound)


def op(op_type: str, *operands: Pattern | float, name: str = "", more: bool = False) -> OpPattern:
    """Return the pattern of a standard operator.

    Args:
        op_type: The operator.
        operands: Patterns of its inputs; numbers are constants of one element.
        name: Under which its output is bound.
        more: Whether it may have more inputs than these.
    """
    made = tuple(o if isinstance(o, Pattern) else number(o) for o in operands)
    return OpPattern(op_type, made, name, more)


def number(expected: float | None = None, *, tolerance: float = 0.0, name: str = "") -> Pattern:
    """Return the pattern of a constant of one element, rank 0 or 1.

    Args:
        expected: The number; any by default.
        tolerance: Relative.
        name: Under which it is bound.
    """
    return _Number(expected, tolerance, name)


def splat(expected: float, most: int = 4096) -> Pattern:
    """Return the pattern of a constant all of whose elements are one number, and not -0.0.

    Args:
        expected: The number.
        most: Larger constants are not looked into.
    """
    return _Splat(expected, most)


def equal(value: ir.Value) -> Pattern:
    """Return the pattern of one value that is known already."""
    return _Equal(value)


def either(*forms: Pattern) -> Pattern:
    """Return the pattern of a value that has one of several forms, tried in this order."""
    return _Either(forms)


def bind(pattern: Pattern, value: ir.Value | None) -> Bound | None:
    """Return what a pattern's names stand for in a value, or None where it does not match."""
    return next(pattern.solutions(value, {}), None)


def expect(pattern: Pattern, value: ir.Value | None, reason: str, *, named: bool = True) -> Bound:
    """Return what `bind` returns.

    Raises:
        Veto: The value does not match, with this reason.
    """
    bound = bind(pattern, value)
    if bound is None:
        raise Veto(reason, named=named)
    return bound


def bind_user(pattern: Pattern, value: ir.Value) -> Bound | None:
    """Match the result of the one node that reads a value; it is bound as `result`.

    None where the value has other readers, or the pattern does not match.
    """
    user = only_user(value)
    bound = None if user is None else bind(pattern, user.outputs[0])
    return None if user is None or bound is None else {**bound, "result": user.outputs[0]}


def expect_user(pattern: Pattern, value: ir.Value, reason: str, *, named: bool = True) -> Bound:
    """Return what `bind_user` returns.

    Raises:
        Veto: Nothing reads the value so, with this reason.
    """
    bound = bind_user(pattern, value)
    if bound is None:
        raise Veto(reason, named=named)
    return bound


def _all(
    patterns: Sequence[Pattern], values: Sequence[ir.Value | None], bound: Bound
) -> Iterator[Bound]:
    if not patterns:
        yield bound
        return
    for solution in patterns[0].solutions(values[0], bound):
        yield from _all(patterns[1:], values[1:], solution)
