"""Which form each weight takes, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias

from irtools.model import release_tensor
from irtools.passes.quantization.forms.blocks import BlockTable
from irtools.passes.quantization.forms.rows import RowTable
from irtools.passes.quantization.forms.weights import WeightForm
from irtools.passes.quantization.ranges.blocks import is_finite
from irtools.passes.quantization.ranges.evidence import Evidence
from irtools.passes.quantization.sites.find import Sites
from irtools.passes.quantization.sites.names import names_of, selects
from irtools.passes.quantization.sites.reasons import (
    EMBEDDING,
    EXCLUDED,
    NONFINITE,
    OPERATOR,
    SHARED,
    SMALL,
    Reason,
    Skips,
)
from irtools.passes.quantization.sites.uses import Weight
from irtools.passmanager import Decision
from irtools.targets import Capabilities

__all__ = ["REASONS", "Chosen", "EmbeddingBits", "Limits", "choose", "decide", "is_large"]

Chosen: TypeAlias = tuple[Weight, WeightForm]
EmbeddingBits: TypeAlias = Literal["8", "4", "none"]

REASONS = (EXCLUDED, SMALL, EMBEDDING, NONFINITE, SHARED, OPERATOR)
"""Why `choose` leaves a weight alone before its form is asked."""

_LARGE = 32


@dataclass(frozen=True)
class Limits:
    """Which weights take part, whatever form they take.

    Attributes:
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay as they are, kernels of Conv excepted: they are used at every
            position, so their size says nothing of their cost.
        embeddings: Bits of tables that are looked up in; `none` leaves them alone.
    """

    exclude: tuple[str, ...]
    min_size: int
    embeddings: EmbeddingBits

    def refusal(self, weight: Weight) -> Reason | None:
        """Return why a weight is left alone, or None."""
        names = list(dict.fromkeys(names_of(weight)))
        if selects(self.exclude, names) is not None:
            return EXCLUDED
        is_kernel = any(use.kind == "conv" for use in weight.uses)
        if weight.size < self.min_size and not is_kernel:
            return SMALL
        if len({use.axis for use in weight.uses}) > 1:
            return SHARED
        finite = is_finite(weight.array())
        release_tensor(weight.tensor)
        return None if finite else NONFINITE.because(name=names[0])

    def tables(self, weight: Weight) -> Iterable[WeightForm]:
        """Return the forms of a table that is only looked up, the smallest first."""
        if self.embeddings == "4" and is_large(weight, self.min_size):
            yield BlockTable()
        yield RowTable()


def is_large(table: Weight, min_size: int) -> bool:
    """Whether a table is worth 4 bits: 32 * `min_size` elements or more.

    Looking up 4 bits takes more operators than 8 bits on every runtime, and half of a small table,
    such as the positions of an encoder, is little to save.
    """
    return table.size >= _LARGE * min_size


def choose(
    sites: Sites,
    forms_of: Callable[[Weight], Iterable[WeightForm]],
    limits: Limits,
    capabilities: Capabilities,
    skipped: Skips,
) -> list[Chosen]:
    """Return the weights that take part, each with the first form that fits.

    Args:
        sites: What was found.
        forms_of: What a weight may become, the best first.
        limits: Which weights take part.
        capabilities: Of the target.
        skipped: Counts the others.
    """
    chosen: list[Chosen] = []
    for weight in sites.weights:
        forms = [form for form in forms_of(weight) if form.serves(weight)]
        found = _first(weight, forms, limits, capabilities, skipped)
        if isinstance(found, Reason):
            skipped.add(found)
        else:
            chosen.append((weight, found))
    return chosen


def _first(
    weight: Weight,
    forms: Sequence[WeightForm],
    limits: Limits,
    capabilities: Capabilities,
    skipped: Skips,
) -> WeightForm | Reason:
    if not forms:
        return OPERATOR
    if limits.embeddings == "none" and all(form.is_table for form in forms):
        return EMBEDDING
    if (refusal := limits.refusal(weight)) is not None:
        return refusal
    for form in forms:
        reason = form.fits(weight, capabilities)
        if reason is None:
            return form
        if form is not forms[-1]:
            skipped.note(reason.note)
    assert reason is not None
    return reason


def decide(
    chosen: Sequence[Chosen], evidence: Evidence, skipped: Skips, workers: int = 1
) -> tuple[Decision, ...]:
    """Make one decision per weight, the cheapest in accuracy first.

    Args:
        chosen: Weights with their forms.
        evidence: What is known of the target and of activations.
        skipped: Counts what is left alone after all.
        workers: So many weights are looked at at a time.
    """
    made = []
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda item: item[1].decide(item[0], evidence), chosen)
        for (_, form), decision in zip(chosen, found, strict=True):
            if isinstance(decision, Reason):
                skipped.add(decision)
            else:
                skipped.note(form.note)
                made.append(decision)
    return tuple(sorted(made, key=lambda d: (d.cost, d.subject)))
