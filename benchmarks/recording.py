"""Where models, results and pages are, and what a stored result starts with."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irtools.measure.cpu import cpu_quota
from irtools.measure.machine import machine, versions

__all__ = [
    "DEFAULT_CACHE",
    "DOCS",
    "RESULTS",
    "ROOT",
    "about",
    "add_names",
    "add_write_option",
    "prepare",
    "read_result",
    "store",
    "stored_result",
    "with_stored",
    "write_result",
]

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_CACHE = ROOT / "build" / "models"
DOCS = ROOT / "docs"
RESULTS = DOCS / "results"


def about(name: str) -> dict[str, Any]:
    """Return the command, machine, versions and threads of a benchmark's result."""
    return {
        "command": f"python -m benchmarks run {name}",
        "machine": dataclasses.asdict(machine()),
        "versions": dict(versions()),
        "threads": cpu_quota(),
    }


def prepare(name: str, cache: Path) -> None:
    """Make a model or data of `python -m benchmarks prepare` where the cache lacks it."""
    from benchmarks.models import ARTEFACTS  # Needs the extra `torch`; reading results does not.

    ARTEFACTS[name](cache)


def write_result(path: Path, document: Mapping[str, Any]) -> None:
    """Write a result as JSON."""
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def add_names(parser: argparse.ArgumentParser, known: Iterable[str]) -> None:
    """Add the names of what is measured; all of them where none is given."""
    names = list(known)

    def one(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {text!r}; there are {', '.join(names)}")
        return text

    # Not `choices`: Python 3.11 holds the default, a list, against them.
    shown = f"default: {' '.join(names)}"
    parser.add_argument("names", nargs="*", type=one, default=names, metavar="NAME", help=shown)


def add_write_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add `--write [NAME]`, which stores what was found for the pages of docs/."""
    parser.add_argument(
        "--write",
        nargs="?",
        const=name,
        metavar="NAME",
        help=f"store the result in docs/results/, as NAME.json (default: {name})",
    )


def store(name: str | None, document: Mapping[str, Any]) -> None:
    """Write a result to docs/results/ where `--write` asked for it."""
    if name is not None:
        write_result(RESULTS / f"{name}.json", document)


def with_stored(
    name: str | None, rows: Sequence[Mapping[str, Any]], *keys: str
) -> list[Mapping[str, Any]]:
    """Return the rows of a result that is stored, those measured now in their places.

    Args:
        name: Of the result; None: nothing is stored.
        rows: What was measured now.
        keys: Fields by which a row is known.
    """
    stored = stored_result(name).get("rows", ())
    made = {tuple(row[key] for key in keys): row for row in (*stored, *rows)}
    return list(made.values())


def stored_result(name: str | None) -> Any:
    """Return the result that `--write` would replace; empty where there is none."""
    there = name is not None and (RESULTS / f"{name}.json").exists()
    return read_result(name) if name is not None and there else {}


def read_result(name: str) -> Any:
    """Return a stored result of docs/results/."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
