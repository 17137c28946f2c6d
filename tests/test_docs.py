"""The generated pages say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", ["reference", "architecture"])
def test_page_is_up_to_date(page: str) -> None:
    script = ROOT / "docs" / f"make_{page}.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False, cwd=ROOT / "docs")
    assert done.returncode == 0, f"run `make docs` and commit docs/{page}.md"
