"""Sums of 8-bit products that leave 16 bits on CPUs without VNNI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from irtools.analysis.int8_products import int8_products, saturating_products
from irtools.analysis.pairing import node_ids
from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.words import counted

__all__ = ["Saturation"]


class Saturation(Cause):
    """Integer products that the target's CPU does not sum exactly."""

    name: ClassVar[str] = "saturation"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where more products of the second model may saturate than of the first.

        Whether they do depends on the data; figures measured on another CPU do not show it.
        """
        target = facts.target
        if not target.capabilities.saturates_u8s8:
            return
        before = len(saturating_products(facts.first.model.ir))
        found = saturating_products(facts.second.model.ir)
        if len(found) <= before:
            return
        ids = node_ids(facts.second.model.ir)
        every = sum(1 for _ in int8_products(facts.second.model.ir))
        names = tuple(ids[product.node] for product in found)
        remedy = f"or set {target.widening} where the model is loaded" if target.widening else ""
        yield self.finding(
            f"{counted(len(found), 'int8 product')} of {every} may saturate: "
            f"{target.isa.value} adds u8 x s8 products in 16 bits",
            None if not target.runs_here else len(found) / max(every, 1),
            *([] if target.runs_here else ["this machine sums them exactly: no figure shows it"]),
            f"among them {', '.join(names[:3])}",
            *([remedy] if remedy else []),
            command=commands.optimize(
                facts, "cleanup,fuse,int8:reduce-range=pairs", "--calibrate", facts.data or "DATA"
            ),
            subjects=names[:5],
        )
