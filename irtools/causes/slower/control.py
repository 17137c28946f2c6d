"""Exits that no sample takes, and more threads than CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from irtools.causes import commands
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.rows import joined, total
from irtools.words import counted

__all__ = ["IdleExits", "TooManyThreads"]

_RARE = 0.05


class IdleExits(Cause):
    """Early exits that hardly any sample takes: their heads are computed for nothing."""

    name: ClassVar[str] = "idle-exits"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where fewer than one sample in twenty leaves at any exit."""
        uses = [use for use in facts.exits if use.samples]
        if not uses or any(use.left > _RARE * use.samples for use in uses):
            return
        both, amount, evidence = joined(facts), None, []
        for use in uses:
            evidence.append(f"{use.node}: {use.left} of {counted(use.samples, 'sample')} left")
        if both is not None:
            deeper = both.second.of_nodes({name for use in uses for name in use.nodes})
            amount = total(deeper)
            evidence.append(f"the layers that exits should skip take {amount:.2f} ms")
        if facts.times is not None:
            amount = max(amount or 0.0, facts.times.second_ms - facts.times.first_ms)
        yield self.finding(
            f"{counted(len(uses), 'early exit')} "
            f"{'lets' if len(uses) == 1 else 'let'} no sample leave: every sample goes through "
            "all layers and the exits' own heads",
            amount,
            *evidence,
            command=commands.optimize(
                facts, "early-exit:agreement=0.98", "--calibrate", facts.data or "DATA"
            ),
            subjects=tuple(use.node for use in uses),
        )


class TooManyThreads(Cause):
    """More threads than the process may use CPUs."""

    name: ClassVar[str] = "threads-over-quota"
    gap: ClassVar[Gap] = Gap.SLOWER

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where threads wait for each other's CPU."""
        threads = facts.threads
        if threads is None or threads.used <= threads.quota:
            return
        amount, evidence = None, [f"{threads.used} threads, {counted(threads.quota, 'CPU')}"]
        if threads.at_quota_ms is not None and facts.times is not None:
            amount = max(0.0, facts.times.second_ms - threads.at_quota_ms)
            evidence.append(
                f"{facts.second.name} takes {facts.times.second_ms:.2f} ms, with "
                f"{counted(threads.quota, 'thread')} {threads.at_quota_ms:.2f} ms"
            )
        yield self.finding(
            f"{threads.used} threads share {counted(threads.quota, 'CPU')} (affinity or cgroup "
            "quota) and wait for each other",
            amount,
            *evidence,
            command=commands.bench(facts, "--threads", str(threads.quota)),
        )
