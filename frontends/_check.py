"""Whether an exported model computes what torch computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from irtools.errors import ModelError
from irtools.model import Model
from irtools.target import Feeds, Runner, RunnerOptions, find_target

__all__ = ["PlainTrial", "Trial", "compare", "relative_l2"]

RELATIVE_TOLERANCE = 1e-4


class Trial(Protocol):
    """Inputs, and what torch made of them."""

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        """Run the exported model; yield output, where, and the relative L2 error of each."""


@dataclass(frozen=True)
class PlainTrial:
    """One run of the model.

    Attributes:
        feeds: Inputs.
        wanted: Outputs of torch.
        where: How large they are, in words.
    """

    feeds: Feeds
    wanted: Mapping[str, np.ndarray]
    where: str

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        found = runner.run(self.feeds)
        for name, reference in self.wanted.items():
            yield name, self.where, relative_l2(reference, found[name])


def compare(model: Model, trials: Sequence[Trial], what: str) -> None:
    """Run an exported model, without a runtime's own optimizations, against torch.

    Raises:
        ModelError: An output differs.
    """
    if not trials:
        return
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        for trial in trials:
            for name, where, error in trial.errors(runner):
                if not error <= RELATIVE_TOLERANCE:
                    raise ModelError(
                        f"the export of {what} is wrong: output {name!r} differs from torch by "
                        f"{error:.1e} (relative L2) at {where}; expected at most "
                        f"{RELATIVE_TOLERANCE:.0e}"
                    )


def relative_l2(reference: np.ndarray, found: np.ndarray) -> float:
    """Return ||found - reference|| / ||reference||; infinity where the shapes differ."""
    if reference.shape != found.shape:
        return float("inf")
    norm = float(np.linalg.norm(reference)) or 1.0
    return float(np.linalg.norm(found.astype(np.float64) - reference)) / norm
