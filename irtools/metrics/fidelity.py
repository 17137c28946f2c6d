"""How far a model is from the one it was made from.

Several outputs are compared one by one, and each figure reported is that of the worst output:
smallest SQNR, cosine and agreement, largest error and KL. So a good logit cannot hide a broken
hidden state.

Indices, counts and flags next to an output in numbers count by their agreement alone: the distance
from box 3 to box 97 measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from irtools.errors import DataError
from irtools.metrics.base import Fidelity
from irtools.metrics.outputs import is_float

__all__ = ["FidelityMeter", "fidelity"]

Outputs = Mapping[str, np.ndarray]

_PIECE = 1 << 22
# A softmax over these would mean nothing.
_NOT_LOGITS = ("hidden", "embed", "pool", "present", "past", "feature", "attention")


def fidelity(
    reference: Outputs,
    outputs: Outputs,
    mask: np.ndarray | None = None,
    *,
    several_labels: bool = False,
) -> Fidelity:
    """Compare outputs over a whole dataset.

    Args:
        reference: Output name to array of the unoptimized model, samples along axis 0.
        outputs: The same of the optimized model.
        mask: `attention_mask` [N, S]; positions where it is 0 are left out of outputs [N, S, ...].
        several_labels: As in `FidelityMeter`.

    Raises:
        DataError: An output that is missing or has another shape.
    """
    meter = FidelityMeter(several_labels=several_labels)
    meter.update(reference, outputs, mask)
    return meter.result()


class FidelityMeter:
    """Compares outputs batch by batch; keeps sums only.

    Args:
        several_labels: Logits [N, L] say yes or no to each label by themselves: two rows agree
            where they give the same set of labels, and each label is a distribution of its own.
        sized_by_data: Outputs whose sizes depend on the data. They may differ, and then count as
            that; give such samples one by one.
        ranked: Outputs [..., K, D] that list what is largest first. Their rows are compared with
            the nearest ones of the other side, from both sides (the Chamfer distance), since
            rounding changes their order; they are no logits.
    """

    def __init__(
        self,
        *,
        several_labels: bool = False,
        sized_by_data: Collection[str] = (),
        ranked: Collection[str] = (),
    ) -> None:
        self._several = several_labels
        self._ranked = frozenset(ranked)
        self._sized = frozenset(sized_by_data)
        self._unequal = 0
        self._sums: dict[str, _Sums] = {}
        self._samples = 0

    def update(
        self,
        reference: Outputs,
        outputs: Outputs,
        mask: np.ndarray | None = None,
        samples: int | None = None,
    ) -> None:
        """Add a batch; arguments as in `fidelity`.

        Args:
            samples: How many samples it holds, where axis 0 does not show it.
        """
        if samples is None:
            samples = max((len(a) for a in reference.values() if a.ndim), default=0)
        unequal = False
        for name, expected in reference.items():
            if name not in outputs:
                raise DataError(f"output '{name}' is missing; found {', '.join(outputs)}")
            found = outputs[name]
            if expected.shape != found.shape:
                if name in self._sized:
                    unequal = True
                    continue
                raise DataError(
                    f"output '{name}' has shape {list(found.shape)}, "
                    f"the original has {list(expected.shape)}"
                )
            if expected.dtype.kind not in "OSU" and expected.size:
                sums = self._sums.setdefault(
                    name, _Sums(self._several and expected.ndim == 2, _is_discrete(expected))
                )
                if name in self._ranked:
                    sums.add_rows_in_any_order(expected, found)
                else:
                    sums.add(name, expected, found, mask)
        self._samples += samples
        self._unequal += samples if unequal else 0

    def result(self) -> Fidelity:
        """Return the figures of the worst output.

        Raises:
            DataError: There was nothing to compare.
        """
        each = [sums.result(self._samples) for sums in self._sums.values()]
        if not each and self._sized and self._samples:
            nan = float("nan")  # Every output had another size, or none had a number.
            share = self._same_shape()
            return Fidelity(nan, nan, nan, nan, None, None, self._samples, same_shape=share)
        if not each:
            raise DataError("no numeric outputs to compare")
        numbers = [
            figure
            for figure, sums in zip(each, self._sums.values(), strict=True)
            if not sums.discrete
        ] or each
        return Fidelity(
            sqnr_db=min(figure.sqnr_db for figure in numbers),
            relative_l2=max(figure.relative_l2 for figure in numbers),
            max_abs=max(figure.max_abs for figure in numbers),
            cosine=min(figure.cosine for figure in numbers),
            kl=max(_present(figure.kl for figure in each), default=None),
            agreement=min(_present(figure.agreement for figure in each), default=None),
            samples=self._samples,
            nonfinite=sum(figure.nonfinite for figure in each),
            same_shape=self._same_shape(),
        )

    def _same_shape(self) -> float | None:
        return 1 - self._unequal / self._samples if self._sized and self._samples else None

    def by_output(self) -> dict[str, Fidelity]:
        """Return the figures of each output."""
        return {name: sums.result(self._samples) for name, sums in self._sums.items()}


def _present(figures: Iterable[float | None]) -> list[float]:
    return [figure for figure in figures if figure is not None]


@dataclass
class _Sums:
    """Running sums of one output. `signal` and `noise` are sums of squares."""

    several: bool = False
    discrete: bool = False
    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    nonfinite: int = 0
    cosines: list[float] = field(default_factory=lambda: [0.0, 0.0])
    kl: list[float] = field(default_factory=lambda: [0.0, 0.0])
    agreement: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def add(
        self, name: str, expected: np.ndarray, found: np.ndarray, mask: np.ndarray | None
    ) -> None:
        keep = _keep(expected, mask)
        self._add_numbers(expected, found, keep)
        if not is_float(expected):
            same = (expected == found)[keep] if keep is not None else expected == found
            _accumulate(self.agreement, same)
        elif _is_logits(name, expected):
            for piece in _pieces(expected.shape):
                part = None if keep is None else keep[piece]
                self._add_rows(expected[piece], found[piece], part)

    def add_rows_in_any_order(self, expected: np.ndarray, found: np.ndarray) -> None:
        """Add rows [..., K, D], each with the nearest one of the other side."""
        shape = (-1, *expected.shape[-2:])
        for one, other in zip(expected.reshape(shape), found.reshape(shape), strict=True):
            scales = _column_scales(one)
            self._add_numbers(one[None], _nearest(one, other, scales)[None], None)
            self._add_numbers(_nearest(other, one, scales)[None], other[None], None)

    def _add_numbers(
        self, expected: np.ndarray, found: np.ndarray, keep: np.ndarray | None
    ) -> None:
        # Squares of both sides and their product, per sample.
        products = np.zeros((3, len(expected) if expected.ndim else 1))
        for piece in _pieces(expected.shape):
            part = None if keep is None else keep[piece]
            rows = piece[0] if piece else slice(None)
            products[:, rows] += self._add_piece(expected[piece], found[piece], part)
        _accumulate(self.cosines, _cosines(*products))

    def _add_piece(
        self, expected: np.ndarray, found: np.ndarray, keep: np.ndarray | None
    ) -> np.ndarray:
        """Add some samples, or some positions of them; return their products, [3, samples]."""
        y, other = expected.astype(np.float64), found.astype(np.float64)
        if keep is not None:
            # Zeros on both sides add nothing to any of the sums.
            hole = ~keep.reshape(keep.shape + (1,) * (y.ndim - keep.ndim))
            y, other = np.where(hole, 0.0, y), np.where(hole, 0.0, other)
        y, other, bad = _clear_nonfinite(y, other)
        self.nonfinite += bad
        difference = y - other
        self.signal += float(np.vdot(y, y))
        self.noise += float(np.vdot(difference, difference))
        self.max_abs = max(self.max_abs, float(np.abs(difference).max(initial=0.0)))
        a, b = (x.reshape(len(x) if x.ndim else 1, -1) for x in (y, other))
        return np.stack([np.einsum("nk,nk->n", *pair) for pair in ((a, a), (b, b), (a, b))])

    def _add_rows(self, expected: np.ndarray, found: np.ndarray, keep: np.ndarray | None) -> None:
        y, other = expected.astype(np.float64), found.astype(np.float64)
        if keep is not None:
            y, other = y[keep], other[keep]
        finite = np.isfinite(y).all(axis=-1) & np.isfinite(other).all(axis=-1)
        y, other = y[finite], other[finite]
        kl, same = _compare_labels(y, other) if self.several else _compare_classes(y, other)
        _accumulate(self.kl, kl)
        _accumulate(self.agreement, same)
        # A row with NaN on either side agrees with nothing.
        self.agreement[1] += int(finite.size - np.count_nonzero(finite))

    def result(self, samples: int) -> Fidelity:
        return Fidelity(
            sqnr_db=_sqnr(self.signal, self.noise),
            relative_l2=_ratio(self.noise, self.signal) ** 0.5,
            max_abs=self.max_abs,
            cosine=_mean(self.cosines, 1.0) or 0.0,
            kl=_mean(self.kl),
            agreement=_mean(self.agreement),
            samples=samples,
            nonfinite=self.nonfinite,
        )


def _keep(expected: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
    if mask is None or mask.ndim != 2 or expected.shape[:2] != mask.shape or expected.ndim < 3:
        return None
    return np.asarray(mask, dtype=bool)


def _column_scales(rows: np.ndarray) -> np.ndarray:
    """Return by how much the numbers of a column differ: pixels far more than scores, [D]."""
    found = np.nan_to_num(rows.astype(np.float64)).std(axis=0)
    return np.where(found > 0, found, 1.0)


def _nearest(rows: np.ndarray, others: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return for each row [K, D] the nearest one of `others` [K, D]."""
    a, b = (np.nan_to_num(x.astype(np.float64)) / scales for x in (rows, others))
    squares = np.einsum("kd,kd->k", b, b)
    height = max(1, _PIECE // max(1, len(b)))
    places = [
        (squares - 2 * a[top : top + height] @ b.T).argmin(axis=1)
        for top in range(0, len(a), height)
    ]
    return np.asarray(others[np.concatenate(places)])


def _is_discrete(array: np.ndarray) -> bool:
    """Whether numbers are indices, counts or flags; bytes may be pictures."""
    return array.dtype.kind == "b" or (array.dtype.kind in "iu" and array.dtype.itemsize > 1)


def _is_logits(name: str, array: np.ndarray) -> bool:
    lower = name.lower()
    return (
        array.ndim in (2, 3)
        and array.shape[-1] >= 2
        and ("logit" in lower or not any(part in lower for part in _NOT_LOGITS))
    )


def _clear_nonfinite(y: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Zero what is not finite on either side; count positions where the two differ in that."""
    odd = ~(np.isfinite(y) & np.isfinite(other))
    if not odd.any():
        return y, other, 0
    same = (y == other) | (np.isnan(y) & np.isnan(other))
    return np.where(odd, 0.0, y), np.where(odd, 0.0, other), int(np.count_nonzero(odd & ~same))


def _pieces(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Cut an array along its first two axes, so that a piece in float64 takes some 30 MB.

    The logits of one text in a vocabulary of 128,000 tokens take gigabytes.
    """
    rows, columns = [*shape[:2], 1, 1][:2]
    rest = math.prod(shape[2:])
    width = max(1, _PIECE // max(1, rest))
    height = max(1, width // max(1, columns))
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            yield (slice(top, top + height), slice(left, left + width))[: len(shape)]


def _cosines(squares: np.ndarray, others: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Return the cosine per sample; 1 for two zero vectors, 0 where only one is zero."""
    norms = np.sqrt(squares) * np.sqrt(others)
    both_zero = (squares == 0) & (others == 0)
    return np.where(
        norms > 0, products / np.where(norms > 0, norms, 1.0), both_zero.astype(np.float64)
    )


def _compare_classes(y: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return KL(softmax y || softmax other) and whether the largest logit is the same; [...]."""
    log_p, log_q = _log_softmax(y), _log_softmax(other)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return kl, y.argmax(axis=-1) == other.argmax(axis=-1)


def _compare_labels(y: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the KL of the labels' own distributions, summed, and whether all agree; [N]."""
    kl = np.zeros(len(y))
    for sign in (1, -1):
        log_p, log_q = -np.logaddexp(0, -sign * y), -np.logaddexp(0, -sign * other)
        kl += (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return kl, ((y > 0) == (other > 0)).all(axis=-1)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _accumulate(sums: list[float], figures: np.ndarray) -> None:
    sums[0] += float(figures.sum())
    sums[1] += figures.size


def _mean(sums: list[float], default: float | None = None) -> float | None:
    return sums[0] / sums[1] if sums[1] else default


def _ratio(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole else float("inf")


def _sqnr(signal: float, noise: float) -> float:
    """10 log10 of the ratio of energies, in dB."""
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")
