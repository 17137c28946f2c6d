from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irtools.passmanager import Choice, choose_evenly, choose_levels, choose_within

levels = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=4).map(
    lambda steps: Choice(
        np.cumsum([0, *(cost for cost, _ in steps)]).astype(float),
        np.cumsum([0, *(gain for _, gain in steps)]).astype(float),
    )
)


@settings(deadline=None)
@given(st.lists(levels, min_size=1, max_size=4), st.floats(0.05, 1.0))
def test_no_other_levels_are_cheaper(choices: list[Choice], share: float) -> None:
    wanted = share * sum(c.gains.max() for c in choices)
    found = choose_levels(choices, wanted)
    assert found is not None

    def total(levels: tuple[int, ...], what: str) -> float:
        return sum(float(getattr(c, what)[i]) for c, i in zip(choices, levels, strict=True))

    # Rounding gives away at most a two-thousandth of the gain per group.
    slack = wanted * len(choices) / 2000
    assert total(found, "gains") >= wanted - slack
    every = itertools.product(*(range(len(c.costs)) for c in choices))
    least = min(
        total(x, "costs")
        for x in every
        if total(x, "gains") >= wanted + slack or x == tuple(len(c.costs) - 1 for c in choices)
    )
    assert total(found, "costs") <= least + 1e-9


def test_what_cannot_be_reached_is_none() -> None:
    choice = Choice(np.array([0.0, 1.0]), np.array([0.0, 5.0]))
    assert choose_levels([choice], 6.0) is None
    assert choose_evenly([choice], 6.0) is None
    assert choose_levels([choice], 0.0) == (0,)


def test_cheap_gain_is_taken_before_dear_gain() -> None:
    cheap = Choice(np.array([0, 0.1, 5.0]), np.array([0, 4.0, 8.0]))
    dear = Choice(np.array([0, 1.0, 2.0]), np.array([0, 4.0, 8.0]))
    assert choose_levels([cheap, dear], 4.0) == (1, 0)
    assert choose_levels([cheap, dear], 8.0) == (1, 1)


def test_even_choice_takes_the_same_share_of_each() -> None:
    choice = Choice(np.zeros(5), np.arange(5.0))
    assert choose_evenly([choice, choice], 4.0) == (2, 2)


def _drawn(things: int, levels: int, limits: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(things)
    costs = [10.0 ** rng.uniform(-6, 0, levels) for _ in range(things)]
    return costs, [rng.random((limits, levels)) for _ in range(things)]


@pytest.mark.parametrize("limits", [1, 2, 3])
@pytest.mark.parametrize("room", [0.1, 0.3, 0.6])
def test_few_things_under_several_limits_get_the_best_of_all(limits: int, room: float) -> None:
    costs, uses = _drawn(6, 4, limits)
    found = choose_within(costs, uses, [6 * room] * limits)
    every = itertools.product(range(4), repeat=6)
    sums = {
        levels: sum(float(c[at]) for c, at in zip(costs, levels, strict=True))
        for levels in every
        if all(
            sum(float(u[limit, at]) for u, at in zip(uses, levels, strict=True)) <= 6 * room
            for limit in range(limits)
        )
    }
    assert found == (min(sums, key=lambda levels: sums[levels]) if sums else None)


def test_many_things_come_close_to_the_bound() -> None:
    """No choice can cost less than the relaxation at any prices."""
    costs, uses = _drawn(200, 12, 2)
    costs = [np.sqrt(cost) for cost in costs]
    limits = (70.0, 60.0)
    found = choose_within(costs, uses, limits)
    assert found is not None
    used = sum(use[:, at] for use, at in zip(uses, found, strict=True))
    assert (used <= np.array(limits) * (1 + 1e-6)).all()
    total = sum(float(cost[at]) for cost, at in zip(costs, found, strict=True))
    bound = max(
        sum(float((c + a * u[0] + b * u[1]).min()) for c, u in zip(costs, uses, strict=True))
        - a * limits[0]
        - b * limits[1]
        for a, b in itertools.product(np.geomspace(0.01, 3, 24), repeat=2)
    )
    assert bound <= total < 1.03 * bound


def test_what_is_not_known_is_not_chosen() -> None:
    costs = [np.array([0.0, 1.0])] * 60
    uses = [np.array([[np.inf, 1.0]])] * 60
    assert choose_within(costs, uses, [100.0]) == (1,) * 60
    assert choose_within(costs, uses, [50.0]) is None
