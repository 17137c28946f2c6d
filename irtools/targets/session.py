"""What runners of all runtimes share: checked feeds, outputs by name, one way to be closed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from irtools.errors import DataError, UnsupportedError
from irtools.targets.base import KernelReport
from irtools.targets.signature import Feeds, InputSlot, check_feeds, wanted_outputs
from irtools.words import one_line

__all__ = ["SessionRunner"]


class SessionRunner(ABC):
    """A runner over what a runtime compiled.

    A runtime's own class opens its session, hands it over with the signature, and says in `infer`
    how it runs.

    Args:
        session: What the runtime compiled; freed by `close`.
        slots: Inputs, those that a caller may leave out not `required`.
        outputs: Names of the outputs, in the order of the model.
    """

    runtime: ClassVar[str]
    """What a message calls the runtime."""

    failures: ClassVar[tuple[type[Exception], ...]] = (RuntimeError,)
    """What the runtime raises about data that it cannot take."""

    def __init__(self, session: Any, slots: Sequence[InputSlot], outputs: Sequence[str]) -> None:
        self._session = session
        self._slots = tuple(slots)
        self._outputs = tuple(outputs)

    @property
    def session(self) -> Any:
        """What the runtime compiled.

        Raises:
            UnsupportedError: The runner is closed.
        """
        if self._session is None:
            raise UnsupportedError("this runner is closed; make a new one from the target")
        return self._session

    @property
    def slots(self) -> Sequence[InputSlot]:
        return self._slots

    @property
    def input_names(self) -> Sequence[str]:
        return tuple(slot.name for slot in self._slots if slot.required)

    @property
    def output_names(self) -> Sequence[str]:
        return self._outputs

    @abstractmethod
    def infer(self, feeds: Mapping[str, np.ndarray], wanted: Sequence[str]) -> Sequence[np.ndarray]:
        """Run once.

        Args:
            feeds: In the order of `slots`, contiguous, of the right types and shapes.
            wanted: Outputs to return, in this order; at least one.
        """

    def known(self, feeds: Feeds) -> Feeds:
        """Leave out feeds that the model takes and the compiled one does not; all are kept."""
        return feeds

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run once; see `irtools.targets.Runner.run`."""
        _ = self.session  # Closed is closed, whatever the feeds are.
        checked = check_feeds(self._slots, self.known(feeds))
        wanted = wanted_outputs(self._outputs, outputs)
        if not wanted:
            return {}
        try:
            results = self.infer(checked, wanted)
        except self.failures as error:
            raise DataError(
                f"{self.runtime} cannot run the model on this data: {self.describe(error)}"
            ) from error
        return dict(zip(wanted, results, strict=True))

    def describe(self, error: Exception) -> str:
        """Return a message of the runtime as one line."""
        return one_line(error)

    def kernels(self) -> KernelReport:
        """Return what the runtime reports of its kernels; here nothing."""
        return KernelReport()

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
