"""Exit heads: linear classifiers on pooled hidden states of a frozen encoder.

A head is a logistic regression that imitates the whole model: its targets are the model's own
probabilities (Hinton et al. 2015, at temperature 1), so it needs no labels. What a head is worth
is judged on samples that it was not fitted on (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

__all__ = ["Head", "Pool", "Task", "TrainedHeads", "agrees", "confidence", "probabilities", "train"]

Task: TypeAlias = Literal["multi-class", "multi-label"]
Pool: TypeAlias = Literal["first", "mean"]

_PENALTIES = (1e-1, 1e-2, 1e-3)
_FOLDS = 4
_STEPS = 200
_CONVERGED = 1e-4


@dataclass(frozen=True, eq=False)
class Head:
    """logits = features @ weight + bias.

    Attributes:
        weight: float32 [H, C].
        bias: float32 [C].
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return [N, C] for features [N, H]."""
        return np.asarray(features @ self.weight + self.bias)


@dataclass(frozen=True, eq=False)
class TrainedHeads:
    """A head, and what heads fitted on the other samples say of each sample.

    Attributes:
        head: Fitted on all samples.
        pool: How a sample's hidden states become its features.
        unseen: float32 [N, C], logits of sample n from a head that was not fitted on it.
        loss: Mean cross-entropy of `unseen` against the model's probabilities.
    """

    head: Head
    pool: Pool
    unseen: np.ndarray
    loss: float


def probabilities(logits: np.ndarray, task: Task) -> np.ndarray:
    """Softmax over classes, or a sigmoid per label; [N, C]."""
    if task == "multi-label":
        return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def confidence(logits: np.ndarray, task: Task) -> np.ndarray:
    """Return [N]: probability of the likeliest class; of several labels that of the least sure."""
    p = probabilities(logits, task)
    sure = np.maximum(p, 1 - p).min(axis=-1) if task == "multi-label" else p.max(axis=-1)
    return np.asarray(sure)


def agrees(logits: np.ndarray, reference: np.ndarray, task: Task) -> np.ndarray:
    """Return bool [N]: the same class, or the same set of labels."""
    if task == "multi-label":
        return np.asarray(((logits > 0) == (reference > 0)).all(axis=-1))
    return np.asarray(logits.argmax(axis=-1) == reference.argmax(axis=-1))


def train(
    features: Mapping[Pool, np.ndarray], logits: np.ndarray, task: Task, seed: int
) -> TrainedHeads:
    """Fit heads on each kind of features and penalty, and keep the kind that does best unseen.

    Args:
        features: Pooling to float32 [N, H].
        logits: The model's own, float32 [N, C].
        task: Decides between one softmax and C sigmoids.
        seed: Of the folds.
    """
    targets = probabilities(logits, task).astype(np.float32)
    folds = np.random.default_rng(seed).permutation(len(logits)) % _FOLDS
    parts = [np.ones(len(folds), bool), *(folds != fold for fold in range(_FOLDS))]
    best: TrainedHeads | None = None
    for pool, x in features.items():
        z = _Standardized.of(x)
        # From one penalty to the next each part goes on from its own weights, which saves steps.
        weights = [np.zeros((z.rows.shape[1], targets.shape[1]), np.float32) for _ in parts]
        for penalty in _PENALTIES:
            for index, part in enumerate(parts):
                weights[index] = _minimize(
                    z.rows[part], targets[part], task, penalty, weights[index]
                )
            unseen = np.empty_like(targets)
            for part, w in zip(parts[1:], weights[1:], strict=True):
                unseen[~part] = z.rows[~part] @ w
            loss = _cross_entropy(unseen, targets, task)
            if best is None or loss < best.loss:
                best = TrainedHeads(z.head(weights[0]), pool, unseen, loss)
    assert best is not None
    return best


def fit(x: np.ndarray, targets: np.ndarray, task: Task, penalty: float) -> Head:
    """Minimize mean cross-entropy + penalty/2 ||W||^2 over standardized features.

    Args:
        x: float32 [N, H].
        targets: Probabilities [N, C].
        task: Softmax or sigmoids.
        penalty: Weight of the L2 term.
    """
    z = _Standardized.of(x)
    start = np.zeros((z.rows.shape[1], targets.shape[1]), np.float32)
    return z.head(_minimize(z.rows, targets.astype(np.float32), task, penalty, start))


@dataclass(frozen=True, eq=False)
class _Standardized:
    """Features with mean 0 and deviation 1, and a column of ones for the bias; float32 [N, H+1]."""

    rows: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> _Standardized:
        mean, spread = x.mean(axis=0), x.std(axis=0)
        spread = np.where(spread > 1e-6, spread, 1.0)
        rows = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], axis=1)
        return cls(rows.astype(np.float32), mean, spread)

    def head(self, w: np.ndarray) -> Head:
        """Return the head on plain features for weights [H+1, C] on standardized ones."""
        weight = w[:-1] / self.spread[:, None]
        bias = w[-1] - self.mean @ weight
        return Head(weight.astype(np.float32), bias.astype(np.float32))


def _minimize(
    z: np.ndarray, targets: np.ndarray, task: Task, penalty: float, start: np.ndarray
) -> np.ndarray:
    """Nesterov's accelerated gradient with the step 1/L that the curvature allows.

    The loss is convex, so there is one answer and no learning rate to choose.
    """
    count, width = z.shape
    decay = np.full((width, 1), penalty, np.float32)
    decay[-1] = 0  # The bias is free.
    gram = z @ z.T if count < width else z.T @ z
    step = np.float32(1 / (0.5 * _largest_eigenvalue(gram) / count + penalty))
    w = ahead = start
    momentum = 1.0
    for _ in range(_STEPS):
        slope = z.T @ (probabilities(z @ ahead, task) - targets) / count + decay * ahead
        if float(np.abs(slope).max()) < _CONVERGED:
            return ahead
        new = ahead - step * slope
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        if float((slope * (new - w)).sum()) > 0:
            following, ahead = 1.0, new  # Overshot: restart (O'Donoghue and Candes 2015).
        else:
            ahead = new + np.float32((momentum - 1) / following) * (new - w)
        w, momentum = new, following
    return w


def _largest_eigenvalue(gram: np.ndarray) -> float:
    """Power iteration, and 5 % more: it comes from below."""
    v = np.ones(len(gram), np.float32)
    for _ in range(30):
        v = gram @ v
        size = float(np.linalg.norm(v))
        if size == 0:
            return 1.0
        v /= size
    return 1.05 * size


def _cross_entropy(logits: np.ndarray, targets: np.ndarray, task: Task) -> float:
    p = np.clip(probabilities(logits, task), 1e-7, 1 - 1e-7)
    loss = targets * np.log(p)
    if task == "multi-label":
        loss = loss + (1 - targets) * np.log(1 - p)
    return -float(loss.sum(axis=-1).mean())
