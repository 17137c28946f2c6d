"""A folder with two small models and a report, and a client of the server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

    from irtools.ui.state import UiState

TOKEN, PORT = "a-token-of-tests", 8686
ORIGIN = f"http://127.0.0.1:{PORT}"
_TEXT = (
    '<ir_version: 10, opset_import: ["" : 20]> m (float[batch,8] x) => (float[batch,8] logits) '
    "{ a = Identity(x)  logits = Neg(a) }"
)
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from irtools import Pipeline, optimize

    folder = tmp_path_factory.mktemp("ui") / "runs"
    folder.mkdir()
    for name in ("model.onnx", f"{HOSTILE}.onnx"):
        ir.save(ir.from_onnx_text(_TEXT), folder / name)
    (folder / "classes.json").write_text('["a", "b", "c", "d", "e", "f", "g", "cat"]')
    np.savez(folder / "data.npz", x=np.eye(8, dtype=np.float32))
    found = optimize(folder / "model.onnx", Pipeline("cleanup"), bench=None, check=False)
    found.model.save(folder / "small.onnx")
    (folder / "small.report.json").write_text(found.report.to_json())
    (folder / "broken.report.json").write_text('{"format": "irtools-report", "version": 1}')
    (folder / "irc.toml").write_text("")
    (folder.parent / "secret.json").write_text('{"format": "irtools-bench"}')
    (folder / "link.json").symlink_to(folder.parent / "secret.json")
    return folder


@pytest.fixture(scope="session")
def state(models: Path) -> Iterator[UiState]:
    from irtools.files import RootFolder
    from irtools.ui.state import UiState

    found = UiState(RootFolder.of(models))
    yield found
    found.close()


@pytest.fixture
def stranger(state: UiState) -> TestClient:
    """A client without a token."""
    from fastapi.testclient import TestClient

    from irtools.ui.app import make_app
    from irtools.ui.guard import Access

    return TestClient(make_app(state, Access(TOKEN, PORT)), base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    """A browser that was given the token."""
    answer = stranger.post("/login", json={"token": TOKEN}, headers={"origin": ORIGIN})
    assert answer.status_code == 200
    stranger.headers["origin"] = ORIGIN
    return stranger


def events(answer: Any) -> list[tuple[str, str]]:
    """Return the events of a stream that has ended, with their data."""
    found = []
    for block in answer.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], fields["data"]))
    return found
