"""What the counters of a pass count.

A counter is named `num-<what happened>-<to what>`. Most names say what was changed; some say
what was left as it was, and a few measure the work instead of counting it.
"""

from __future__ import annotations

from collections.abc import Mapping

from irtools.words import tallied

__all__ = ["count_changed", "count_skipped", "counts_skipped", "tell_skipped"]

_SKIPPED = ("num-skipped-", "num-unfused-", "num-already-", "num-groups-blocked")
_MEASURES = (
    "num-rounds",
    # How much the removed heads, neurons and channels hold; those are what was changed.
    "num-parameters-removed",
    # Parts of the weights that were quantized.
    "num-outlier-channels",
    "num-rounded-for-data",
    # What the change costs at run time.
    "num-rotation-products",
    # How some of what was changed was chosen.
    "num-ranked-",
    "num-kept-grid",
    # What other passes did so that this one finds what it requires.
    "num-prepared-",
    # Parts of what was skipped: for lack of a rule for its operator.
    "num-lacking-",
)


def count_changed(counters: Mapping[str, int]) -> int:
    """Return how many things a pass changed."""
    return sum(n for name, n in counters.items() if not name.startswith(_SKIPPED + _MEASURES))


def counts_skipped(name: str) -> bool:
    """Whether a counter counts what a pass looked at and left as it was."""
    return name.startswith(_SKIPPED)


def count_skipped(counters: Mapping[str, int]) -> int:
    """Return how many things a pass looked at and left as they were."""
    return sum(n for name, n in counters.items() if counts_skipped(name))


def tell_skipped(counters: Mapping[str, int], phrases: Mapping[str, str]) -> str:
    """Say what a pass left as it was, the largest count first; empty where it left nothing.

    Args:
        counters: Counts by name.
        phrases: What the pass declares of its counts (`Pass.counters`).
    """
    found = [(n, name) for name, n in counters.items() if n and counts_skipped(name)]
    ordered = sorted(found, key=lambda item: -item[0])
    return "; ".join(tallied(n, phrases.get(name, name)) for n, name in ordered)
