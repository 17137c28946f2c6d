"""Where models, results and pages lie, and what stands at the head of a stored result."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
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
    "prepare",
    "read_result",
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


def read_result(name: str) -> Any:
    """Return a stored result of docs/results/."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
