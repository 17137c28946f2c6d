"""Whether an exported model computes what torch computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from irtools.errors import DataError, FileError, ModelError
from irtools.model import Model
from irtools.targets import Feeds, Runner, RunnerOptions, find_target

__all__ = ["PlainTrial", "SizeError", "Trial", "compare", "in_file", "relative_l2"]

RELATIVE_TOLERANCE = 1e-4

_IN_MEMORY_UP_TO = 1 << 28


class SizeError(ModelError):
    """An export holds for the sizes that it was made with only."""


class Trial(Protocol):
    """Inputs, and what torch made of them."""

    @property
    def where(self) -> str:
        """How large they are, in words."""

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        """Run the exported model; yield output, where, and the relative L2 error of each."""


@dataclass(frozen=True)
class PlainTrial:
    """One run of the model.

    Attributes:
        feeds: Inputs.
        wanted: Outputs of torch.
        where: How large they are, in words.
        hidden: By output, where it is ignored, bool of its shape: at padding.
    """

    feeds: Feeds
    wanted: Mapping[str, np.ndarray]
    where: str
    hidden: Mapping[str, np.ndarray] = field(default_factory=dict)

    def errors(self, runner: Runner) -> Iterator[tuple[str, str, float]]:
        found = runner.run(self.feeds)
        for name in self.wanted:
            yield name, self.where, self.error(name, found[name])

    def error(self, name: str, found: np.ndarray) -> float:
        """Return the relative L2 error of an output, what is ignored left out."""
        reference, hidden = self.wanted[name], self.hidden.get(name)
        if hidden is None or found.shape != reference.shape:
            return relative_l2(reference, found)
        return relative_l2(reference[~hidden], found[~hidden])


def in_file(model: Model, folder: Path) -> Model:
    """Return a large model with its weights mapped from a file in `folder`, a small one as it is.

    The weights of an export are views of torch's, transposed. Who runs them copies them, and
    torch's own stay in memory as long as the views; mapped, they take what is being read. The file
    may be removed: the mapping holds it until the model is gone. `model` is used up.
    """
    if model.weight_bytes <= _IN_MEMORY_UP_TO:
        return model
    try:
        model.save(folder / "model.onnx", external_data=True)
    except FileError as error:
        raise FileError(
            f"the temporary folder {folder} cannot take {model.weight_bytes / 1e9:.1f} GB of "
            f"weights, choose another place with --work-dir DIR or TMPDIR: {error}"
        ) from error
    for value in model.ir.graph.initializers.values():
        value.const_value = None  # torch's exporter keeps its graphs; the weights can go.
    found = Model.load(folder / "model.onnx")
    found.source, found.companions, found.notes = model.source, model.companions, model.notes
    return found


def compare(model: Model, trials: Sequence[Trial], what: str) -> None:
    """Run an exported model, without a runtime's own optimizations, against torch.

    Raises:
        ModelError: An output differs, or is not a number, or the export does not run.
    """
    if not trials:
        return
    with find_target("ort-cpu").runner(model, RunnerOptions(exact=True)) as runner:
        for trial in trials:
            try:
                for name, where, error in trial.errors(runner):
                    _judge(what, name, where, error)
            except DataError as error:
                # The data are ours, and torch took them.
                raise SizeError(
                    f"the export of {what} is wrong: it does not run at {trial.where}, as torch "
                    f"does: {error}"
                ) from error


def _judge(what: str, name: str, where: str, error: float) -> None:
    if math.isnan(error):
        raise ModelError(
            f"the export of {what} cannot be checked: output {name!r} is NaN or infinite at "
            f"{where}; are the weights damaged?"
        )
    if math.isinf(error):
        raise SizeError(
            f"the export of {what} is wrong: output {name!r} has another shape than torch's at "
            f"{where}"
        )
    if not error <= RELATIVE_TOLERANCE:
        raise ModelError(
            f"the export of {what} is wrong: output {name!r} differs from torch by {error:.1e} "
            f"(relative L2) at {where}; expected at most {RELATIVE_TOLERANCE:.0e}"
        )


def relative_l2(reference: np.ndarray, found: np.ndarray) -> float:
    """Return ||found - reference|| / ||reference||; infinity where the shapes differ."""
    if reference.shape != found.shape:
        return float("inf")
    norm = float(np.linalg.norm(reference)) or 1.0
    return float(np.linalg.norm(found.astype(np.float64) - reference)) / norm
