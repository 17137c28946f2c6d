"""The commands of `irc` that preparations are made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def irc(*arguments: object, folder: Path | None = None) -> None:
    """Run `irc` in a process of its own; what it would run is printed first.

    Args:
        folder: Where it runs; modules there can be named as sources.
    """
    texts = [str(argument) for argument in arguments]
    print(f"irc {' '.join(texts)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "irtools.cli.main", *texts], check=True, cwd=folder)
