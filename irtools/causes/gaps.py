"""How far the second model lags the first, in each respect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from irtools.causes.facts import ChosenClasses, Facts
from irtools.causes.finding import Gap
from irtools.goals import Interval
from irtools.measure.contest import loss_of_shares
from irtools.words import counted, size_text, sqnr_text

__all__ = ["Respect", "differences"]

_LARGER = 1.02
_MANY_BYTES = 10_000
"""What names and metadata differ by."""
_ALIKE = 0.95
_CLOSE_DB = 30.0


@dataclass(frozen=True)
class Respect:
    """One respect.

    Attributes:
        gap: Which.
        lags: The second model does, beyond noise.
        is_equal: There is no difference beyond noise, either way.
        text: The figures in a few words.
        basis: What amounts of findings are shares of: of a model that lags the difference,
            else its own time or size; of answers 1.
    """

    gap: Gap
    lags: bool
    is_equal: bool
    text: str
    basis: float


def differences(facts: Facts) -> tuple[Respect, ...]:
    """Return the respects that something is known of."""
    return (*_time(facts), _size(facts), *_answers(facts))


def _time(facts: Facts) -> Iterator[Respect]:
    times = facts.times
    if times is None:
        return
    ratio = times.ratio
    slower = ratio.value < 1 and ratio.is_significant
    word = "slower" if ratio.value < 1 else "faster"
    by = 1 / ratio.value if ratio.value < 1 else ratio.value
    low, high = (1 / ratio.high, 1 / ratio.low) if ratio.value < 1 else (ratio.low, ratio.high)
    shown = f"{by:.2f}x {word} [{low:.2f}, {high:.2f}]"
    noise = "" if ratio.is_significant else ", within noise"
    yield Respect(
        Gap.SLOWER,
        slower,
        not ratio.is_significant,
        f"{times.second_ms:.2f} ms against {times.first_ms:.2f} ms at {times.shape}: "
        f"{shown}{noise}",
        _time_basis(facts, slower),
    )


def _time_basis(facts: Facts, slower: bool) -> float:
    """Return the milliseconds to explain, by the clock that the amounts are of."""
    assert facts.times is not None
    gap = facts.times.second_ms - facts.times.first_ms
    if facts.profiles is None:
        return max(gap if slower else facts.times.second_ms, 1e-9)
    first, second = (sum(row.ms for row in one.nodes) for one in facts.profiles)
    more = second - first if second > first else gap
    return max(more if slower else second, 1e-9)


def _size(facts: Facts) -> Respect:
    before, after = facts.first.file_bytes, facts.second.file_bytes
    ratio = max(before, after) / max(min(before, after), 1)
    equal = ratio <= _LARGER or abs(after - before) < _MANY_BYTES
    larger = after > before and not equal
    word = "as large" if equal else f"{ratio:.2f}x {'larger' if larger else 'smaller'}"
    text = f"{size_text(after)} against {size_text(before)}: {word}"
    return Respect(Gap.LARGER, larger, equal, text, float(after - before if larger else after))


def _answers(facts: Facts) -> Iterator[Respect]:
    compared, decisions = facts.comparison, facts.decisions
    if compared is None or not compared.outputs:
        return
    worst = min(one.sqnr_db for one in compared.outputs.values())
    parts = [f"SQNR of the outputs {sqnr_text(worst)}"]
    lags = worst < _CLOSE_DB
    if decisions is not None:
        parts.append(
            f"{100 * decisions.agreement:.2f} % of {counted(len(decisions.first), 'sample')} "
            "decided alike"
        )
        lags = decisions.agreement < 1
        if decisions.labels is not None:
            loss = _loss(decisions)
            # Many other answers are a loss as well, unless they are proved to be better ones.
            many = decisions.agreement < _ALIKE and loss.high >= 0
            lags = loss.low > 0 or many or (lags and loss.value >= 0)
            noise = " within noise" if loss.low <= 0 <= loss.high else ""
            parts.append(
                f"accuracy {-100 * loss.value:+.2f} points "
                f"[{-100 * loss.high:+.2f}, {-100 * loss.low:+.2f}]{noise}"
            )
    if facts.padding is not None and facts.padding.second_db < facts.padding.first_db - 20:
        lags = lags or facts.padding.second_db < _CLOSE_DB
    # 60 dB: what float32 kernels of different order of summation differ by.
    yield Respect(Gap.WORSE, lags, not lags and worst >= 60, ", ".join(parts), 1.0)


def _loss(decisions: ChosenClasses) -> Interval:
    first, second = decisions.chosen
    return loss_of_shares((first == decisions.truth).astype(float) - (second == decisions.truth))
