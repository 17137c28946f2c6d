"""A block of a model before and after passes, as a report holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["BlockNode", "BlockPair", "Change"]

Change: TypeAlias = Literal["same", "changed", "gone", "new"]


@dataclass(frozen=True)
class BlockNode:
    """A node of a block.

    Attributes:
        op: Its operator.
        name: Its name.
        weights: Types and sizes of the weights that it reads (`int8 384x384`).
        inputs: Numbers of the nodes of the block that it reads, each smaller than its own.
        change: `gone` and `new` have no partner in the other model; `changed`: its weights differ.
    """

    op: str
    name: str
    weights: str
    inputs: tuple[int, ...]
    change: Change


@dataclass(frozen=True)
class BlockPair:
    """A block in two models.

    Attributes:
        module: Its dotted name; empty: the whole model.
        alike: How many blocks look like it, itself among them.
        before: Its nodes in the first model, in their order.
        after: Its nodes in the second.
    """

    module: str
    alike: int
    before: tuple[BlockNode, ...]
    after: tuple[BlockNode, ...]
