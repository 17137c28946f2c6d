"""Packages installed for one test, that provide operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from irtools.operators import all_ops
from irtools.plugins import registry

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a package of one module whose `OPERATORS` is the expression given."""

    def make(expression: str, name: str = "acme") -> None:
        (tmp_path / f"{name}_ops.py").write_text(
            f"from irtools.operators import Kind, Op, Port\n\nOPERATORS = {expression}\n"
        )
        info = tmp_path / f"{name}_ops-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-ops\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[irtools.operators]\n{name} = {name}_ops:OPERATORS\n"
        )
        _forget()

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    registry.plugins.cache_clear()
    all_ops.cache_clear()
