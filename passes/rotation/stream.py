"""The residual stream of a pre-norm network: what writes to it, and what reads it.

    x = sum of writers          embeddings, and the last products of blocks
    y = norm(x) W               first products of blocks, and the head

In another orthogonal basis, x Q, each writer gives what it gives times Q, and since a
normalization by the root mean square does not see Q, each reader multiplies by Q^T W. A
LayerNormalization subtracts the mean as well; where all writers give vectors of mean zero, by
C = I - 1 1^T / D, nothing is left to subtract, and it is a normalization by the root mean square
(SliceGPT, Ashkboos et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import onnx_ir as ir

from irtools.analysis.refusal import ReasonedRefusal
from irtools.editing import constant_of, require_array, require_constant
from irtools.operators import op_key

__all__ = [
    "REASONS",
    "NormReader",
    "Reason",
    "Refusal",
    "Stream",
    "StreamNorm",
    "Use",
    "Writer",
    "is_norm",
    "is_normed_by_mean",
    "is_stream_norm",
    "refuse",
]

Use: TypeAlias = tuple[ir.Node, int]
"""A node, and which of its inputs."""

Reason: TypeAlias = Literal[
    "post-norm",
    "single",
    "output",
    "reader",
    "mixed",
    "cost",
    "type",
    "shape",
    "quantized",
    "rotated",
    "nonfinite",
    "opset",
    "target",
    "unreached",
    "gain",
]

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "post-norm": "blocks are normalized after their sum, and no rotation passes the gain that "
        "the residual then has",
        "single": "a single normalization reads it",
        "output": "an output of the model shows its mean, which is folded away",
        "reader": "an operator other than a normalization reads it with its mean",
        "mixed": "normalizations of two kinds read it",
        "cost": "too many values would have to be rotated while the model runs",
        "type": "it is not float32",
        "shape": "it is not known where its channels lie",
        "quantized": "what writes it is quantized already: rotate first",
        "rotated": "it is rotated already",
        "nonfinite": "a weight holds NaN or infinity, which a rotation would spread",
        "opset": "RMSNormalization needs opset 23, to which the model cannot be raised",
        "target": "the target does not run RMSNormalization as one operator",
        "unreached": "calibration data never reached it",
        "gain": "no rotation that was tried is predicted to gain enough",
    }
)
"""Why a stream stays as it is."""

_RMS = frozenset({"RMSNormalization", "SimplifiedLayerNormalization"})
_NORMS = _RMS | {"LayerNormalization"}


class Refusal(ReasonedRefusal[Reason]):
    """A stream stays as it is."""

    reasons = REASONS


@dataclass(frozen=True, eq=False)
class Writer:
    """A constant that becomes  diag(scale) C Q  times itself, along one axis.

    Attributes:
        node: Who reads it.
        input: As which input.
        axis: Of the constant.
        scale: Of a layer scale after it (Touvron et al. 2021), [D]; None for 1.
    """

    node: ir.Node
    input: int
    axis: int
    scale: np.ndarray | None = None

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.input]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class NormReader:
    """A weight that becomes  Q^T diag(gain)  times itself, along one axis.

    Attributes:
        node: The product.
        holder: Who reads the stored weight: the product, or a Transpose.
        input: As which input.
        axis: Of the constant.
        bias: Where offset W goes: an input that is constant; None: nowhere yet.
    """

    node: ir.Node
    holder: ir.Node
    input: int
    axis: int
    bias: Use | None = None

    @property
    def value(self) -> ir.Value:
        value = self.holder.inputs[self.input]
        assert value is not None
        return value


@dataclass(frozen=True, eq=False)
class StreamNorm:
    """A normalization that reads the stream, and what reads it.

    Attributes:
        node: It.
        readers: Products that take the rotation up.
        others: Everything else, which reads  norm(x Q) Q^T diag(gain) + offset.
        shown: Whether an output of the model is its result.
    """

    node: ir.Node
    readers: tuple[NormReader, ...]
    others: tuple[Use, ...]
    shown: bool

    @property
    def gain(self) -> np.ndarray:
        return require_array(self.node.inputs[1]).astype(np.float64)

    @property
    def offset(self) -> np.ndarray | None:
        """The offset, unless it is 0."""
        value = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        found = None if value is None else require_array(value).astype(np.float64)
        return None if found is None or not found.any() else found

    @property
    def has_exit(self) -> bool:
        """Whether a product with Q^T is needed while the model runs."""
        return self.shown or bool(self.others)


@dataclass(frozen=True, eq=False)
class Stream:
    """A residual stream.

    Attributes:
        name: Value name of what its first normalization reads.
        width: D.
        centred: Whether its mean is folded away: LayerNormalization reads it.
        writers: Constants.
        scales: Layer scales that go into the writers before them.
        entries: Values that are rotated while the model runs, and who reads them so.
        norms: What reads it.
        exits: Readers of the stream as it is, which must see it turned back: value to uses.
    """

    name: str
    width: int
    centred: bool
    writers: tuple[Writer, ...]
    scales: tuple[ir.Node, ...]
    entries: Mapping[ir.Value, tuple[Use, ...]]
    norms: tuple[StreamNorm, ...]
    exits: Mapping[ir.Value, tuple[Use, ...]] = field(default_factory=dict)

    @property
    def products(self) -> int:
        """How many products with a D x D matrix the model runs afterwards."""
        exits = sum(norm.has_exit for norm in self.norms)
        return len(self.entries) + len(self.exits) + exits

    @property
    def constants(self) -> set[ir.Value]:
        """The constants that take the rotation up."""
        found = {member.value for member in self.writers}
        return found | {reader.value for norm in self.norms for reader in norm.readers}

    @property
    def weights(self) -> int:
        """Elements of these constants."""
        return sum(int(require_constant(value).size) for value in self.constants)


def is_norm(node: ir.Node) -> bool:
    """Whether a node is a normalization by mean or root mean square, as one operator."""
    return node.domain == "" and node.op_type in _NORMS


def is_stream_norm(node: ir.Node, width: int | None = None) -> bool:
    """Whether a node normalizes the last axis, with constants.

    Args:
        width: Size of that axis; None for any.
    """
    if not is_norm(node) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    constants = [constant_of(value) for value in node.inputs[1:] if value is not None]
    sizes = [tuple(t.shape.numpy()) for t in constants if t is not None]
    alike = len(sizes) == len(constants) > 0 and len(set(sizes)) == 1 and len(sizes[0]) == 1
    return (
        alike
        and (width is None or sizes[0][0] == width)
        and all(t is not None and t.dtype == ir.DataType.FLOAT for t in constants)
        and node.attributes.get_int("axis", -1) == -1
    )


def is_normed_by_mean(node: ir.Node) -> bool:
    """Whether a normalization subtracts the mean."""
    return node.op_type not in _RMS


def refuse(reason: Reason, node: ir.Node) -> Refusal:
    """Return a refusal at a node."""
    return Refusal(reason, op_key(node.domain, node.op_type))
