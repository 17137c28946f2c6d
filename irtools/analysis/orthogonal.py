"""Orthogonal matrices that spread each channel evenly over all others, and are fast to apply.

    Q = diag(signs) (A x B) / sqrt(D)          A, B Hadamard, x their Kronecker product

A Hadamard matrix has entries 1 and -1 and orthogonal columns. Sylvester's exist for powers of two,
Paley's for q + 1 and 2 (q + 1) with a prime q (3 and 1 modulo 4). A width without one is
2^k * m, and takes a random orthogonal matrix of m in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["Rotation", "hadamard"]


@dataclass(frozen=True)
class Rotation:
    """An orthogonal matrix Q.

    Attributes:
        width: D.
        seed: Of its signs.
        block: Channels that are mixed with each other, a power of two that divides D; 0: all.
        order: Permutation of the channels before that, so that alike ones are in a block; empty:
            as they are.
    """

    width: int
    seed: int = 0
    block: int = 0
    order: tuple[int, ...] = ()

    def turn(self, rows: np.ndarray) -> np.ndarray:
        """Return rows [.., D] times Q, in float64."""
        outer, inner = self._factors
        signed = (rows[..., list(self.order)] if self.order else rows) * self._signs
        x = signed.reshape(-1, self.width // (len(outer) * len(inner)), len(outer), len(inner))
        return np.asarray(np.matmul(outer.T, x @ inner)).reshape(rows.shape)

    @cached_property
    def matrix(self) -> np.ndarray:
        """Q, float64 [D, D]."""
        return self.turn(np.eye(self.width))

    @cached_property
    def _signs(self) -> np.ndarray:
        return np.random.default_rng([self.width, self.seed]).choice([-1.0, 1.0], self.width)

    @cached_property
    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Two orthogonal matrices, as near to each other in size as can be."""
        width = self.block or self.width
        order = next(_orders(width), None)
        if order is not None:
            powers, core = width // order, hadamard(order) / math.sqrt(order)
        else:
            powers = width & -width
            core = _random_orthogonal(width // powers, self.seed)
        split = 1
        while split * split * len(core) < width:
            split *= 2
        split = min(split, powers)
        outer, inner = _sylvester(powers // split), _sylvester(split)
        return outer / math.sqrt(len(outer)), np.kron(core, inner / math.sqrt(split))


def hadamard(order: int) -> np.ndarray:
    """Return a Hadamard matrix by Sylvester or Paley, of 1 and -1.

    Raises:
        ValueError: Neither has one of this order.
    """
    if order & (order - 1) == 0:
        return _sylvester(order)
    if order % 4 == 0 and _is_prime(order - 1):
        return _bordered(order - 1, skew=True) + np.eye(order)
    half = order // 2
    if order % 4 == 0 and _is_prime(half - 1) and (half - 1) % 4 == 1:
        core = _bordered(half - 1, skew=False)
        ones = np.array([[1.0, 1.0], [1.0, -1.0]])
        return np.kron(core, ones) + np.kron(np.eye(half), np.array([[1.0, -1.0], [-1.0, -1.0]]))
    raise ValueError(f"no Hadamard matrix of order {order} by Sylvester or Paley")


def _orders(width: int) -> Iterator[int]:
    """Yield the orders of Hadamard matrices that fill a width with a power of two."""
    order = width // (width & -width)
    while order <= width:
        if _has_hadamard(order):
            yield order
        order *= 2


def _has_hadamard(order: int) -> bool:
    if order & (order - 1) == 0:
        return True
    if order % 4:
        return False
    first, second = order - 1, order // 2 - 1
    return _is_prime(first) or (_is_prime(second) and second % 4 == 1)


def _sylvester(order: int) -> np.ndarray:
    found = np.ones((1, 1))
    while len(found) < order:
        found = np.block([[found, found], [found, -found]])
    return found


def _bordered(prime: int, *, skew: bool) -> np.ndarray:
    """Return Paley's conference matrix: quadratic residues with a border."""
    residues = {(i * i) % prime for i in range(1, prime)}
    row = [0.0, *(1.0 if i in residues else -1.0 for i in range(1, prime))]
    index = np.arange(prime)
    found = np.ones((prime + 1, prime + 1))
    found[0, 0] = 0
    found[1:, 0] = -1.0 if skew else 1.0
    found[1:, 1:] = np.asarray(row)[(index[None, :] - index[:, None]) % prime]
    return found


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % i for i in range(2, math.isqrt(number) + 1))


def _random_orthogonal(width: int, seed: int) -> np.ndarray:
    """Return an orthogonal matrix, uniform among all."""
    drawn = np.random.default_rng([width, seed, 1]).normal(size=(width, width))
    q, r = np.linalg.qr(drawn)
    return np.asarray(q * np.sign(np.diag(r)))
