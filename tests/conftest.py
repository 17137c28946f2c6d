"""What every room's tests share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

_EXTRAS = {"torch": ("torch", "transformers"), "openvino": ("openvino", "nncf")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests of an optional extra that is not installed."""
    missing = {
        extra
        for extra, packages in _EXTRAS.items()
        if any(find_spec(package) is None for package in packages)
    }
    for item in items:
        for extra in missing.intersection(mark.name for mark in item.iter_markers()):
            item.add_marker(pytest.mark.skip(reason=f"needs the extra `{extra}`"))
