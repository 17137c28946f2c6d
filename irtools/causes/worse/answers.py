"""Causes that show in the answers: other order of classes, padding, classes that lose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from irtools.causes import commands
from irtools.causes.facts import ChosenClasses, Facts
from irtools.causes.finding import Cause, Finding, Gap
from irtools.causes.worse.noise import noise_of, noise_of_outputs
from irtools.model import iter_nodes
from irtools.words import counted, sqnr_text

__all__ = ["ClassOrder", "LosingClasses", "UnmaskedPadding"]

_FITS = 0.8
_AT_RUN_TIME = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul")
_FEW_SAMPLES = 8


class ClassOrder(Cause):
    """The second model numbers its classes in another order."""

    name: ClassVar[str] = "class-order"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where its classes, renumbered, agree with those of the first model."""
        decisions = facts.decisions
        if decisions is None or len(decisions.first) < _FEW_SAMPLES or decisions.agreement > _FITS:
            return
        renumbered = _renumbered(decisions)
        moved = {a: b for a, b in renumbered.items() if a != b}
        if not moved:
            return
        inverse = {b: a for a, b in renumbered.items()}
        back = np.array([inverse.get(one, -1) for one in decisions.second])
        agreement = float((back == decisions.chosen[0]).mean())
        if agreement < _FITS:
            return
        pairs = ", ".join(f"{a} is {b}" for a, b in list(moved.items())[:5])
        yield self.finding(
            f"the classes stand in another order: class {pairs} in {facts.second.name}",
            (agreement - decisions.agreement) / (1 - decisions.agreement),
            f"the models agree on {100 * decisions.agreement:.1f} % of "
            f"{counted(len(decisions.first), 'sample')}, renumbered on {100 * agreement:.1f} %",
            command=commands.quoted("irc", "inspect", facts.second.name),
            subjects=tuple(map(str, moved)),
        )


class UnmaskedPadding(Cause):
    """Outputs of the second model depend on the padding of the batch."""

    name: ClassVar[str] = "unmasked-padding"
    gap: ClassVar[Gap] = Gap.WORSE

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where padding changes its outputs, and those of the first model not."""
        use = facts.padding
        if use is None or use.second_db > 40 or use.second_db > use.first_db - 20:
            return
        own, outputs = noise_of(use.second_db), noise_of_outputs(facts) or 0.0
        nodes = iter_nodes(facts.second.model.ir)
        is_dynamic = any(node.op_type in _AT_RUN_TIME for node in nodes)
        data = facts.data or "DATA"
        remedy = (
            commands.optimize(facts, "cleanup,fuse,int8:mode=static", "--calibrate", data)
            if is_dynamic
            else commands.optimize(facts, "cleanup,fuse", "--evaluate", data)
        )
        reason = (
            "one range of a whole batch, padding included, quantizes its activations"
            if is_dynamic
            else "its mask is not applied, or not everywhere"
        )
        yield self.finding(
            f"padding changes the outputs of {facts.second.name}: {reason}",
            own / max(own, outputs, 1e-30),
            f"with {counted(use.columns, 'column')} of padding added to "
            f"{counted(use.samples, 'sample')}: {sqnr_text(use.second_db)}, "
            f"{facts.first.name} {sqnr_text(use.first_db)}",
            command=remedy,
        )


class LosingClasses(Cause):
    """Classes whose samples the second model decides otherwise."""

    name: ClassVar[str] = "losing-class"
    gap: ClassVar[Gap] = Gap.WORSE
    is_place: ClassVar[bool] = True

    def find(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding where flipped samples gather in few classes."""
        decisions = facts.decisions
        if decisions is None or not len(decisions.first):
            return
        first, second = decisions.chosen
        flipped = first != second
        if flipped.sum() < 2:
            return
        known, lost = _losses(decisions)
        worst = int(lost.argmax())
        share = lost[worst] / flipped.sum()
        if decisions.classes < 3 or lost[worst] < 2 or share < 1.5 / decisions.classes:
            return
        of_class = known == worst
        gone = of_class & flipped & (first == worst)
        went = np.bincount(second[gone])
        right = _accuracies(decisions)
        yield self.finding(
            f"class {worst} loses most: {int(gone.sum())} of its "
            f"{counted(int(of_class.sum()), 'sample')} are decided otherwise",
            float(share),
            f"{int(flipped.sum())} of {counted(len(flipped), 'sample')} flipped; of class {worst} "
            f"most go to class {int(went.argmax())} ({int(went.max())})",
            *([right] if right else []),
            f"flipped samples: {', '.join(map(str, np.flatnonzero(flipped)[:10]))}",
            command=commands.compare(facts),
            subjects=(str(worst),),
        )


def _losses(decisions: ChosenClasses) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each sample [N], and what each class loses more than it gains.

    Without labels the first model is right.
    """
    first, second = decisions.chosen
    known = first if decisions.truth is None else decisions.truth
    size = max(decisions.classes, int(known.max()) + 1)
    before, after = (np.bincount(known[one == known], minlength=size) for one in (first, second))
    return known, before - after


def _renumbered(decisions: ChosenClasses) -> dict[int, int]:
    """Return the class of the second model that stands for most samples of each of the first."""
    found: dict[int, int] = {}
    first, second = decisions.chosen
    for number in np.unique(first):
        of_class = second[first == number]
        found[int(number)] = int(np.bincount(of_class).argmax())
    return found if len(set(found.values())) == len(found) else {}


def _accuracies(decisions: ChosenClasses) -> str:
    truth = decisions.truth
    if truth is None:
        return ""
    first, second = (float((chosen == truth).mean()) for chosen in decisions.chosen)
    return f"accuracy {100 * first:.2f} % -> {100 * second:.2f} %"
