"""Running networks over data: outputs and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from irtools.data import Dataset
from irtools.errors import DataError
from irtools.measure.contest import paired_difference
from irtools.metrics import (
    Difference,
    Evaluation,
    evaluate_outputs,
    load_metric,
    resample_outputs,
    run_dataset,
)
from irtools.targets import Feeds, InputSlot, KernelReport, Runner

__all__ = ["NetworkRunner", "find_gain", "outputs_of", "score", "trained_outputs"]

_BATCH = 64


class NetworkRunner:
    """A torch network that runs like a compiled model. Its one output is `logits`."""

    def __init__(self, network: Any) -> None:
        self._network = network.eval()
        self.slots: Sequence[InputSlot] = ()
        self.input_names: Sequence[str] = ()
        self.output_names: Sequence[str] = ("logits",)

    def run(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run once, in float32."""
        device = next(self._network.parameters()).device
        inputs = {name: torch.from_numpy(array).to(device) for name, array in feeds.items()}
        with torch.inference_mode():
            logits = self._network(**inputs).logits
        return {"logits": logits.float().cpu().numpy()}

    def kernels(self) -> KernelReport:
        """Return nothing: torch does not tell."""
        return KernelReport()

    def close(self) -> None:
        """Nothing to free."""

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def outputs_of(network: Any, data: Dataset) -> np.ndarray:
    """Return the network's scores over the data, [N, C]."""
    return run_dataset(NetworkRunner(network), data, _BATCH)["logits"]


def trained_outputs(network: Any, data: Dataset, name: str) -> np.ndarray:
    """Return the scores of a network that was just trained, [N, C].

    Raises:
        DataError: Some are no finite numbers: the training broke the network.
    """
    scores = outputs_of(network, data)
    if not np.isfinite(scores).all():
        raise DataError(
            f"the {name} network gives NaN or infinity after its training; try a smaller learning "
            "rate, or fp32"
        )
    return scores


def score(logits: np.ndarray, data: Dataset, metric: str, seed: int) -> Evaluation:
    """Return the metric of scores [N, C] with its bootstrap interval.

    Raises:
        DataError: Labels that do not fit.
        UnknownNameError: No metric of that name.
    """
    return evaluate_outputs({"logits": logits}, data, load_metric(metric), seed)


def find_gain(
    better: np.ndarray, other: np.ndarray, data: Dataset, metric: str, seed: int
) -> Difference:
    """Return the paired difference of a metric between two networks.

    Args:
        better: Scores [N, C] of the one.
        other: Those of the network that is subtracted.
    """
    found = load_metric(metric)
    own, base = (resample_outputs(found, {"logits": x}, data, seed) for x in (better, other))
    return paired_difference(base, own)
