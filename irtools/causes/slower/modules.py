"""Where the time goes, for what no other cause explains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.rows import joined, total

__all__ = ["SlowModules"]

_SHOWN = 3
_LEAST = 0.05


class SlowModules(Cause):
    """Modules that take longer than before."""

    name: ClassVar[str] = "slow-module"
    gap: ClassVar[Gap] = Gap.SLOWER
    is_place: ClassVar[bool] = True

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield the modules that grew most."""
        both = joined(facts)
        if both is None:
            return
        least = _LEAST * total(both.second.rows)
        for one in both.modules[:_SHOWN]:
            if one.more_ms <= least:
                return
            yield self.finding(
                f"{one.module} takes {one.second_ms:.2f} ms, before {one.first_ms:.2f} ms",
                one.more_ms,
                *one.kernels(),
                command=commands.inspect(facts),
                subjects=(one.module,),
            )
