"""The tests of an own target, with what `irtools.testing` gives.

pip install ./examples/custom_target
pytest examples/custom_target
"""

from __future__ import annotations

from reference_target import Reference

from irtools.targets import find_target
from irtools.testing import check_target


def test_contract() -> None:
    assert check_target(Reference()) == ("mlp", "convnet", "embedder", "branches")


def test_it_is_found_by_name() -> None:
    assert isinstance(find_target("reference"), Reference)
