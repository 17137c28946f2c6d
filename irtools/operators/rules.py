"""Rules by operator: one table per question, kept by the room that asks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar, cast

from irtools.operators.catalog import find_op
from irtools.operators.op import Kind, Op

__all__ = ["RuleTable"]

R = TypeVar("R")


class _Node(Protocol):
    @property
    def domain(self) -> str: ...
    @property
    def op_type(self) -> str: ...


@dataclass(frozen=True)
class RuleTable(Generic[R]):
    """The rules that answer one question, such as which shape the results have.

    An operator's rule is the one that it declares itself (`Op.rules`), else that of its name,
    else that of its kind. An operator that is not declared has none: nothing is guessed.

    Attributes:
        name: What `Op.rules` and `irc operators` call the table.
        phrase: What a rule says, in a few words.
        by_name: Rules of single operators, by `Op.key`.
        by_kind: Rules that hold for every operator of a kind.
    """

    name: str
    phrase: str
    by_name: Mapping[str, R]
    by_kind: Mapping[Kind, R] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, node: _Node) -> R | None:
        """Return the rule for a node, or None."""
        op = find_op(node.domain, node.op_type)
        return None if op is None else self.find(op)

    def find(self, op: Op) -> R | None:
        """Return the rule for an operator, or None."""
        own = op.rules.get(self.name)
        if own is not None:
            return cast("R", own)
        found = self.by_name.get(op.key)
        return self.by_kind.get(op.kind) if found is None else found
