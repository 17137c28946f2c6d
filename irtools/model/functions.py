"""The call graph of local functions: no recursion, no explosion when inlined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from irtools.errors import LimitError, ModelError
from irtools.model.scopes import shown

__all__ = ["MAX_INLINED_NODES", "Operator", "check_calls"]

MAX_INLINED_NODES = 1_000_000
_MANY = 10**12

Operator: TypeAlias = "tuple[str, str, str]"
"""Domain, name and overload."""


def check_calls(main: Sequence[Operator], bodies: Mapping[Operator, Sequence[Operator]]) -> None:
    """Check that functions do not call themselves and that inlining them stays bounded.

    Args:
        main: Operators of all nodes of the main graph and its subgraphs.
        bodies: The same for each local function.

    Raises:
        ModelError: A function calls itself, directly or through others.
        LimitError: The inlined model has more than a million nodes.
    """
    sizes: dict[Operator, int] = {}
    for name in bodies:
        _measure(name, bodies, sizes)
    total = sum(sizes.get(op, 1) for op in main)
    if total > MAX_INLINED_NODES:
        raise LimitError(
            f"with its functions inlined the model has {_about(total)} nodes, "
            f"the limit is {MAX_INLINED_NODES}"
        )


def _measure(
    root: Operator, bodies: Mapping[Operator, Sequence[Operator]], sizes: dict[Operator, int]
) -> None:
    """Fill in the inlined size of a function and of all that it calls, callees first."""
    open_calls: dict[Operator, None] = {}
    stack = [root]
    while stack:
        current = stack[-1]
        if current in sizes:
            stack.pop()
            continue
        callees = {op for op in bodies[current] if op in bodies and op not in sizes}
        if current in open_calls and not callees:
            # Capped, for doubling functions reach numbers with thousands of digits.
            sizes[current] = min(sum(sizes.get(op, 1) for op in bodies[current]), _MANY)
            del open_calls[current]
            stack.pop()
            continue
        open_calls[current] = None
        looping = callees & open_calls.keys()
        if looping:
            raise ModelError(f"function {shown(min(looping)[1])} calls itself (recursion)")
        stack.extend(callees)


def _about(number: int) -> str:
    return str(number) if number < _MANY else f"more than {_MANY}"
