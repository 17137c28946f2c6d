"""Decisions measured in a worker, which makes the same plan itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from irtools.driver.planning import planned
from irtools.driver.sensitivity import closeness_with, samples_for
from irtools.executors import unpacked
from irtools.files import scratch_folder
from irtools.metrics import Fidelity
from irtools.passmanager import Decision

__all__ = ["SensitivityService"]


class SensitivityService:
    """What each decision alone leaves of the outputs.

    Args:
        payload: The arguments of `planned`, with `model` and `calibration` as `packed` has them.
    """

    def __init__(self, payload: Mapping[str, Any]) -> None:
        self._stack = ExitStack()
        folder = self._stack.enter_context(scratch_folder("worker"))
        given = dict(payload)
        model = unpacked(given.pop("model"), folder / "model")
        calibration = unpacked(given.pop("calibration"), folder / "calibration")
        self._found = self._stack.enter_context(
            planned(model, given.pop("pipeline"), calibration=calibration, **given)
        )
        self._data = samples_for(self._found)

    def answer(self, decision: Decision) -> Fidelity:
        """Measure a decision."""
        return closeness_with(self._found, decision, self._data)

    def close(self) -> None:
        """Remove what it has on disk."""
        self._stack.close()
