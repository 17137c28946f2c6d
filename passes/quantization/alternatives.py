"""What each weight may become, and how much of its error reaches the outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from irtools.passes.quantization.forms.blocks import BlockTable, Int4, Tied
from irtools.passes.quantization.forms.choose import Chosen
from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenWise
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.uses import Weight
from irtools.passmanager import Decision
from irtools.targets import Capabilities

__all__ = ["Alternatives", "alternatives_of", "influences"]

_GROUPS = 24
"""Trials that tell how much of an error reaches the outputs."""
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Alternatives:
    """What one weight may become.

    Attributes:
        usual: As it would be with one form for all.
        decisions: All that it may become, `usual` among them; costs are weighed by `influences`.
    """

    usual: Decision
    decisions: tuple[Decision, ...]

    def weighed(self, factor: float) -> Alternatives:
        """Return them with costs times a factor."""
        pairs = [(d, replace(d, cost=float(f"{d.cost * factor:.4g}"))) for d in self.decisions]
        usual = next(new for old, new in pairs if old == self.usual)
        return Alternatives(usual, tuple(new for _, new in pairs))


def alternatives_of(
    chosen: Sequence[Chosen], usual: Sequence[Decision], evidence: Evidence, workers: int = 1
) -> list[Alternatives]:
    """Return what each weight may become.

    Args:
        chosen: Weights, each with its usual form.
        usual: Their decisions; weights without one are left alone.
        evidence: Predicts errors.
        workers: So many weights are looked at at a time.
    """
    decided = {d.data["weight"]: d for d in usual}

    def alternatives(item: Chosen) -> Alternatives:
        weight, form = item
        own = decided[weight.name]
        fitting = (f for f in _others(form) if _takes(f, weight, evidence.capabilities))
        made = (other.decide(weight, evidence) for other in fitting)
        others = [d for d in made if not isinstance(d, Reason) and d.data != own.data]
        return Alternatives(own, (own, *others))

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(alternatives, (c for c in chosen if c[0].name in decided)))


def _others(form: WeightForm) -> Iterator[WeightForm]:
    """Yield the forms that may take the place of one: those that targets multiply as they are."""
    match form:
        case Int4():
            for block in (32, 64, 128):
                yield Int4(block, "affine", scales="s8")
                yield Int4(block, "symmetric", scales="s8")
            yield Int4(32, "symmetric", 8, scales="s8")
            yield Int4(128, "symmetric", 8, scales="s8")
        case Tied():
            for block in (32, 64):
                yield Tied(block, "symmetric")
                yield Tied(block, "affine", 8)
        case Static() | Dynamic() | TokenWise() | WeightOnly():
            yield from (Int4(block, "affine") for block in (32, 64, 128))
        case RowTable() | BlockTable():
            yield BlockTable()
            yield RowTable()


def _takes(form: WeightForm, weight: Weight, capabilities: Capabilities) -> bool:
    if not form.serves(weight) or form.fits(weight, capabilities) is not None:
        return False
    if isinstance(form, Int4 | Tied | BlockTable):
        fitted = form.fitted(weight, Evidence(capabilities))
        return not isinstance(fitted, Reason) and fitted.block == form.block
    return True


def influences(
    found: Sequence[Alternatives],
    lost: Callable[[tuple[Decision, ...]], float | None],
    step: Callable[[int, int], None],
) -> list[float]:
    """Return how much of the predicted error of each weight reaches the outputs.

    Args:
        found: The weights in the order of the graph. Those whose names differ in numbers alone do
            the same in other layers; neighbours among them share a trial.
        lost: Runs the model with some decisions carried out: how far its outputs are from those of
            the original, None where that is unknown.
        step: Shows how far it is.
    """
    factors = [math.nan] * len(found)
    groups = _groups([item.usual.subject for item in found])
    for number, group in enumerate(groups):
        step(number, len(groups))
        predicted = sum(found[at].usual.cost for at in group)
        away = lost(tuple(found[at].usual for at in group)) if predicted else None
        for at in group:
            factors[at] = math.nan if away is None else away / predicted
    known = [factor for factor in factors if factor > 0]
    # What has no measured influence is cheap, not free.
    least, fallback = (min(known), float(np.median(known))) if known else (1.0, 1.0)
    return [fallback if math.isnan(factor) else max(factor, least) for factor in factors]


def _groups(names: Sequence[str]) -> list[list[int]]:
    """Return places by kind of weight and by depth, some two dozen groups."""
    kinds: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        kinds.setdefault(_NUMBER.sub("#", name), []).append(at)
    size = max(1, math.ceil(len(names) / max(_GROUPS - len(kinds), 1)))
    return [
        places[start : start + size]
        for places in kinds.values()
        for start in range(0, len(places), size)
    ]
