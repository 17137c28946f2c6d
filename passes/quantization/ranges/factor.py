"""The factor of second moments that GPTQ sweeps a weight with.

U = chol((H + 0.01 mean(diag H) I)^-1)^T        upper triangular
"""

from __future__ import annotations

import numpy as np

__all__ = ["ordered_factor"]

_DAMPING = 0.01


def ordered_factor(hessian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return input channels by falling E[x_k^2], and U in that order."""
    order = np.argsort(-np.diag(hessian), kind="stable")
    return order, _factor(hessian[np.ix_(order, order)])


def _factor(hessian: np.ndarray) -> np.ndarray:
    """Return U in float32; inputs that are always zero count as unit noise."""
    mean = float(np.diag(hessian).mean())
    damped = hessian + np.eye(len(hessian)) * (_DAMPING * mean or 1.0)
    inverse = np.linalg.inv(np.linalg.cholesky(damped))
    # (L L^T)^-1 = L^-T L^-1; its own Cholesky factor, turned, is U.
    return np.asarray(np.linalg.cholesky(inverse.T @ inverse).T, np.float32)
