"""The terms of a student's loss, each a pure function of tensors.

N samples, S tokens, C classes, L labels, H hidden width, A heads, d = H / A. A mask [N, S] is 1
on tokens and 0 on padding; padding is left out. Every term is a mean over samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from irtools.students import Task

__all__ = [
    "attention_loss",
    "attention_scores",
    "cosine_loss",
    "hard_loss",
    "hidden_loss",
    "relation_loss",
    "soft_loss",
]


def soft_loss(student: Tensor, teacher: Tensor, temperature: float, task: Task) -> Tensor:
    """Return the loss against the teacher's outputs (Hinton, Vinyals, Dean 2015).

    T^2 KL(softmax(t / T) || softmax(s / T)) for classes; for several labels per sample T^2 times
    the cross entropy of sigmoid(s / T) against sigmoid(t / T), mean over labels; squared error
    for regression, which has no temperature. Gradients shrink with 1 / T^2, which T^2 undoes.

    Args:
        student: [N, C].
        teacher: [N, C].
    """
    square = temperature * temperature
    if task == "regression":
        return functional.mse_loss(student, teacher)
    if task == "multi-label":
        wanted = torch.sigmoid(teacher / temperature)
        return square * functional.binary_cross_entropy_with_logits(student / temperature, wanted)
    return square * functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def hard_loss(student: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return the loss against the labels: cross entropy, its binary form, or squared error.

    Args:
        student: [N, C]; [N, S, C] of a language model.
        labels: [N] classes, [N, L] of 0/1, or [N] or [N, C] targets; of a language model the
            tokens, [N, S or more], -100 where none is to be guessed.
    """
    if task == "language-model":
        # Padding at the end is cut off the inputs, and not off the labels.
        following = labels[:, 1 : student.shape[1]]
        return functional.cross_entropy(student[:, :-1].flatten(0, 1), following.flatten())
    if task == "multi-class":
        return functional.cross_entropy(student, labels)
    if task == "multi-label":
        return functional.binary_cross_entropy_with_logits(student, labels.to(student.dtype))
    return functional.mse_loss(student, labels.to(student.dtype).reshape(student.shape))


def cosine_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of 1 - cos over tokens (Sanh 2019).

    Args:
        student: [N, S, H].
        teacher: [N, S, H].
    """
    return _mean(1 - functional.cosine_similarity(student, teacher, dim=-1), mask)


def hidden_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of hidden states, mean over tokens and width (Jiao 2020).

    Args:
        student: [N, S, H], projected to the teacher's width.
        teacher: [N, S, H].
    """
    return _mean((student - teacher).square().mean(dim=-1), mask)


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:
    """Return Q K^T / sqrt(d), before any mask: [N, A, S, S].

    Args:
        query: [N, S, H].
        key: [N, S, H].
    """
    q, k = _split(query, heads), _split(key, heads)
    return q @ k.transpose(-1, -2) / float(q.shape[-1]) ** 0.5


def attention_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Return the squared error of attention scores, mean over heads and pairs of tokens.

    Args:
        student: [N, A, S, S].
        teacher: [N, A, S, S], as many heads.
    """
    pairs = mask[:, :, None] * mask[:, None, :]
    return _mean((student - teacher).square().mean(dim=1), pairs)


def relation_loss(student: Tensor, teacher: Tensor, mask: Tensor, heads: int) -> Tensor:
    """Return KL(R_t || R_s), R = softmax(X X^T / sqrt(d)) per relation head (Wang 2021).

    X is the queries, the keys or the values of a layer; its width may differ between the two, for
    both are cut into as many relation heads. Mean over heads and tokens.

    Args:
        student: [N, S, Hs].
        teacher: [N, S, Ht].
        heads: Divides both widths.
    """
    closed = (mask == 0)[:, None, None, :]
    own, other = (
        functional.log_softmax(
            attention_scores(x, x, heads).float().masked_fill(closed, -1e9), dim=-1
        )
        for x in (student, teacher)
    )
    divergence = (other.exp() * (other - own)).sum(dim=-1)
    return _mean(divergence.mean(dim=1), mask)


def _split(x: Tensor, heads: int) -> Tensor:
    samples, tokens, width = x.shape
    return x.reshape(samples, tokens, heads, width // heads).transpose(1, 2)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where the mask is 1; both of one shape."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum()
