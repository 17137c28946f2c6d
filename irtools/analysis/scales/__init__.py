"""Scales per channel that can move through a model exactly: where they lie, and what takes them up.

`find_sites(model, shapes)` looks at the input X [.., K] of every product with a constant weight W:

    X W = (X / s) (diag(s) W)        s > 0, [K]

A `Site` is a set of inputs whose channels are divided together, the constants that change
(`Member`: gains of normalizations, columns and rows of weights, biases) and how the division is
done (`Way`: folded into what makes X, or with a Mul). How a scale passes an operator is a rule of
the table `SCALES`. Statistics, the choice of s and the writing are elsewhere (`irtools.scaling`).
"""

from __future__ import annotations

from irtools.analysis.scales.follow import Cut, Way
from irtools.analysis.scales.rules import SCALES
from irtools.analysis.scales.sites import Site, SiteKind, Sites, find_sites
from irtools.analysis.scales.trace import REASONS, Member, ScaledProduct
from irtools.analysis.scales.units import Layout

__all__ = [
    "REASONS",
    "SCALES",
    "Cut",
    "Layout",
    "Member",
    "ScaledProduct",
    "Site",
    "SiteKind",
    "Sites",
    "Way",
    "find_sites",
]
