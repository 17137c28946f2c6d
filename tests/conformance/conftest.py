"""The node tests of the onnx package, read once."""

from __future__ import annotations

import pytest

from .node_tests import MIN_CASES, Case, load_cases


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    found = list(load_cases())
    assert len(found) >= MIN_CASES
    return found
