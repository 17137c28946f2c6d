"""Jinja's sandbox with a bound on the work of a template.

Jinja bounds the length of a single range. Loops in loops, macros that call themselves and texts
that are doubled run for hours all the same, or fill the memory. Here every step of a loop, every
call, filter and operator costs something, as does the size of what comes out, and a template has so
much for a conversation and no more. No clock and no signal takes part, so that it holds in every
thread, and equal templates fail at equal places.
"""

from __future__ import annotations

import re
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

__all__ = ["BoundedEnvironment"]

_BUDGET = 100_000_000
"""Characters, in all that a template makes on the way: seconds, and as many bytes at most."""
_STEP = 200
"""Characters that a step of a loop takes the time of."""
_MOST_POWER = 100
_LONG_FIELD = re.compile(r"\d{5}|%[^a-z]*\*")
"""What makes a text of a format that is far longer than the format."""
_FORMATS = frozenset(("format", "format_map"))

_EACH, _WEIGHED, _APPLIED = "each counted", "weighed", "applied"
"""Names of filters, which no template needs to know."""


class _Meter:
    """What a template may still do."""

    def __init__(self) -> None:
        self._left = _BUDGET

    def spend(self, amount: int) -> None:
        """Take work away.

        Raises:
            SecurityError: There is not so much left.
        """
        self._left -= min(amount, _BUDGET) + _STEP
        if self._left < 0:
            raise SecurityError("it does more than any conversation needs, as endless loops do")

    def weigh(self, value: Any) -> int:
        """Pay for everything in a value; returns its size in characters, at least 1."""
        match value:
            case str() | bytes() | range():
                size = len(value)
            case int():
                size = value.bit_length() // 8
            case dict():
                size = sum(map(self.weigh, value)) + sum(map(self.weigh, value.values()))
            case list() | tuple() | set() | frozenset() | KeysView() | ValuesView() | ItemsView():
                size = sum(self.weigh(one) for one in value)
            case Namespace():
                size = self.weigh(object.__getattribute__(value, "_Namespace__attrs"))
            case _:
                size = 0
        self.spend(size)
        return size + 1

    def check(self, value: Any, given: Iterable[Any]) -> None:
        """Pay for the most that an operation on a value may make, before it makes it.

        Nothing is longer than the longest of the value and of what is given times the longest
        other one: what replaces, joins, repeats, pads.
        """
        sizes = sorted([self.weigh(value), *map(self._times, given)])
        self.spend(sizes[-1] * (sizes[-2] if len(sizes) > 1 else 1))

    def check_format(self, form: Any) -> None:
        """Refuse fields so wide that no text needs them.

        Raises:
            SecurityError: There are some.
        """
        if isinstance(form, str) and _LONG_FIELD.search(form):
            raise SecurityError("it pads a text to thousands of characters")

    def _times(self, given: Any) -> int:
        """Return how often something may be repeated for an argument."""
        return max(abs(given), 1) if isinstance(given, int) else self.weigh(given)


class _BoundedContext(Context):
    """What a template knows, and the meter of one rendering."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.meter = _Meter()

    def derived(self, locals: dict[str, Any] | None = None) -> _BoundedContext:
        found = super().derived(locals)
        assert isinstance(found, _BoundedContext)
        found.meter = self.meter
        return found


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An immutable sandbox whose templates end."""

    context_class = _BoundedContext
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters |= {_EACH: _each, _WEIGHED: _weighed, _APPLIED: _applied}
        del self.globals["lipsum"]  # Texts of any length, of no use here.

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Bounds().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        # Named as Jinja does: a template's own keywords may have any other name.
        meter, method = _meter(__context), getattr(__obj, "__wrapped__", __obj)
        owner = getattr(method, "__self__", None)
        given = (*args, *kwargs.values())
        if isinstance(owner, str | bytes):
            meter.check(owner, given)
        else:
            meter.weigh(given)
        if getattr(method, "__name__", "") in _FORMATS:
            meter.check_format(owner)
        return _weighed(__context, super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = _meter(context)
        if operator == "*":
            meter.check(left, (right,))
            meter.check(right, (left,))
        elif operator == "%":
            meter.check_format(left)
        elif operator == "**" and abs(right) > _MOST_POWER:
            raise SecurityError(f"it raises to a power above {_MOST_POWER}")
        return _weighed(context, super().call_binop(context, operator, left, right))


class _Bounds(NodeTransformer):
    """Lets everything that may grow go through the meter."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _through(_EACH, node.iter)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        node.nodes = [_through(_WEIGHED, part) for part in node.nodes]
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:
        self.generic_visit(node)
        node.args = [nodes.Const(node.name, lineno=node.lineno), *node.args]
        node.name = _APPLIED
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Test:
        self.generic_visit(node)
        node.node = _through(_WEIGHED, node.node)
        node.args = [_through(_WEIGHED, part) for part in node.args]
        return node

    def visit_Operand(self, node: nodes.Operand) -> nodes.Operand:
        self.generic_visit(node)
        node.expr = _through(_WEIGHED, node.expr)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _through(_WEIGHED, node.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        return _through(_WEIGHED, node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        return self._made(node) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        return self._made(node)

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        return self._made(node)

    def _made(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _through(_WEIGHED, node)


def _through(name: str, node: nodes.Node) -> nodes.Expr:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _meter(context: Context) -> _Meter:
    assert isinstance(context, _BoundedContext)
    return context.meter


@pass_context
def _each(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    meter = _meter(context)
    for value in values:
        meter.spend(0)
        yield value


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    _meter(context).weigh(value)
    return value


@pass_context
def _applied(context: Context, value: Any, name: str, *given: Any, **named: Any) -> Any:
    meter = _meter(context)
    meter.check(value, (*given, *named.values()))
    if name == "format":
        meter.check_format(value)
    made = context.environment.call_filter(
        name, value, given, named, context=context, eval_ctx=context.eval_ctx
    )
    # What is not made yet has no size.
    return _weighed(context, list(_each(context, made)) if isinstance(made, Iterator) else made)
