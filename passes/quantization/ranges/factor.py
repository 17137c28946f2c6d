"""The factor of second moments that GPTQ sweeps a weight with.

U = chol((H + 0.01 mean(diag H) I)^-1)^T        upper triangular

Moments of few rows show correlations that other data does not have, and codes chosen for them are
worse there than the nearest ones. So correlations are shrunk towards none, by as much as is best
for n rows of K normal channels ("oracle approximating shrinkage", Chen et al. 2010): for
correlations R

    rho = min(1, ((1 - 2/K) tr R^2 + K^2) / ((n + 1 - 2/K) (tr R^2 - K)))
"""

from __future__ import annotations

import numpy as np

__all__ = ["ordered_factor", "shrunk"]

_DAMPING = 0.01


def ordered_factor(hessian: np.ndarray, rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return input channels by falling E[x_k^2], and U in that order.

    Args:
        hessian: H, [K, K].
        rows: How many rows it is of; None: so many that nothing is shrunk.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    trusted = hessian if rows is None else shrunk(hessian, rows)
    return order, _factor(trusted[np.ix_(order, order)])


def shrunk(hessian: np.ndarray, rows: int) -> np.ndarray:
    """Return second moments [K, K] of so many rows with their correlations shrunk."""
    size = len(hessian)
    scale = np.sqrt(np.diag(hessian))
    outer = np.outer(scale, scale)
    correlation = np.divide(hessian, outer, out=np.eye(size), where=outer > 0)
    square = float(np.square(correlation).sum())
    apart = (rows + 1 - 2 / size) * (square - size)
    share = ((1 - 2 / size) * square + size**2) / apart if apart > 0 else 1.0
    found: np.ndarray = hessian * (1 - min(share, 1.0))
    np.fill_diagonal(found, np.diag(hessian))
    return found


def _factor(hessian: np.ndarray) -> np.ndarray:
    """Return U in float32; inputs that are always zero count as unit noise."""
    mean = float(np.diag(hessian).mean())
    damped = hessian + np.eye(len(hessian)) * (_DAMPING * mean or 1.0)
    inverse = np.linalg.inv(np.linalg.cholesky(damped))
    # (L L^T)^-1 = L^-T L^-1; its own Cholesky factor, turned, is U.
    return np.asarray(np.linalg.cholesky(inverse.T @ inverse).T, np.float32)
