"""Which counters count as changes."""

from __future__ import annotations

import re

from irtools.plugins import registry
from irtools.report.counts import count_changed, count_skipped, tell_skipped

# Participles of what passes do to parts of a model.
_DEEDS = (
    "built|computed|dead|folded|fused|hoisted|joined|lifted|merged|quantized|removed|rewritten|"
    "delayed|rotated|scaled|split|"
    "stored|sunk|unpadded|widened|"
    "(heads|neurons|channels)-removed|weights-zeroed"
)


def test_changes_skips_and_measures_are_told_apart() -> None:
    found = {
        "num-fused-gelu": 4,
        "num-unfused-gelu": 8,
        "num-skipped-small": 16,
        "num-already-quantized": 32,
        "num-groups-blocked": 64,
        "num-rounds": 128,
        "num-heads-removed": 1,
        "num-parameters-removed": 10**6,
        "num-outlier-channels": 5,
    }
    assert count_changed(found) == 4 + 1
    assert count_skipped(found) == 8 + 16 + 32 + 64


def test_every_statistic_of_our_passes_is_known() -> None:
    """A new name must say a deed, or be known as something else: no row counts wrong unseen."""
    for name in registry.names("irtools.passes"):
        for counter in registry.load("irtools.passes", name).counters:
            changed = bool(re.match(rf"num-({_DEEDS})(-|$)", counter))
            measured = counter in (
                "num-rounds",
                "num-parameters-removed",
                "num-outlier-channels",
                "num-rounded-for-data",
                "num-lacking-channel-rule",
                "num-ranked-by-magnitude",
                "num-kept-grid",
                "num-rotation-products",
                "num-lacking-half-rule",
            )
            one = {counter: 1}
            assert count_changed(one) == int(changed), counter
            assert count_skipped(one) == int(not changed and not measured), counter


def test_what_was_left_alone_is_told_in_the_passes_own_words() -> None:
    phrases = {"num-skipped-small": "small weights", "num-already-quantized": "quantized before"}
    found = {
        "num-rounds": 9,
        "num-skipped-small": 2,
        "num-already-quantized": 7,
        "num-skipped-x": 1,
        "num-skipped-none": 0,
    }
    said = "quantized before (7); small weights (2); num-skipped-x (1)"
    assert tell_skipped(found, phrases) == said
    assert tell_skipped({"num-rounds": 1}, phrases) == ""
