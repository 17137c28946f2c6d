"""Causes, ranked by how much of what was seen they explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from irtools.causes.catalogue import all_causes
from irtools.causes.facts import Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.gaps import Respect, differences

__all__ = ["Diagnosis", "diagnose"]

_LEAST = 0.02
_WHOLE = 1.005
"""Sum of shares that is shown as more than 100 %."""
_MOST = 10
_OF_PLACES = 0.5
"""Weight of a finding that says where and not why."""
_OF_PROOFS = 0.6
"""Weight of a finding that nothing was measured of."""


@dataclass(frozen=True)
class Diagnosis:
    """Why the second model lags the first.

    Attributes:
        differences: What was seen, per respect.
        findings: The causes, the one that explains most at the head; causes of what the second
            model lags in come before what it could still gain.
        notes: What could not be measured.
    """

    differences: tuple[Respect, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def lags(self) -> bool:
        """Whether the second model lags in any respect, beyond noise."""
        return any(one.lags for one in self.differences)

    @property
    def is_equal(self) -> bool:
        """Whether the models do not differ beyond noise in anything that was measured."""
        return bool(self.differences) and all(one.is_equal for one in self.differences)

    def explains(self, finding: Finding) -> bool:
        """Whether a finding is about something that the second model lags in."""
        seen = {one.gap: one for one in self.differences}
        return finding.gap not in seen or seen[finding.gap].lags

    def overlaps(self, shown: int) -> Mapping[Gap, float]:
        """Return what the shares of the first findings add up to, where that is more than all."""
        sums: dict[Gap, float] = {}
        for one in self.findings[:shown]:
            sums[one.gap] = sums.get(one.gap, 0.0) + (one.share or 0.0)
        return {gap: total for gap, total in sums.items() if total > _WHOLE}


def diagnose(facts: Facts, causes: Sequence[Cause] | None = None) -> Diagnosis:
    """Look for every cause and rank what is found.

    Shares of causes may overlap: a conversion counts by itself, and with what it is for.

    Args:
        facts: What is known of both models.
        causes: Detectors; None: all that are registered.
    """
    seen = differences(facts)
    gaps = {one.gap: one for one in seen}
    asked = all_causes() if causes is None else causes
    found = [_with_share(finding, gaps) for cause in asked for finding in cause.find(facts)]
    places = {cause.name for cause in asked if cause.is_place}
    kept = [f for f in found if f.share is None or f.share >= _LEAST]
    ranked = sorted(kept, key=lambda finding: _key(finding, gaps, places))
    notes = tuple(dict.fromkeys(getattr(facts, "notes", ())))
    return Diagnosis(seen, tuple(ranked[:_MOST]), notes)


def _with_share(finding: Finding, gaps: Mapping[Gap, Respect]) -> Finding:
    if finding.amount is None:
        return finding
    basis = gaps[finding.gap].basis if finding.gap in gaps else 1.0
    return replace(finding, share=max(0.0, min(1.0, finding.amount / basis)))


def _key(finding: Finding, gaps: Mapping[Gap, Respect], places: set[str]) -> tuple[bool, float]:
    known = gaps.get(finding.gap)
    share = _OF_PROOFS if finding.share is None else finding.share
    weight = _OF_PLACES if finding.cause in places else 1.0
    return known is not None and not known.lags, -share * weight
