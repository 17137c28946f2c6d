"""All operators by name: the standard's, ONNX Runtime's that we know, those of plug-ins."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from irtools.errors import UsageError
from irtools.operators.classical import CLASSICAL
from irtools.operators.contrib import CONTRIB
from irtools.operators.op import RULES, Op, op_key
from irtools.operators.standard import STANDARD
from irtools.plugins import registry, suggest

__all__ = ["GROUP", "all_ops", "find_op"]

GROUP = "irtools.operators"
"""Entry points of plug-ins; each names an `Op` or several."""


def find_op(domain: str, name: str) -> Op | None:
    """Return what is declared of an operator, or None."""
    return all_ops().get(op_key(domain, name))


@functools.cache
def all_ops() -> Mapping[str, Op]:
    """Return every declared operator by key.

    Raises:
        UsageError: A plug-in cannot be loaded, names something else than operators, or declares
            one that is there already.
    """
    found = {op.key: op for op in (*STANDARD, *CLASSICAL, *CONTRIB)}
    for plugin, op in _plugged_in():
        earlier = found.setdefault(op.key, op)
        if earlier is not op:
            raise UsageError(f"the plug-in {plugin!r} declares operator {op.key}, which is known")
    return found


def _plugged_in() -> Iterable[tuple[str, Op]]:
    for name in registry.names(GROUP):
        loaded = registry.load(GROUP, name)
        ops = (loaded,) if isinstance(loaded, Op) else loaded
        if not isinstance(ops, Iterable):
            raise UsageError(f"the plug-in {name!r} is {loaded!r}, expected Op or several")
        for op in ops:
            if not isinstance(op, Op):
                raise UsageError(f"the plug-in {name!r} holds {op!r}, expected Op")
            for rule in set(op.rules).difference(RULES):
                raise UsageError(
                    f"the plug-in {name!r} gives {op.key} a rule {rule!r}{suggest(rule, RULES)}"
                )
            yield name, op
