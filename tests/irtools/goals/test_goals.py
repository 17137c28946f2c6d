"""Goals: what is asked for as text, and whether figures keep it."""

from __future__ import annotations

import pytest

from irtools.errors import OptionError, UsageError
from irtools.goals import KINDS, Answer, Goal, Goals, Interval, Observed, read_size


@pytest.mark.parametrize(
    ("name", "text", "bound", "relative", "metric"),
    [
        ("max-drop", "1%", 0.01, False, None),
        ("max-drop", "0.01", 0.01, False, None),
        ("max-drop", "0.01x", 0.01, True, None),
        ("max-drop", "f1-macro=2%", 0.02, False, "f1-macro"),
        ("min-metric", "0.95", 0.95, False, None),
        ("min-metric", "my.module:score=0.99x", 0.99, True, "my.module:score"),
        ("speedup", "3", 3.0, False, None),
        ("speedup", "2.5x", 2.5, False, None),
        ("max-latency", "10ms", 10.0, False, None),
        ("max-latency", "250us", 0.25, False, None),
        ("max-latency", "1.5 s", 1500.0, False, None),
        ("max-latency", "50%", 0.5, True, None),
        ("max-size", "25MB", 25e6, False, None),
        ("max-size", "25 MB", 25e6, False, None),
        ("max-size", "1MiB", 2.0**20, False, None),
        ("max-size", "0.25x", 0.25, True, None),
        ("max-memory", "1.5GB", 1.5e9, False, None),
    ],
)
def test_bounds_are_read_and_written_back(
    name: str, text: str, bound: float, relative: bool, metric: str | None
) -> None:
    goal = Goal.parse(name, text)
    assert (goal.bound, goal.relative, goal.metric) == (pytest.approx(bound), relative, metric)
    assert Goals.parse(str(goal)) == Goals((goal,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed=3", "no goal 'speed'"),
        ("speedup", "'speedup' is not a goal"),
        ("speedup=fast", "speedup is 'fast', expected a factor"),
        ("speedup=1", "speedup is 1, expected more than 1"),
        ("max-latency=10", "expected a time such as 10ms"),
        ("max-size=25", "expected a size such as 25MB"),
        ("max-size=0MB", "expected more than 0"),
        ("max-drop=150%", "max-drop is 150%"),
        ("max-drop=-1%", "expected a share"),
        ("speedup=f1=3", "not about a metric"),
        ("speedup=2,speedup=3", "two goals for one figure: speedup=2 and speedup=3"),
        ("max-drop=1%,max-drop=2%", "two goals for one figure"),
    ],
)
def test_what_is_not_a_goal_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Goals.parse(text)


def test_goals_are_made_of_options() -> None:
    given = {"max_drop": ("1%", "f1-macro=2%"), "speedup": 3, "max_size": None, "min_metric": ()}
    goals = Goals.of_options(given)
    assert str(goals) == "max-drop=1%,max-drop=f1-macro=2%,speedup=3"
    assert goals.metrics == ("f1-macro",)
    assert str(goals.needing("times")) == "speedup=3"
    with pytest.raises(OptionError, match="no goal 'max-drops'"):
        Goals.of_options({"max_drops": "1%"})


def _seen(**figures: tuple[float, float, float]) -> Observed:
    found = {name.replace("__", ":"): Interval(*ends) for name, ends in figures.items()}
    original = {
        "size": Interval.exact(100),
        "latency": Interval.exact(20),
        "loss:accuracy": Interval.exact(0.9),
        "metric:accuracy": Interval.exact(0.9),
    }
    return Observed(found, original)


@pytest.mark.parametrize(
    ("goal", "figures", "answer"),
    [
        ("max-drop=1%", {"loss__accuracy": (0.002, -0.003, 0.007)}, "yes"),
        ("max-drop=1%", {"loss__accuracy": (0.002, -0.008, 0.012)}, "undecided"),
        ("max-drop=1%", {"loss__accuracy": (0.05, 0.02, 0.08)}, "no"),
        ("max-drop=0.01x", {"loss__accuracy": (0.005, 0.001, 0.0095)}, "undecided"),
        ("max-drop=accuracy=1%", {"loss__accuracy": (0.0, 0.0, 0.0)}, "yes"),
        ("max-drop=f1=1%", {"loss__accuracy": (0.0, 0.0, 0.0)}, "undecided"),
        ("min-metric=0.85", {"metric__accuracy": (0.88, 0.86, 0.9)}, "yes"),
        ("min-metric=0.99x", {"metric__accuracy": (0.88, 0.86, 0.89)}, "no"),
        ("speedup=3", {"speedup": (3.1, 3.0, 3.2)}, "yes"),
        ("speedup=3", {"speedup": (3.1, 2.9, 3.3)}, "undecided"),
        ("max-latency=10ms", {"latency": (9.0, 8.8, 9.2)}, "yes"),
        ("max-latency=40%", {"latency": (9.0, 8.8, 9.2)}, "no"),
        ("max-size=0.25x", {"size": (25, 25, 25)}, "yes"),
        ("max-size=0.25x", {"size": (26, 26, 26)}, "no"),
        ("max-memory=1MB", {}, "undecided"),
    ],
)
def test_the_whole_interval_decides(
    goal: str, figures: dict[str, tuple[float, float, float]], answer: str
) -> None:
    assert Goals.parse(goal).holds(_seen(**figures)) is Answer(answer)


def test_all_goals_hold_at_once() -> None:
    goals = Goals.parse("max-drop=1%,speedup=2,max-size=0.5x")
    figures = {"loss__accuracy": (0.0, 0.0, 0.001), "speedup": (2.5, 2.4, 2.6)}
    assert goals.holds(_seen(**figures)) is Answer.UNDECIDED
    assert goals.holds(_seen(**figures, size=(50, 50, 50))) is Answer.YES
    assert goals.holds(_seen(**figures, size=(60, 60, 60))) is Answer.NO


def test_a_quoted_figure_is_held_against_the_bound_itself() -> None:
    (goal,) = Goals.parse("max-drop=1%")
    assert not goal.misses(_seen(loss__accuracy=(0.009, -0.01, 0.03)))
    assert goal.misses(_seen(loss__accuracy=(0.011, 0.0, 0.02)))
    assert goal.misses(_seen())


def test_sizes_alone_are_read() -> None:
    found = [read_size(text, "size") for text in ("5B", "1.5kB", "80MB", "2 GB", "1MiB", "1tb")]
    assert found[:4] == [5, 1500, 80_000_000, 2_000_000_000] and found[5] == 10**12
    for wrong in ("80", "2x", "50%", "much", "-1MB"):
        with pytest.raises(OptionError, match=r"size is .*, expected a size such as 80MB"):
            read_size(wrong, "size")


@pytest.mark.parametrize("name", KINDS)
def test_a_bound_without_end_is_none(name: str) -> None:
    unit = {"max-size": "MB", "max-memory": "MB", "max-latency": "ms"}.get(name, "")
    with pytest.raises(OptionError, match=rf"{name} is '1e400{unit}', expected a"):
        Goal.parse(name, f"1e400{unit}")
    with pytest.raises(OptionError, match="the size is '1e400MB', expected a size such as 80MB"):
        read_size("1e400MB", "the size")
