"""`irc build` where the passes are found: the search runs once, and its result is kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irtools.builds import make

from .conftest import build_file, change

CONFIG = build_file('best = "auto"', '[goals]\nmax-size = "30%"\n')
MODEL = Path("release/mlp/best/avx2/model.onnx")


@pytest.fixture
def build(irc: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("cache").absolute()))
    Path("irc.toml").write_text(CONFIG, encoding="utf-8")
    return lambda *args: irc("build", *args)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passes of every run from then on; `search` where they were searched for."""
    found: list[str] = []
    real = make.optimize

    def optimize(source: str, pipeline: Any, *args: Any, **given: Any) -> Any:
        found.append("search" if pipeline is None else str(pipeline))
        return real(source, pipeline, *args, **given)

    monkeypatch.setattr(make, "optimize", optimize)
    return found


def _origin(err: str) -> str:
    [row] = (line for line in err.splitlines() if line.startswith("mlp/"))
    return row.rpartition("│")[2].strip()


def _json(file: str) -> Any:
    return json.loads(Path(file).read_text(encoding="utf-8"))


def test_a_search_runs_once_and_the_release_holds_what_it_found(
    build: Callable, runs: list[str]
) -> None:
    assert _origin(build("--dry-run").err) == "to be searched for and built"
    first = build()
    assert first.code == 0, first.err
    assert "int8 (cleanup,int8): taken" in first.err
    [record] = _json("release/irtools.json")["builds"]
    assert (record["inputs"]["pipeline"], record["pipeline"]) == ("auto", "cleanup,int8")
    assert record["inputs"]["settings"]["goals"] == "max-size=0.3x"
    report = _json("release/mlp/best/avx2/report.json")
    assert report["pipeline"] == "cleanup,int8" and report["tried"][-1]["outcome"] == "taken"
    assert report["goals"][0]["kept"]
    assert "- passes: `cleanup,int8`" in Path("release/README.md").read_text(encoding="utf-8")
    assert "| int8 | taken |" in Path("release/report.md").read_text(encoding="utf-8")
    statement = _json("release/provenance.json")["predicate"]["buildDefinition"]
    [parameters] = statement["externalParameters"]["builds"]
    assert (parameters["pipeline"], parameters["passes"]) == ("auto", "cleanup,int8")
    lock, content = Path("irc.lock").read_bytes(), MODEL.read_bytes()
    assert _json("irc.lock")["builds"]["mlp/best/avx2"]["pipeline"] == "cleanup,int8"
    assert _origin(build().err) == "unchanged" and build("--locked").code == 0
    shutil.rmtree("release")
    assert _origin(build("--dry-run").err) == "from the cache"
    assert _origin(build().err) == "from the cache"
    assert runs == ["search"]
    # Neither release nor cache: the lock has the passes, and they make the same bytes.
    shutil.rmtree("release")
    shown = build("--no-cache", "--dry-run").err
    assert _origin(shown) == "to be built with the passes of irc.lock: cleanup,int8"
    assert _origin(build("--no-cache", "--locked").err) == "built"
    assert runs == ["search", "cleanup,int8"]
    assert MODEL.read_bytes() == content and Path("irc.lock").read_bytes() == lock
    # Other goals ask for another search.
    change('"30%"', '"55%"')
    found = build("--locked")
    assert found.code == 5 and "has another settings (goals)" in found.err
    assert _origin(build().err) == "built" and runs[-1] == "search"
    assert _json("irc.lock")["builds"]["mlp/best/avx2"]["pipeline"] == "cleanup,fp16"


def test_what_the_lock_has_found_goes_before_the_cache(build: Callable, runs: list[str]) -> None:
    assert build().code == 0
    change('"pipeline": "cleanup,int8"', '"pipeline": "int8:mode=dynamic"', "irc.lock")
    assert _origin(build("--locked").err) == "built"
    assert runs == ["search", "int8:mode=dynamic"]
    [record] = _json("release/irtools.json")["builds"]
    assert record["pipeline"] == "int8:mode=dynamic"


@pytest.mark.slow
def test_two_builds_are_compared_with_the_passes_that_were_found(build: Callable) -> None:
    found = build("--check")
    assert found.code == 0, found.err
    assert "build 1 of 2\n" in found.err
    assert "build 2 of 2, with the passes that a search found: cleanup,int8" in found.err
    assert "the same bytes twice" in found.err


def test_goals_that_nothing_keeps_leave_no_release(build: Callable) -> None:
    change('"30%"', '"1%"')
    found = build()
    assert found.code == 5
    assert "mlp/best/avx2: no pipeline keeps max-size=0.01x; nearest of those tried" in found.err
    assert not Path("release").exists() and not Path("irc.lock").exists()


def test_a_search_needs_something_to_compare_with(build: Callable) -> None:
    change('evaluate = "data.npz"', 'calibrate = "data.npz"')
    found = build()
    assert found.code == 2
    assert "irc.toml:15:1: measuring.check: mlp/best/avx2 is searched for" in found.err


def test_goals_hold_for_passes_that_are_given(build: Callable) -> None:
    change('best = "auto"', 'best = "cleanup"')
    found = build()
    assert found.code == 5 and "does not keep max-size=0.3x" in found.err
    change('best = "cleanup"', 'best = { passes = "cleanup", goals = {} }')
    assert build().code == 0


def test_init_can_ask_for_a_search(irc: Callable) -> None:
    assert irc("init", "model.onnx", "--passes", "auto", "--evaluate", "data.npz").code == 0
    text = Path("irc.toml").read_text(encoding="utf-8")
    assert 'auto = "auto"' in text and '[goals]\nmax-drop = "1%"\n# speedup' in text


def test_a_lock_of_another_version_says_what_becomes_of_the_passes(build: Callable) -> None:
    Path("irc.lock").write_text('{"format": "irtools-lock", "version": 0}', encoding="utf-8")
    found = build()
    assert found.code == 3 and found.err.count("\n") == 1
    assert "irc.lock has version 0, expected 1: remove it" in found.err
    assert "searched for again" in found.err
