"""Decides about weights in blocks: which, with how many bits, at what predicted cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.measure.cpu import cpu_quota
from irtools.model import release_tensor
from irtools.passes.quantization.forms.decisions import Form, UseDecision, WeightDecision
from irtools.passes.quantization.ranges.arithmetic import dequantize, quantize_weight
from irtools.passes.quantization.ranges.blocks import (
    SLAB_ELEMENTS,
    dequantize_rows,
    is_finite,
    quantize_rows,
)
from irtools.passes.quantization.ranges.cost import relative_error
from irtools.passes.quantization.ranges.spec import BlockSpec, PerAxis, weight_spec
from irtools.passes.quantization.sites.find import Sites, Weight
from irtools.passes.quantization.sites.selection import names_of, selects
from irtools.passmanager import Decision

__all__ = [
    "TABLE_BLOCKS",
    "BlockQuantizer",
    "EmbeddingBits",
    "Squares",
    "block_decision",
    "is_small",
    "refusal",
]

EmbeddingBits: TypeAlias = Literal["8", "4", "none"]
Squares: TypeAlias = Mapping[ir.Value, np.ndarray]
"""E[x_k^2] of the activations that are multiplied, by value."""

TABLE_BLOCKS = BlockSpec(4, 32)
"""The form of tables in 4 bits."""

TIED_BLOCKS = BlockSpec(8, 32, "affine")
"""The form of tables in 8 bits that are also multiplied by: unsigned, as runtimes look them up."""


def refusal(weight: Weight, exclude: Sequence[str], min_size: int, notes: list[str]) -> str:
    """Return the counter under which a weight is left alone, or ''.

    Args:
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay as they are, kernels of Conv excepted.
        notes: Takes a sentence where the reason is not an option's.
    """
    names = list(dict.fromkeys(names_of(weight)))
    if selects(exclude, names) is not None:
        return "num-skipped-excluded"
    is_kernel = any(use.kind == "conv" for use in weight.uses)
    if weight.size < min_size and not is_kernel:
        return "num-skipped-small"
    if len({use.axis for use in weight.uses}) > 1:
        return "num-skipped-shared"
    finite = is_finite(weight.array())
    release_tensor(weight.tensor)
    if not finite:
        notes.append(f"{names[0]!r} holds NaN or infinity: left in float32")
        return "num-skipped-nonfinite"
    return ""


def is_small(table: Weight, min_size: int) -> bool:
    """Whether a table is not worth 4 bits: fewer than 32 * `min_size` elements.

    Looking up 4 bits takes more operators than 8 bits on every runtime, and half of a small table,
    such as the positions of an encoder, is little to save.
    """
    return table.size < 32 * min_size


def block_decision(
    weight: Weight, form: Form, spec: BlockSpec, squares: Squares | None = None
) -> Decision | None:
    """Decide to store a weight in blocks.

    The cost is predicted on output channels of about 130,000 weights, evenly spread.

    Args:
        form: `weight-only`, `embedding` or `tied`.
        spec: The blocks wanted; smaller ones are taken where these do not divide the channels.

    Returns:
        None where no block size fits.
    """
    axis = weight.uses[0].axis
    shape = [int(d) for d in weight.tensor.shape.numpy()]
    fitting = spec.fits(shape[1 - axis])
    if fitting is None:
        return None
    rows = _sample(weight.array(), axis)
    release_tensor(weight.tensor)
    error = rows - dequantize_rows(quantize_rows(rows, fitting))
    costs = [
        relative_error(rows.T, error.T, (squares or {}).get(use.activation), 0.0)
        for use in weight.uses
    ]
    uses = tuple(UseDecision(use.output.name or "") for use in weight.uses)
    decided = WeightDecision(weight.name, form, spec.bits, uses, fitting.block, fitting.scheme)
    return Decision(
        subject=next(names_of(weight)),
        action=_action(form, fitting),
        cost=float(f"{max(costs):.4g}"),
        gain=float(weight.size * 4 - _stored_bytes(weight.size, fitting, form)),
        data=decided.to_data(),
    )


@dataclass
class BlockQuantizer:
    """Turns sites into decisions about weights in blocks.

    Attributes:
        exclude: Patterns over module, node and value names.
        min_size: Fewer elements stay in float32.
        spec: Form of the weights of products.
        embeddings: Bits of tables.
        skipped: Counts of what is left alone, by counter.
        notes: Sentences for the report.
    """

    exclude: tuple[str, ...]
    min_size: int
    spec: BlockSpec
    embeddings: EmbeddingBits
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def select(self, sites: Sites) -> list[tuple[Weight, Form]]:
        """Return the weights that take part, and as what."""
        self.skipped.update(sites.skipped)
        chosen: list[tuple[Weight, Form]] = []
        for weight in sites.weights:
            form = _form(weight)
            if form is None:
                reason = "num-skipped-operator"
            elif form != "weight-only" and self.embeddings == "none":
                reason = "num-skipped-embedding"
            else:
                reason = refusal(weight, self.exclude, self.min_size, self.notes)
            if reason:
                self.skipped[reason] += 1
            elif form is not None:
                chosen.append((weight, form))
        return chosen

    def decide(
        self, chosen: Sequence[tuple[Weight, Form]], squares: Squares
    ) -> tuple[Decision, ...]:
        """Make one decision per weight, the cheapest in accuracy first."""
        made = []
        with ThreadPoolExecutor(cpu_quota()) as pool:
            found = pool.map(lambda item: self._decision(item[0], item[1], squares), chosen)
        for (weight, _), decision in zip(chosen, found, strict=True):
            if decision is None:
                self.skipped["num-skipped-shape"] += 1
                self.notes.append(
                    f"{next(names_of(weight))!r} stays in float32: no block size from 16 to "
                    f"{self.spec.block} divides its input channels"
                )
            else:
                made.append(decision)
        return tuple(sorted(made, key=lambda d: (d.cost, d.subject)))

    def _decision(self, weight: Weight, form: Form, squares: Squares) -> Decision | None:
        if form == "weight-only":
            return block_decision(weight, form, self.spec, squares)
        small = form == "embedding" and is_small(weight, self.min_size)
        if self.embeddings == "4" and not small:
            return block_decision(weight, form, TABLE_BLOCKS, squares)
        if form == "tied":
            return block_decision(weight, form, TIED_BLOCKS, squares)
        return _row_decision(weight)


def _row_decision(weight: Weight) -> Decision:
    """Decide to store a table in 8 bits, one scale per row."""
    rows = _sample(weight.array(), 0)
    release_tensor(weight.tensor)
    integers, q = quantize_weight(rows, weight_spec(PerAxis(0)))
    uses = tuple(UseDecision(use.output.name or "") for use in weight.uses)
    cost = relative_error(rows, rows - dequantize(integers, q), None, 0.0)
    stored = weight.size + 4 * int(weight.tensor.shape.numpy()[0])
    return Decision(
        subject=next(names_of(weight)),
        action="s8 per row, dequantized after the lookup",
        cost=float(f"{cost:.4g}"),
        gain=float(weight.size * 4 - stored),
        data=WeightDecision(weight.name, "embedding", 8, uses).to_data(),
    )


def _form(weight: Weight) -> Form | None:
    kinds = {use.kind for use in weight.uses}
    if kinds <= {"matmul", "gemm"}:
        return "weight-only"
    if kinds == {"gather"}:
        return "embedding"
    # The rows of a table are the output channels of a product by the same table turned round.
    turned = all(use.axis == 0 for use in weight.uses)
    return "tied" if kinds <= {"gather", "matmul", "gemm"} and turned else None


def _sample(array: np.ndarray, axis: int) -> np.ndarray:
    """Return some output channels as rows [R, K], evenly spread."""
    channels, inner = array.shape[axis], array.shape[1 - axis]
    count = min(channels, max(SLAB_ELEMENTS // max(inner, 1), 1))
    rows = np.arange(count) * channels // count
    return np.ascontiguousarray(array[rows] if axis == 0 else array[:, rows].T)


def _stored_bytes(size: int, spec: BlockSpec, form: Form) -> int:
    scale = 2 if form == "embedding" else 4
    zero_bits = spec.bits if spec.scheme == "affine" else 0
    return size * spec.bits // 8 + size // spec.block * (8 * scale + zero_bits) // 8


def _action(form: Form, spec: BlockSpec) -> str:
    code = {"symmetric": f"s{spec.bits}", "affine": f"u{spec.bits} affine", "nf4": "nf4"}
    where = {"embedding": "looked up", "tied": "looked up and multiplied"}.get(form, "weight only")
    return f"{code[spec.scheme]} per block of {spec.block}, {where}"
