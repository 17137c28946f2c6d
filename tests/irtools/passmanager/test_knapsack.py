from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from irtools.passmanager import Choice, choose_evenly, choose_levels

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
