"""Which weights get more bits than the others: as few as a trial run shows the need for.

A handful of layers often does most of the harm: the first Conv of a detector, a recurrent state, a
product whose input holds a few huge values or infinity. Where a quantized model keeps too little of
the original's outputs, each weight is quantized alone, and those that lose most get a finer form
until enough is kept:

    multiplied in 8 bits -> stored in 8 bits -> stored in 16 bits -> float32
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import onnx_ir as ir

from irtools.errors import IrtoolsError
from irtools.passes.quantization.forms.base import Key
from irtools.passes.quantization.forms.registry import read_decision
from irtools.passes.quantization.forms.storage import StoragePlanner
from irtools.passes.quantization.forms.stored import StoredForm
from irtools.passes.quantization.sites.reasons import Reason
from irtools.passes.quantization.sites.stored import StoredWeight, find_stored
from irtools.passes.quantization.smoothed import scales_in
from irtools.passes.quantization.switchboard import Switchboard
from irtools.passes.quantization.trial_run import TrialRun
from irtools.passmanager import Decision, Plan
from irtools.plugins import Progress
from irtools.words import counted

__all__ = ["FinerForms", "Search", "near_db", "spare"]

_MARGIN_DB = 1.0
"""So much more than enough is looked for on 16 samples: others differ. Of fewer the mean is less
certain, by the root of their number."""
_OF_SAMPLES = 16
_DRAWN_MARGIN_DB = 4.0
"""The same on samples that are drawn."""

_MOST_TRIALS = 48
"""Trials for an order of the weights; fewer where a run is much work."""
_FEWEST_TRIALS = 8

_WORK = 1e12
"""Operations that the search may take, half of them for the order; what keeps most once they are
reached is taken. No clock decides: equal inputs give equal models, however busy the machine."""

_ROUNDS = 3

Measure = Callable[[Sequence[Decision], bool], "float | None"]
"""Carries decisions out and runs the model, on all samples or the first ones: what it keeps."""


class FinerForms:
    """Finds the next finer form of a decision.

    Args:
        model: The original. Stays as it is.
        planner: Decides how its weights are stored.
        finest: What they are stored in where that loses too much.
    """

    def __init__(self, model: ir.Model, planner: StoragePlanner, finest: StoredForm) -> None:
        self._model = model
        self._planner = planner
        self._finest = finest

    def next(self, decision: Decision) -> Decision | None:
        """Return a finer decision about the same weight; None: it stays in float32."""
        made = read_decision(decision)
        if made.form.rounds_activations and made.key in self._stored:
            return self._stored[made.key]
        weight = self._weights.get(made.key)
        if weight is None or made.form.name == self._finest.name:
            return None
        evidence = self._planner.evidence
        if self._finest.fits(weight, evidence.capabilities) is not None:
            return None
        found = self._finest.decide(weight, evidence)
        return None if isinstance(found, Reason) else replace(found, subject=decision.subject)

    @cached_property
    def _stored(self) -> dict[Key, Decision]:
        found = self._planner.decide(self._model, ())
        return {read_decision(decision).key: decision for decision in found}

    @cached_property
    def _weights(self) -> dict[Key, StoredWeight]:
        return {weight.key: weight for weight in find_stored(self._model).weights}


class Search:
    """Finds how many decisions must be finer.

    Args:
        finer: Gives the next finer form of a decision.
        measure: Says what decisions keep, in decibels.
        enough_db: What is looked for.
        order_trials: Trials for the order of the decisions.
        trials: Further ones, after which what keeps most is taken.

    Attributes:
        best: The decisions that keep most of those that were tried, or the fewest changes that
            keep enough.
        kept_db: What they keep.
        changed: How many of them are finer than at first.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        kept_db: float,
        finer: Callable[[Decision], Decision | None],
        measure: Measure,
        enough_db: float,
        *,
        order_trials: int = _MOST_TRIALS,
        trials: int = _MOST_TRIALS,
    ) -> None:
        self.best: Sequence[Decision] = decisions
        self.kept_db = kept_db
        self.changed = 0
        self._finer = finer
        self._measure = measure
        self._enough_db = enough_db
        self._order_trials = order_trials
        self._left = trials

    def run(self) -> None:
        """Search until enough is kept, nothing finer is left or the trials are used up."""
        for _ in range(_ROUNDS):
            tried = self.kept_db
            self._round(self._ranked(self.best))
            if self.kept_db >= self._enough_db or not self.kept_db > tried or self._is_over():
                return

    def _ranked(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Return the decisions by what each of them alone keeps, the worst one first.

        Where there are many, neighbours are tried together.
        """
        size = math.ceil(len(decisions) / self._order_trials)
        ranked: list[tuple[float, Decision]] = []
        for at in range(0, len(decisions), size):
            group = decisions[at : at + size]
            kept = self._kept(group, first=True)
            ranked += [(kept, decision) for decision in group]
        return [decision for _, decision in sorted(ranked, key=lambda pair: pair[0])]

    def _round(self, ranked: Sequence[Decision]) -> None:
        before, changed = self.best, self.changed

        def attempt(count: int) -> bool:
            finer = {id(d): self._finer(d) for d in ranked[:count]}
            made = [finer.get(id(d), d) for d in before]
            chosen = [d for d in made if d is not None]
            kept = self._kept(chosen)
            enough = kept >= self._enough_db
            if kept > self.kept_db or enough:
                self.best, self.kept_db, self.changed = chosen, kept, changed + count
            return enough

        low, high = 0, 1
        while not attempt(high):
            if high >= len(ranked) or self._is_over():
                return
            low, high = high, min(2 * high, len(ranked))
        while high - low > max(1, high // 8) and not self._is_over():
            middle = (low + high) // 2
            low, high = (low, middle) if attempt(middle) else (middle, high)

    def _kept(self, decisions: Sequence[Decision], *, first: bool = False) -> float:
        self._left -= not first
        found = self._measure(decisions, first)
        return -math.inf if found is None else found

    def _is_over(self) -> bool:
        return self._left <= 0


def near_db(trial: TrialRun) -> float:
    """Return how much more than enough must be kept for nothing to be tried, in decibels."""
    return _margin_db(trial) / 2


def _margin_db(trial: TrialRun) -> float:
    if trial.drawn:
        return _DRAWN_MARGIN_DB
    return _MARGIN_DB * math.sqrt(max(_OF_SAMPLES / max(trial.samples, 1), 1.0))


def spare(
    plan: Plan,
    finer: Callable[[Decision], Decision | None],
    applied: Callable[[Plan], ir.Model],
    trial: TrialRun | None,
    enough_db: float,
    progress: Progress,
    all_in: str = "8 bits",
) -> Plan:
    """Return a plan that keeps enough of the outputs, with a note where it differs.

    Args:
        plan: Quantizes everything that can be.
        finer: Gives the next finer form of a decision.
        applied: Carries a plan out on a copy of the model.
        trial: Runs what comes of it; None: the plan is kept.
        enough_db: What must be kept.
        progress: Shows how many trials are done.
        all_in: What the plan does, in words.
    """
    if trial is None or not scales_in(plan)[1].decisions:
        return plan
    first = trial.sqnr_db(applied(plan))
    found, kept = plan, first
    if first is not None and first < enough_db + near_db(trial):
        found, kept = _searched(plan, first, finer, applied, trial, enough_db, progress, all_in)
    if kept is None or kept == -math.inf or trial.names is None:
        return found
    note = _places(trial, kept, trial.worst_other(applied(found)))
    return replace(found, notes=(*found.notes, note))


def _searched(
    plan: Plan,
    first: float,
    finer: Callable[[Decision], Decision | None],
    applied: Callable[[Plan], ir.Model],
    trial: TrialRun,
    enough_db: float,
    progress: Progress,
    all_in: str,
) -> tuple[Plan, float]:
    """Return the plan with finer forms, and what it keeps; arguments as in `spare`.

    Args:
        first: What the plan keeps as it is.
    """
    scales, weights = scales_in(plan)
    order_trials, trials = _trials(trial.work), _trials(trial.work * len(trial.feeds))
    most = min(len(plan.decisions), order_trials) + trials
    with _Bench(plan, applied, trial, progress, most) as bench:
        search = Search(
            weights.decisions,
            first,
            finer,
            bench.measure,
            enough_db + _margin_db(trial),
            order_trials=order_trials,
            trials=trials,
        )
        search.run()
    if not search.changed:
        return plan, first
    whose = "drawn sample" if trial.drawn else "sample"
    before = "are not finite" if first == -math.inf else f"keep {first:.1f} dB"
    note = (
        f"{counted(search.changed, 'weight')} in a finer form than the others, for "
        f"{search.kept_db:.1f} dB: with all in {all_in} the outputs {before} "
        f"({counted(trial.samples, whose)}); least-sqnr=none keeps all in {all_in}"
    )
    ordered = sorted(search.best, key=lambda d: (d.cost, d.subject))
    found = replace(plan, decisions=(*scales, *ordered), notes=(*plan.notes, note))
    return found, search.kept_db


def _places(trial: TrialRun, kept_db: float, worst: tuple[str, float] | None) -> str:
    """Say what is judged in place of outputs, and what these keep."""
    others = "outputs that are compared number by number may keep less"
    if worst is not None:
        others = f"compared number by number, output {worst[0]!r} keeps {worst[1]:.1f} dB"
    return (
        "outputs jump where another place becomes the largest or an angle turns: in place of them "
        f"{counted(len(trial.names or ()), 'tensor')} before are judged, which keep {kept_db:.1f} "
        f"dB; {others}"
    )


def _trials(work: int) -> int:
    """Return how many trials of so many operations half of the search has."""
    return min(_MOST_TRIALS, max(_FEWEST_TRIALS, int(_WORK / 2 / max(work, 1))))


class _Bench:
    """Measures combinations of decisions, those about storage on one running model."""

    def __init__(
        self,
        plan: Plan,
        applied: Callable[[Plan], ir.Model],
        trial: TrialRun,
        progress: Progress,
        most: int,
    ) -> None:
        self._plan = plan
        self._applied = applied
        self._trial = trial
        self._progress = progress
        self._done, self._most = 0, most
        self._board: tuple[tuple[Decision, ...], Switchboard] | None = None

    def __enter__(self) -> _Bench:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board[1].close()

    def measure(self, decisions: Sequence[Decision], first: bool) -> float | None:
        """Return what decisions keep, in decibels; None where nothing can be compared."""
        self._progress.step("trying finer forms", min(self._done, self._most), self._most)
        self._done += 1
        made = [read_decision(decision) for decision in decisions]
        if not Switchboard.serves(made):
            return self._trial.sqnr_db(self._applied(self._with(decisions)))
        pairs = list(zip(decisions, made, strict=True))
        others = tuple(
            decision for decision, data in pairs if not isinstance(data.form, StoredForm)
        )
        stored = [decision for decision, data in pairs if isinstance(data.form, StoredForm)]
        try:
            return self._board_for(others).measure(stored, first=first)
        except IrtoolsError:
            return None

    def _board_for(self, others: tuple[Decision, ...]) -> Switchboard:
        """Return the running model in which these decisions are carried out already."""
        if self._board is not None and self._board[0] != others:
            self._board[1].close()
            self._board = None
        if self._board is None:
            model = self._applied(self._with(others))
            self._board = (others, Switchboard(model, self._trial))
        return self._board[1]

    def _with(self, decisions: Sequence[Decision]) -> Plan:
        return replace(self._plan, decisions=(*scales_in(self._plan)[0], *decisions))
