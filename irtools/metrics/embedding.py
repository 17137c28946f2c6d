"""Metrics of embeddings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irtools.errors import DataError
from irtools.metrics.outputs import find_output
from irtools.metrics.per_sample import PerSampleMetric

__all__ = ["CosineSimilarity"]


class CosineSimilarity(PerSampleMetric):
    """Mean cosine between the embedding of each sample and the one it should have.

    The labels are the wanted embeddings, for instance those of a teacher.
    """

    name: str = "cosine"

    def per_sample(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        """Return the cosines [N, 1]; 0 where either vector is zero."""
        found = find_output(outputs, ("embed", "pool", "last_hidden_state"))
        if found.shape != labels.shape:
            raise DataError(
                f"cosine needs labels of the output's shape {list(found.shape)}, found "
                f"{list(labels.shape)}"
            )
        x, y = (a.reshape(len(a), -1).astype(np.float64) for a in (found, labels))
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
        cosines = np.einsum("nk,nk->n", x, y) / np.where(norms > 0, norms, 1.0)
        return np.asarray(cosines[:, None])

    def finish(self, rows: np.ndarray) -> float:
        """Return the mean cosine."""
        return float(rows.mean()) if len(rows) else float("nan")
