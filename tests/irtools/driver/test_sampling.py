"""How tokens are chosen, and where a text stops."""

from __future__ import annotations

import numpy as np
import pytest

from irtools.driver.sampling import Sampler, Sampling, Stops
from irtools.errors import UsageError

SCORES = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
PROMPT = np.array([1])


def shares(settings: Sampling, draws: int = 4000) -> np.ndarray:
    """Return how often each token is drawn."""
    sampler = Sampler(settings, np.zeros(0, np.int64))
    drawn = [sampler.choose(SCORES) for _ in range(draws)]
    return np.bincount(drawn, minlength=len(SCORES)) / draws


def test_without_a_temperature_the_likeliest_is_taken() -> None:
    assert Sampler(Sampling(seed=3), PROMPT).choose(SCORES) == 1


def test_tokens_are_drawn_by_their_probability() -> None:
    np.testing.assert_allclose(shares(Sampling(1.0)), [0.1, 0.4, 0.2, 0.3], atol=0.03)
    # Squares, over their sum of 0.3.
    found = shares(Sampling(0.5))
    np.testing.assert_allclose(found, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.3], atol=0.03)


def test_only_the_likeliest_are_drawn_from() -> None:
    np.testing.assert_allclose(shares(Sampling(1.0, top_k=2)), [0, 4 / 7, 0, 3 / 7], atol=0.03)
    # 0.4 + 0.3 lack 0.05 of the share, so the next one is kept.
    found = shares(Sampling(1.0, top_p=0.75))
    np.testing.assert_allclose(found, [0, 4 / 9, 2 / 9, 3 / 9], atol=0.03)
    assert shares(Sampling(1.0, top_p=0.01)).tolist() == [0, 1, 0, 0]


def test_the_same_seed_draws_the_same() -> None:
    first, other = (Sampler(Sampling(1.0, seed=5), PROMPT) for _ in range(2))
    texts = [[s.choose(SCORES) for _ in range(20)] for s in (first, other)]
    assert texts[0] == texts[1]
    third = Sampler(Sampling(1.0, seed=6), PROMPT)
    assert [third.choose(SCORES) for _ in range(20)] != texts[0]


def test_what_was_there_is_penalized_on_both_sides_of_zero() -> None:
    scores = np.array([1.0, 3.0, 2.0, -1.0])
    sampler = Sampler(Sampling(repetition_penalty=2.0), PROMPT)
    # 3 / 2, then 2 / 2, then the prompt's token again.
    assert [sampler.choose(scores) for _ in range(3)] == [2, 1, 1]
    low = Sampler(Sampling(repetition_penalty=2.0), np.array([0]))
    assert low.choose(np.array([-1.0, -1.5])) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": 1.0, "top_p": 0.0}, "top-p is 0"),
        ({"temperature": 1.0, "top_k": -1}, "top-k is -1"),
        ({"repetition_penalty": 0.0}, "repetition-penalty is 0"),
        ({"top_k": 5}, "give a temperature"),
        ({"top_p": 0.5}, "give a temperature"),
    ],
)
def test_values_that_mean_nothing(given: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Sampling(**given)  # type: ignore[arg-type]


def test_a_text_ends_before_a_word_that_comes_in_pieces() -> None:
    stops = Stops(["END", "STOP"])
    assert stops.add("one S", last=False) == ("one ", False)
    assert stops.add("un E", last=False) == ("Sun ", False)
    assert stops.add("N", last=False) == ("", False)
    assert stops.add("D more", last=False) == ("", True)


def test_what_was_held_back_is_shown_at_the_end() -> None:
    stops = Stops(["END"])
    assert stops.add("the EN", last=False) == ("the ", False)
    assert stops.add("", last=True) == ("EN", False)
    assert Stops([]).add("END", last=False) == ("END", False)
