"""Noise as a share: how much of what the outputs lose a cause explains.

Noise is relative to the signal, N = 10^(-SQNR / 10). Independent sources add up, so a layer after
which it is N' and before which it was N has added (N' - N) / N' of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from irtools.causes.facts import Facts

if TYPE_CHECKING:
    from irtools.measure.divergence import TensorFidelity

__all__ = ["added", "comparable", "falls", "noise_of", "noise_of_outputs", "share_of_outputs"]

_EQUAL_DB = 150.0
_RESTORED_DB = 10.0


def noise_of(sqnr_db: float) -> float:
    """Return the noise relative to the signal; NaN counts as all noise."""
    return 1.0 if math.isnan(sqnr_db) else 10.0 ** (-min(sqnr_db, _EQUAL_DB) / 10.0)


def noise_of_outputs(facts: Facts) -> float | None:
    """Return the noise of the worst output; None where outputs were not compared."""
    if facts.comparison is None or not facts.comparison.outputs:
        return None
    return max(noise_of(one.sqnr_db) for one in facts.comparison.outputs.values())


def share_of_outputs(facts: Facts, noise: float) -> float:
    """Return what noise inside the model is of that of its outputs, at most all of it.

    It takes noise to pass on as it is; normalizations and residuals make that true within a few dB.
    """
    outputs = noise_of_outputs(facts)
    return min(1.0, noise / outputs) if outputs else min(1.0, noise)


def added(before_db: float, after_db: float) -> float:
    """Return the share of the noise after a layer that the layer has added."""
    before, after = noise_of(before_db), noise_of(after_db)
    return max(0.0, (after - before) / after)


def falls(facts: Facts) -> Iterator[tuple[TensorFidelity, float, float]]:
    """Yield tensors with the SQNR before them and the share of the outputs' noise that they add.

    What is before a tensor is the worst of what its node reads.
    """
    if facts.comparison is None:
        return
    outputs = noise_of_outputs(facts) or 1.0
    tensors = {tensor.name: tensor for tensor in facts.comparison.layers}
    levels = _levels(facts)
    for node in facts.first.model.ir.graph:
        read = (value.name for value in node.inputs if value is not None and value.name)
        before = min((levels.get(name, _EQUAL_DB) for name in read), default=_EQUAL_DB)
        for value in node.outputs:
            tensor, own = tensors.get(value.name or ""), levels.get(value.name or "", _EQUAL_DB)
            # A tensor in another scale has the level of what is before it.
            if tensor is not None and own < before:
                more = noise_of(own) - noise_of(before)
                yield tensor, before, min(1.0, more / outputs) * added(before, own)


def _levels(facts: Facts) -> dict[str, float]:
    """Return the SQNR of every value of the first model, of others that of their inputs."""
    own = comparable(facts)
    levels: dict[str, float] = {}
    for node in facts.first.model.ir.graph:
        read = (value.name for value in node.inputs if value is not None and value.name)
        before = min((levels.get(name, _EQUAL_DB) for name in read), default=_EQUAL_DB)
        for value in node.outputs:
            levels[value.name or ""] = min(own.get(value.name or "", before), _EQUAL_DB)
    return levels


def comparable(facts: Facts) -> dict[str, float]:
    """Return the SQNR in dB of the values that hold the same in both models.

    A tensor that is right again in all that is made of it is in another scale in the second model.
    """
    if facts.comparison is None:
        return {}
    own = {tensor.name: tensor.fidelity.sqnr_db for tensor in facts.comparison.layers}
    own |= {name: figure.sqnr_db for name, figure in facts.comparison.outputs.items()}
    nodes = list(facts.first.model.ir.graph)
    worst_after: dict[str, float] = {}
    for node in reversed(nodes):
        for value in node.outputs:
            name = value.name or ""
            readers = [out.name or "" for use in value.uses() for out in use.node.outputs]
            after = [
                level
                for one in readers
                if (level := own.get(one, worst_after.get(one))) is not None
            ]
            if not after:
                continue
            worst_after[name] = min(after)
            if name in own and worst_after[name] > own[name] + _RESTORED_DB:
                del own[name]
    return own
