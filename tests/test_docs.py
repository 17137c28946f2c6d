"""The reference page says what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_reference_is_up_to_date() -> None:
    script = ROOT / "docs" / "make_reference.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, cwd=ROOT / "docs")
    assert done.returncode == 0, "run `make docs` and commit docs/reference.md"
