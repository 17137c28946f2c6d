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

__all__ = ["Head", "Pool", "Task", "Trained", "agrees", "confidence", "probabilities", "train"]

Task: TypeAlias = Literal["multi-class", "multi-label"]
Pool: TypeAlias = Literal["first", "mean"]

_PENALTIES = (1e-3, 1e-2, 1e-1)
_FOLDS = 5
_STEPS = 300
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
        return features @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class Trained:
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
        return 0.5 * (1 + np.tanh(0.5 * logits))
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def confidence(logits: np.ndarray, task: Task) -> np.ndarray:
    """Return [N]: probability of the likeliest class; of several labels that of the least sure."""
    p = probabilities(logits, task)
    return np.maximum(p, 1 - p).min(axis=-1) if task == "multi-label" else p.max(axis=-1)


def agrees(logits: np.ndarray, reference: np.ndarray, task: Task) -> np.ndarray:
    """Return bool [N]: the same class, or the same set of labels."""
    if task == "multi-label":
        return np.asarray(((logits > 0) == (reference > 0)).all(axis=-1))
    return np.asarray(logits.argmax(axis=-1) == reference.argmax(axis=-1))


def train(
    features: Mapping[Pool, np.ndarray], logits: np.ndarray, task: Task, seed: int
) -> Trained:
    """Fit heads on each kind of features and penalty, and keep the kind that does best unseen.

    Args:
        features: Pooling to float32 [N, H].
        logits: The model's own, float32 [N, C].
        task: Decides between one softmax and C sigmoids.
        seed: Of the folds.
    """
    targets = probabilities(logits, task)
    folds = np.random.default_rng(seed).permutation(len(logits)) % _FOLDS
    best: Trained | None = None
    for pool, x in features.items():
        for penalty in _PENALTIES:
            unseen = _cross_fit(x, targets, task, penalty, folds)
            loss = _cross_entropy(unseen, targets, task)
            if best is None or loss < best.loss:
                best = Trained(fit(x, targets, task, penalty), pool, unseen, loss)
    assert best is not None
    return best


def _cross_fit(
    x: np.ndarray, targets: np.ndarray, task: Task, penalty: float, folds: np.ndarray
) -> np.ndarray:
    unseen = np.empty_like(targets)
    for fold in range(_FOLDS):
        held = folds == fold
        unseen[held] = fit(x[~held], targets[~held], task, penalty).logits(x[held])
    return unseen


def fit(x: np.ndarray, targets: np.ndarray, task: Task, penalty: float) -> Head:
    """Minimize mean cross-entropy + penalty/2 ||W||^2 over standardized features.

    Nesterov's accelerated gradient with the step 1/L that the curvature allows: the loss is
    convex, so there is one answer and no learning rate to choose.

    Args:
        x: float32 [N, H].
        targets: Probabilities [N, C].
        task: Softmax or sigmoids.
        penalty: Weight of the L2 term.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
    z = np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], axis=1).astype(np.float32)
    w = _minimize(z, targets.astype(np.float32), task, penalty)
    weight = w[:-1] / spread[:, None]
    return Head(weight.astype(np.float32), (w[-1] - mean @ weight).astype(np.float32))


def _minimize(z: np.ndarray, targets: np.ndarray, task: Task, penalty: float) -> np.ndarray:
    count, width = z.shape
    decay = np.full((width, 1), penalty, np.float32)
    decay[-1] = 0  # The bias is free.
    gram = z @ z.T if count < width else z.T @ z
    step = np.float32(1 / (0.5 * float(np.linalg.norm(gram, 2)) / count + penalty))
    w = ahead = np.zeros((width, targets.shape[1]), np.float32)
    momentum = 1.0
    for _ in range(_STEPS):
        slope = z.T @ (probabilities(z @ ahead, task) - targets) / count + decay * ahead
        new = ahead - step * slope
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        if float((slope * (new - w)).sum()) > 0:
            following, ahead = 1.0, new  # Overshot: restart (O'Donoghue and Candes 2015).
        else:
            ahead = new + np.float32((momentum - 1) / following) * (new - w)
        w, momentum = new, following
        if float(np.abs(slope).max()) < _CONVERGED:
            break
    return w


def _cross_entropy(logits: np.ndarray, targets: np.ndarray, task: Task) -> float:
    p = np.clip(probabilities(logits, task), 1e-7, 1 - 1e-7)
    loss = targets * np.log(p)
    if task == "multi-label":
        loss = loss + (1 - targets) * np.log(1 - p)
    return -float(loss.sum(axis=-1).mean())
