"""Structured optimal brain surgeon: which inputs of a linear layer to drop, and what the rest does.

With inputs X [n, K], weight W [K, N] and H = X^T X / n (shrunk), dropping the rows S and moving the
others optimally costs  tr(W_S^T ([H^-1]_SS)^-1 W_S)  and moves the others by
-[H^-1]_:S ([H^-1]_SS)^-1 W_S  (ZipLM, Kurtic et al. 2023; Hassibi & Stork 1993). That is the
ridge least-squares refit on the survivors. A constant-1 column in X refits the bias as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from irtools.analysis.channels import IndexMap

__all__ = ["LayerProblem", "RemovalPath", "refit", "removal_path", "shrunk_moments"]

_LEAST_DAMPING = 1e-3
"""Share of the mean diagonal of H that is added to it: what is rank-deficient stays solvable."""


def shrunk_moments(moments: np.ndarray, count: int) -> np.ndarray:
    """Return second moments whose small eigenvalues can be trusted.

    Their covariance is shrunk towards its mean variance (oracle-approximating shrinkage, Chen et
    al. 2010): of few samples the small eigenvalues come out too small, and a solution that builds
    on them fits these samples only. On layers of MiniLM, half of the inputs removed, the error on
    other texts falls from 91 to 27 % with 200 positions, from 25 to 21 % with 1,000, and by a
    fiftieth with 3,600.

    Args:
        moments: X^T X / n with a constant column, float64 [K+1, K+1].
        count: n.
    """
    inputs, means = len(moments) - 1, moments[-1, :-1]
    covariance = moments[:-1, :-1] - np.outer(means, means)
    trace, squares = float(np.trace(covariance)), float(np.sum(np.square(covariance)))
    spread = (count + 1 - 2 / inputs) * (squares - trace**2 / inputs)
    share = ((1 - 2 / inputs) * squares + trace**2) / spread if spread > 0 else float(inputs > 1)
    share = min(max(share, 0.0), 1.0)
    power = float(np.mean(np.diag(moments)[:-1]))
    added = share * trace / inputs + _LEAST_DAMPING * (power if power > 0 else 1.0)
    shrunk = moments.copy()
    shrunk[:-1, :-1] -= share * covariance
    shrunk[np.arange(inputs), np.arange(inputs)] += added
    return shrunk


@dataclass(frozen=True)
class LayerProblem:
    """A linear layer and the second moments of its inputs.

    Attributes:
        gram: X^T X with a constant column, float64 [K+1, K+1]; shared with what collected it.
        count: Number of rows of X.
        weight: float64 [K+1, N]; the last row is what the layer's bias moves by, zero at first.
        has_bias: Whether the layer has a bias that can be refitted.
    """

    gram: np.ndarray
    count: int
    weight: np.ndarray
    has_bias: bool = True

    @classmethod
    def of(
        cls, gram: np.ndarray, count: int, weight: np.ndarray, *, has_bias: bool = True
    ) -> LayerProblem:
        """Make the problem of a layer with the weight [K, N]."""
        padded = np.vstack([weight.astype(np.float64), np.zeros((1, weight.shape[1]))])
        return cls(gram, count, padded, has_bias)

    @cached_property
    def powers(self) -> np.ndarray:
        """Mean square of each input, the diagonal of `hessian`: float64 [K]."""
        return np.diag(self.hessian())[:-1]

    @cached_property
    def inverse_diagonal(self) -> np.ndarray:
        """Diagonal of H^-1 without the constant: float64 [K]."""
        return np.diag(np.linalg.inv(self.hessian()))[:-1]

    @cached_property
    def energy(self) -> float:
        """Variance of the layer's output summed over N: the error of keeping but a bias."""
        moments = self.gram / max(self.count, 1)
        mean = moments[-1, :-1] @ self.weight[:-1]
        power = float(np.sum(self.weight * (moments @ self.weight)))
        return max(power - float(mean @ mean), float(np.finfo(float).tiny))

    def hessian(self) -> np.ndarray:
        """Return H: float64 [K+1, K+1]; the last row and column belong to the constant 1."""
        hessian = shrunk_moments(self.gram / max(self.count, 1), self.count)
        if not self.has_bias:
            hessian[-1, :-1] = hessian[:-1, -1] = 0.0
        return hessian


@dataclass(frozen=True)
class RemovalPath:
    """Units in the order in which they are removed, the least missed first.

    Attributes:
        order: int64 [units].
        errors: float64 [units + 1]; `errors[r]` is the relative squared error of the layer's
            output after r removals and the optimal refit.
    """

    order: np.ndarray
    errors: np.ndarray


def refit(problem: LayerProblem, rows: np.ndarray) -> np.ndarray:
    """Return the ridge least-squares weights of the surviving rows.

    Args:
        problem: The layer.
        rows: int64 [R], surviving inputs, without the constant.

    Returns:
        float64 [R + 1, N]; the last row is the change of the bias.
    """
    hessian = problem.hessian()
    kept = np.append(rows, len(hessian) - 1)
    return np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ problem.weight)


def removal_path(problem: LayerProblem, mapping: IndexMap, chunk: int = 1) -> RemovalPath:
    """Remove units greedily, the cheapest first, updating what remains after each step.

    Args:
        problem: The layer.
        mapping: Rows of each unit.
        chunk: Units removed per step; their error is exact, their choice greedy. Costs
            O(units / chunk * K^2 * rows per step).
    """
    state = _State(problem, mapping.matrix())
    order: list[int] = []
    errors = [0.0]
    while state.alive.size:
        scores = state.scores()
        picked = np.argsort(scores, kind="stable")[:chunk]
        total = errors[-1] + state.remove(picked) / problem.energy
        # Within a chunk the error is shared out by score, so that every level has a figure.
        shares = np.cumsum(scores[picked])
        shares = (
            shares / shares[-1] if shares[-1] > 0 else np.arange(1, len(picked) + 1) / len(picked)
        )
        errors.extend((errors[-1] + shares * (total - errors[-1])).tolist())
        order.extend(state.last_removed.tolist())
    return RemovalPath(np.asarray(order, dtype=np.int64), np.asarray(errors))


class _State:
    """Inverse Hessian and weights of the rows that are still alive."""

    def __init__(self, problem: LayerProblem, rows: np.ndarray) -> None:
        self.inverse = np.linalg.inv(problem.hessian())
        self.weight = problem.weight.copy()
        self.alive = np.arange(len(rows))
        self.rows = rows
        self.last_removed = self.alive[:0]

    def scores(self) -> np.ndarray:
        """Return the error of removing each living unit alone."""
        if self.rows.shape[1] == 1:
            flat = self.rows[:, 0]
            power = np.einsum("kn,kn->k", self.weight[flat], self.weight[flat])
            alone: np.ndarray = power / np.diag(self.inverse)[flat]
            return alone
        blocks = self.inverse[self.rows[:, :, None], self.rows[:, None, :]]
        weights = self.weight[self.rows]
        scores: np.ndarray = np.einsum("urn,urn->u", weights, np.linalg.solve(blocks, weights))
        return scores

    def remove(self, picked: np.ndarray) -> float:
        """Remove living units by their place, and return the error that it adds."""
        gone = self.rows[picked].reshape(-1)
        stay = np.delete(np.arange(len(self.inverse)), gone)
        block = self.inverse[np.ix_(gone, gone)]
        moved = np.linalg.solve(block, self.weight[gone])
        error = float(np.einsum("sn,sn->", self.weight[gone], moved))
        across = self.inverse[np.ix_(stay, gone)]
        self.weight = self.weight[stay] - across @ moved
        self.inverse = self.inverse[np.ix_(stay, stay)] - across @ np.linalg.solve(block, across.T)
        self.last_removed = self.alive[picked]
        self.alive = np.delete(self.alive, picked)
        place = np.full(len(stay) + len(gone), -1)
        place[stay] = np.arange(len(stay))
        self.rows = place[np.delete(self.rows, picked, axis=0)]
        return error
