"""What each weight may become, and how much of its error reaches the outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from irtools.model import release_tensor
from irtools.passes.quantization.forms.apply import expressible
from irtools.passes.quantization.forms.blocks import BlockTable, Int4, Tied
from irtools.passes.quantization.forms.choose import Chosen
from irtools.passes.quantization.forms.dynamic import Dynamic
from irtools.passes.quantization.forms.half import Half
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.static import Static
from irtools.passes.quantization.forms.token_wise import TokenWise
from irtools.passes.quantization.forms.weight_only import WeightOnly
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.stored import StoredWeight
from irtools.passes.quantization.sites.uses import Weight
from irtools.passmanager import Decision
from irtools.targets import Capabilities

__all__ = ["Alternatives", "Priced", "alternatives_of", "influences"]

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


@dataclass(frozen=True)
class Priced:
    """What one weight may become, at two prices.

    Attributes:
        nearest: With each code the nearest, as trials round.
        rounded: As the pass will round, in the same order.
    """

    nearest: Alternatives
    rounded: Alternatives


def alternatives_of(
    model: ir.Model,
    chosen: Sequence[Chosen],
    usual: Sequence[Decision],
    evidence: Evidence,
    stored: Mapping[str, StoredWeight],
    workers: int = 1,
) -> list[Priced]:
    """Return what each weight may become.

    Args:
        model: What they are weights of. Forms that its opset cannot express are left out.
        chosen: Weights, each with its usual form.
        usual: Their decisions; weights without one are left alone.
        evidence: Predicts errors; `remaining` counts for `Priced.rounded` alone.
        stored: Weights by name that may be stored in 16 bits.
        workers: So many weights are looked at at a time.
    """
    decided = {d.data["weight"]: d for d in usual}
    nearest = replace(evidence, remaining={})
    can = expressible(model)
    with_half = can(Half())

    def alternatives(item: Chosen) -> Priced:
        weight, form = item
        own = decided[weight.name]
        forms = [f for f in _others(form) if can(f) and _takes(f, weight, evidence.capabilities)]
        pairs = [_decided(other, weight, nearest, evidence) for other in forms]
        half = None
        if with_half and weight.name in stored and not form.is_table:
            half = _in_half(stored[weight.name], own, evidence)
        if half is not None:
            pairs.append((half, half))
        others = [(a, b) for a, b in pairs if a.data != own.data]
        again = next((b for a, b in pairs if a.data == own.data), own)
        if again is own and form.rounds_for_data and evidence.remaining:
            again = _decided(_form_of(own), weight, nearest, evidence)[1]
        return Priced(
            Alternatives(own, (own, *(a for a, _ in others))),
            Alternatives(again, (again, *(b for _, b in others))),
        )

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(alternatives, (c for c in chosen if c[0].name in decided)))


def _form_of(decision: Decision) -> WeightForm:
    form = read_decision(decision).form
    assert isinstance(form, WeightForm)
    return form


def _decided(
    form: WeightForm, weight: Weight, nearest: Evidence, rounded: Evidence
) -> tuple[Decision, Decision]:
    """Return the decision for a form that fits, at both prices."""
    fitted = form.fitted(weight, nearest)
    assert not isinstance(fitted, Reason)
    loss = fitted.rounded(weight, nearest)
    release_tensor(weight.tensor)
    plain = fitted.decision(weight, loss, nearest)
    if not (form.rounds_for_data and rounded.remaining):
        return plain, plain
    return plain, fitted.decision(weight, loss, rounded)


def _in_half(weight: StoredWeight, own: Decision, evidence: Evidence) -> Decision | None:
    """Return the decision for 16 bits, products in float32; None where it is not for the weight."""
    form = Half()
    if form.fits(weight, evidence.capabilities) is not None:
        return None
    found = form.decide(weight, evidence)
    return None if isinstance(found, Reason) else replace(found, subject=own.subject)


def _others(form: WeightForm) -> Iterator[WeightForm]:
    """Yield the forms that may take the place of one: those that targets multiply as they are."""
    match form:
        case Int4():
            for block in (32, 64, 128):
                yield Int4(block, "affine", scales="s8")
                yield Int4(block, "symmetric", scales="s8")
            yield Int4(32, "affine", exact=True)
            yield Int4(32, "symmetric", 8, scales="s8")
            yield Int4(128, "symmetric", 8, scales="s8")
            yield from _of_two_bits()
        case Tied():
            for block in (32, 64):
                yield Tied(block, "symmetric")
                yield Tied(block, "affine", 8)
        case Static() | Dynamic() | TokenWise() | WeightOnly():
            yield from (Int4(block, "affine") for block in (32, 64, 128))
            yield from _of_two_bits()
        case RowTable() | BlockTable():
            yield BlockTable()
            yield RowTable()


def _of_two_bits() -> Iterator[WeightForm]:
    for block in (32, 64, 128):
        yield Int4(block, "affine", 2, scales="s8")
        yield Int4(block, "symmetric", 2, scales="s8")


def _takes(form: WeightForm, weight: Weight, capabilities: Capabilities) -> bool:
    if not form.serves(weight) or form.fits(weight, capabilities) is not None:
        return False
    if isinstance(form, Int4 | Tied | BlockTable):
        fitted = form.fitted(weight, Evidence(capabilities))
        return not isinstance(fitted, Reason) and fitted.block == form.block
    return not isinstance(form.fitted(weight, Evidence(capabilities)), Reason)


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
            # Nothing at all is what no sample reaches: that shows nothing.
            factors[at] = away / predicted if away else math.nan
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
