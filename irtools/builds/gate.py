"""The gate: a release against an older one, both measured here and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from irtools.builds.config import Config
from irtools.builds.matrix import Combination, combinations
from irtools.builds.records import MEASURED_FILES, BuildRecord, Manifest
from irtools.builds.release import damage_of, read_release
from irtools.builds.settings import metric_of, reading_of
from irtools.builds.watch import Watch
from irtools.driver.contenders import (
    choose_contest_metric,
    load_contender,
    read_for_contenders,
)
from irtools.errors import DataError, UsageError
from irtools.measure.base import BenchSettings
from irtools.measure.contest import Contender, Contest, ContestResult, ContestSettings, Standing
from irtools.measure.own_machine import why_not_timed
from irtools.targets import find_target, target_text
from irtools.words import counted, size_text

__all__ = ["Comparison", "Verdict", "compare_releases", "read_baseline", "regressions"]

Verdict = Literal["ok", "better", "worse", "not compared"]

_LARGER = 1.02
"""How much larger a build may be: names and notes change, weights should not."""
_AGREEMENT = 0.01
"""How many more answers may differ from those of the source."""


@dataclass(frozen=True)
class Comparison:
    """One figure of a build in both releases.

    Attributes:
        build: Its name.
        figure: `latency`, the name of the metric, `size` or `agreement`.
        baseline: In the old release, as text.
        found: In the new one, as text.
        change: What lies between them, with its interval.
        verdict: Worse only where noise does not explain it.
    """

    build: str
    figure: str
    baseline: str
    found: str
    change: str
    verdict: Verdict


def read_baseline(folder: Path, config: Config) -> Manifest:
    """Return an older release that the builds of `irc.toml` can be compared with.

    Raises:
        FileError: There is none.
        DataError: It is one of another version, or a file of it is not what was built.
        UsageError: It has no build of these names, or was made for models with other inputs.
    """
    manifest = read_release(folder)
    if damage := damage_of(folder, manifest):
        raise DataError(f"{folder}/{damage[0]}: give a release that is as it was built")
    known = {one.name for one in manifest.builds}
    wanted = [one.name for one in combinations(config)]
    if not known & set(wanted):
        raise UsageError(
            f"{folder} does not go with {config.path}: it has {', '.join(sorted(known))}, and "
            f"not one of {', '.join(wanted)}"
        )
    return manifest


def check_same_model(old: BuildRecord, new: BuildRecord, folder: Path) -> None:
    """Refuse a baseline whose build takes other inputs, gives other outputs or has another task.

    Raises:
        UsageError: It does.
    """
    pairs = [(w, "; ".join(old.interface[w]), "; ".join(new.interface[w])) for w in old.interface]
    if old.task and new.task:
        pairs.append(("the task", old.task, new.task))
    for what, before, now in pairs:
        if before != now:
            raise UsageError(
                f"{folder} is a baseline of another model: {old.name} has {what} {before}, and now "
                f"{now}"
            )


def compare_releases(
    config: Config, place: Path, new: Manifest, baseline: Path, old: Manifest, watch: Watch
) -> Iterator[Comparison]:
    """Measure every build that both releases have, in alternating blocks, and compare.

    Speed is worse where the whole 95 % interval is below 1 by more than 1 %; a metric where the
    interval of the difference, sample by sample, is below 0; a size above 2 %.

    Args:
        place: The new release.
        baseline: The old release.

    Raises:
        UsageError: The baseline is of another model.
        IrtoolsError: A build cannot be run.
    """
    before = {one.name: one for one in old.builds}
    after = {one.name: one for one in new.builds}
    for one in combinations(config):
        if one.name not in before:
            yield Comparison(one.name, "", "", "", "new", "not compared")
            continue
        check_same_model(before[one.name], after[one.name], baseline)
    for name in sorted(before.keys() - after.keys()):
        yield Comparison(name, "", "", "", "gone", "not compared")
    for one in combinations(config):
        if one.name not in before:
            continue
        pair = (before[one.name], after[one.name])
        if _bytes_of(old, one.name) == _bytes_of(new, one.name):
            yield Comparison(one.name, "", "", "", "the same bytes", "ok")
            continue
        watch.say(f"comparing {one.name} with {baseline}")
        yield _size(*pair)
        yield from _measured(one, pair, (baseline, place), watch)
        yield from _agreement(*pair)


def _bytes_of(manifest: Manifest, name: str) -> dict[str, str]:
    files = (file for file in manifest.files if file.startswith(f"{name}/"))
    return {
        file: manifest.files[file].sha256
        for file in files
        if file.rpartition("/")[2] not in MEASURED_FILES
    }


def _size(old: BuildRecord, new: BuildRecord) -> Comparison:
    before, after = old.scores.bytes, new.scores.bytes
    factor = after / max(before, 1)
    verdict: Verdict = "worse" if factor > _LARGER else "better" if factor < 1 / _LARGER else "ok"
    return Comparison(
        new.name,
        "size",
        size_text(before),
        size_text(after),
        f"{100 * (factor - 1):+.1f} %",
        verdict,
    )


def _agreement(old: BuildRecord, new: BuildRecord) -> Iterator[Comparison]:
    """Compare how often each gave the answer of its source, where no metric says more."""
    before, after = old.scores.agreement, new.scores.agreement
    if before is None or after is None or new.scores.metric is not None:
        return
    change = after - before
    verdict: Verdict = (
        "worse" if change < -_AGREEMENT else "better" if change > _AGREEMENT else "ok"
    )
    yield Comparison(
        new.name, "agreement", f"{before:.2%}", f"{after:.2%}", f"{change:+.2%}", verdict
    )


def _measured(
    one: Combination,
    pair: tuple[BuildRecord, BuildRecord],
    folders: tuple[Path, Path],
    watch: Watch,
) -> Iterator[Comparison]:
    target = find_target(one.target_text)
    foreign = why_not_timed(target)
    names = ("baseline", "new")
    contenders = {
        name: Contender(
            load_contender(str(folder / record.name / record.main), target), target_text(target)
        )
        for name, folder, record in zip(names, folders, pair, strict=True)
    }
    found = _contest(one, contenders, timed=not foreign, watch=watch)
    standing = dict(zip(names, found.standings, strict=True))
    if foreign:
        yield Comparison(one.name, "latency", "", "", f"not timed: {foreign}", "not compared")
    yield from _times(one.name, standing)
    yield from _quality(one.name, standing)


def _contest(
    one: Combination, contenders: Mapping[str, Contender], *, timed: bool, watch: Watch
) -> ContestResult:
    measuring = one.config.measuring
    bench = BenchSettings(measuring.batch[:1], measuring.sequence[:1], measuring.threads)
    evaluate, data, metric = one.evaluate, None, None
    if evaluate is not None:
        data = read_for_contenders(one.located(evaluate), contenders, reading_of(one))
        metric = choose_contest_metric(metric_of(one), next(iter(data.values())), contenders)
    settings = ContestSettings(
        bench if timed and measuring.bench != "none" else None,
        metric,
        seed=measuring.seed,
        threads=measuring.threads,
        sizes=dict(one.data_table.sizes),
    )
    return Contest(contenders, data, settings, watch.progress).run()


def _times(name: str, standing: Mapping[str, Standing]) -> Iterator[Comparison]:
    pairs = zip(standing["baseline"].latency, standing["new"].latency, strict=True)
    for before, after in pairs:
        ratio = after.speedup
        assert ratio is not None  # The new one is timed against the baseline.
        verdict: Verdict = "ok"
        if ratio.is_significant:
            verdict = "better" if ratio.value > 1 else "worse"
        yield Comparison(
            name,
            f"latency {after.shape}",
            f"{before.median_ms:.2f} ms",
            f"{after.median_ms:.2f} ms",
            f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]",
            verdict,
        )


def _quality(name: str, standing: Mapping[str, Standing]) -> Iterator[Comparison]:
    before, after = standing["baseline"].evaluation, standing["new"].evaluation
    gap = standing["new"].difference
    if before is None or after is None or gap is None:
        return
    verdict: Verdict = "ok"
    if gap.is_significant:
        verdict = "better" if (gap.value > 0) == after.larger_is_better else "worse"
    yield Comparison(
        name,
        after.name,
        f"{before.value:.4f}",
        f"{after.value:.4f}",
        f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]",
        verdict,
    )


def regressions(found: Sequence[Comparison]) -> str:
    """Return what got worse, in one line; empty where nothing did."""
    worse = [one for one in found if one.verdict == "worse"]
    if not worse:
        return ""
    first = worse[0]
    more = f", and {counted(len(worse) - 1, 'other figure')}" if len(worse) > 1 else ""
    return f"{first.build}: {first.figure} {first.baseline} -> {first.found} ({first.change}){more}"
