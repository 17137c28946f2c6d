"""How long `irc build` takes: at first, where nothing changed, and from the cache.

    python -m benchmarks run builds [--rounds N] [--write [NAME]]

Wall time of whole commands, start of Python included, the files in the system's cache. Passes are
`cleanup`, without checks and benchmark: what is timed is what a build takes besides them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compile_time import prepared
from benchmarks.recording import DEFAULT_CACHE, about, add_write_option, store

MODELS = ("efficientnet-lite0", "bert-base")
CONFIG = """
[models.model]
source = "{source}"
[pipelines]
clean = "cleanup"
[measuring]
bench = "none"
check = false
"""


def main(argv: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    add_write_option(parser, "builds")
    given = parser.parse_args(argv)
    rows = []
    for name in MODELS:
        rows.append({"model": name, **measured(prepared(name, given.cache), given.rounds)})
        print("\n".join(table({"rows": rows})), flush=True)
    store(given.write, {**about("builds"), "rounds": given.rounds, "rows": rows})


def measured(source: Path, rounds: int) -> dict[str, Any]:
    """Return the size of a model, and the seconds of every round in every state."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        text = CONFIG.format(source=source.resolve().as_posix())
        (place / "irc.toml").write_text(text, encoding="utf-8")
        found: dict[str, Any] = {"bytes": source.stat().st_size, "first": [_timed(place)]}
        found["unchanged"] = [_timed(place) for _ in range(rounds)]
        found["cached"] = []
        for _ in range(rounds):
            shutil.rmtree(place / "release")
            found["cached"].append(_timed(place))
        return found


def _timed(place: Path) -> float:
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache")}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "irtools.cli.main", "build"],
        cwd=place,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def table(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a Markdown table: medians."""
    yield "| model | MB | first build, s | nothing changed, s | from the cache, s |"
    yield "| --- " * 5 + "|"
    for row in document["rows"]:
        states = ("first", "unchanged", "cached")
        times = (f"{sorted(row[s])[len(row[s]) // 2]:.2f}" for s in states)
        yield f"| {row['model']} | {row['bytes'] / 1e6:.1f} | {' | '.join(times)} |"


VIEWS = {"table": table}
