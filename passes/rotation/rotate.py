"""The pass `rotate`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.analysis.shapes import SymbolicShapes
from irtools.errors import OptionError
from irtools.model import noted_grids
from irtools.passes.rotation.decide import (
    carry_out,
    choice_of,
    head_decision,
    obstacle,
    stream_decision,
)
from irtools.passes.rotation.find import Streams, StreamSettings, find_streams
from irtools.passes.rotation.heads import find_heads
from irtools.passes.rotation.stream import REASONS, Refusal, Stream
from irtools.passmanager import (
    FOLLOWED_GRAPH,
    Decision,
    Exactness,
    PassContext,
    PassResult,
    Plan,
    PlanningPass,
    option,
    pass_text,
)
from irtools.scaling import ROUNDINGS
from irtools.words import counted

__all__ = ["Rotate"]


@dataclass(frozen=True)
class Rotate(PlanningPass):
    """Turn the residual stream into a basis that quantization likes better, exactly.

        x  <-  x Q
        W  <-  W Q                 what writes x
        W  <-  Q^T diag(gain) W    what reads norm(x)

    A few channels of a transformer's residual are much larger than the others. In another
    orthogonal basis each of them is spread over many, so that ranges of activations have fewer
    outliers (QuaRot, Ashkboos et al. 2024). A normalization by the root mean square does not see a
    rotation, so Q goes, at no cost at run time, into the weights that write the residual
    (embeddings, positions, patches, last products of blocks with their layer scales) and into those
    that read it, with gain and offset of the normalization. The mean that LayerNormalization
    subtracts is folded into the writers, and RMSNormalization takes its place (opset 23).

    The stream is found by following sums from each normalization, back to all that writes and
    forth to all that reads. Where no weight takes Q up, a product with a D x D matrix does: after
    an embedding table that is multiplied by as well (tied), and before outputs of the model. The
    values of attention are rotated within heads, and turned back by the output projection.

    Q is a Hadamard matrix with random signs, of all channels or of blocks of channels that are
    alike in size. Of `tries` the one with the least predicted rounding error is taken, if it gains
    `min-gain`. The gain of a normalization keeps large channels down, and a rotation cannot: with
    blocks of 4 bits small models often lose by it, and stay.

    Left alone, each with its reason: networks that normalize after their blocks (BERT); streams
    whose mean an output of the model shows; normalizations that are written out in parts (`fuse`
    first); values in a cache; what is rotated or quantized already; subgraphs.
    """

    name: ClassVar[str] = "rotate"
    exactness: ClassVar[Exactness] = Exactness.REASSOCIATED
    requires: ClassVar[tuple[str, ...]] = FOLLOWED_GRAPH
    counters: ClassVar[Mapping[str, str]] = {
        "num-rotated-streams": "residual streams rotated",
        "num-rotated-writers": "weights that write a stream, rotated",
        "num-rotated-readers": "products that read a stream, rotated",
        "num-rotated-heads": "attention blocks with values rotated within heads",
        "num-folded-means": "LayerNormalizations that became RMSNormalization",
        "num-rotation-products": "products with a rotation, where no weight takes it up",
        "num-skipped-values": "values of attention left as they are: a cache or another node reads "
        "them",
        **{f"num-skipped-{n}": f"streams left as they are: {why}" for n, why in REASONS.items()},
    }

    rounding: Literal["int8", "int4"] = option(
        "int8",
        "what follows: int8 with ranges of activations, or weights of 4 bits in blocks of 32",
    )
    tries: int = option(8, "rotations of which the best is taken")
    min_gain: float | None = option(
        1.0,
        "decibels, signal to rounding noise of the products that read and write, for which a "
        "stream is rotated; none: always",
    )
    heads: bool = option(True, "rotate the values of attention as well")
    tied: Literal["product", "copy"] = option(
        "product",
        "a table that is looked up and multiplied by; product: it stays, with a D x D product at "
        "each end; copy: it becomes two, and the model larger",
    )
    max_cost: float = option(
        0.05, "multiplications that may be added, as a share of those by the stream's weights"
    )

    def __post_init__(self) -> None:
        if not 1 <= self.tries <= 64:
            raise OptionError(f"tries is {self.tries}, expected 1 to 64")
        if self.min_gain is not None and not 0 <= self.min_gain <= 100:
            raise OptionError(f"min-gain is {self.min_gain}, expected 0 to 100 decibels")
        if not 0 <= self.max_cost <= 1:
            raise OptionError(f"max-cost is {self.max_cost}, expected 0 to 1")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        shapes = ctx.analysis(SymbolicShapes, model)
        streams = find_streams(model, shapes, self._settings)
        decisions = list(self._decided(streams, model, ctx))
        skipped = Counter(f"num-skipped-{refusal.reason}" for refusal in streams.refused.values())
        if self.heads:
            found, others = find_heads(model.graph, shapes)
            decisions += [head_decision(heads) for heads in found]
            skipped.update({"num-skipped-values": others} if others else {})
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(decisions),
            cost_unit="products with a rotation",
            gain_unit="dB, signal to rounding noise of the products",
            notes=tuple(self._notes(streams, model, ctx, found=bool(decisions))),
            counters=dict(skipped),
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        counts = Counter(plan.counters)
        counts.update(carry_out(model, plan.decisions, self._settings, self.name))
        return PassResult(bool(plan.decisions), dict(counts), plan.notes, plan=plan)

    @property
    def _settings(self) -> StreamSettings:
        return StreamSettings(self.max_cost, self.tied == "copy")

    def _decided(self, streams: Streams, model: ir.Model, ctx: PassContext) -> Iterator[Decision]:
        """Yield what is done to each stream; those that stay are refused."""
        for stream in streams.found:
            try:
                yield self._stream(stream, model, ctx)
            except Refusal as refusal:
                streams.refused[stream.name] = refusal

    def _stream(self, stream: Stream, model: ir.Model, ctx: PassContext) -> Decision:
        reason = obstacle(stream, model, ctx.target.capabilities)
        if reason is not None:
            raise Refusal(reason, stream.name)
        choice = choice_of(stream, model, ctx, self.tries, ROUNDINGS[self.rounding])
        if choice is None:
            raise Refusal("unreached", stream.name)
        if self.min_gain is not None and choice.gain_db < self.min_gain:
            raise Refusal("gain", f"{stream.name}, {choice.gain_db:.1f} dB")
        return stream_decision(stream, choice)

    def _notes(
        self, streams: Streams, model: ir.Model, ctx: PassContext, *, found: bool
    ) -> Iterator[str]:
        if streams.found and ctx.statistics(model).synthetic:
            yield "rotations were compared on synthetic data: give calibration data to trust them"
        if found and noted_grids(model):
            yield (
                "weights leave the grids of their checkpoint: `int4` stores them as they are "
                "where nothing rotates them"
            )
        if not streams.found and not streams.refused:
            yield (
                "no LayerNormalization or RMSNormalization reads a residual stream; `fuse` makes "
                "them of those that are written out in parts"
            )
        places: dict[str, list[str]] = {}
        for refusal in streams.refused.values():
            places.setdefault(refusal.reason, []).append(refusal.where)
        for reason, (first, *others) in places.items():
            more = f" and {counted(len(others), 'more place')}" if others else ""
            yield f"a stream stays as it is ({first}{more}): {REASONS[reason]}"
