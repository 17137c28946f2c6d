"""The pass `rotate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor
from irtools.errors import OptionError, UsageError
from irtools.model import noted_grids, raise_opset
from irtools.passes.rotation.choose import Choice, choose
from irtools.passes.rotation.find import Streams, StreamSettings, find_streams
from irtools.passes.rotation.fold import rotate_stream
from irtools.passes.rotation.heads import Heads, find_heads, mark_rotated, rotate_heads
from irtools.passes.rotation.orthogonal import Rotation
from irtools.passes.rotation.stream import REASONS, Stream
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
from irtools.scaling import Rounding
from irtools.words import counted

__all__ = ["Rotate"]

_ROUNDINGS: Mapping[str, Rounding] = {
    "int8": Rounding(),
    "int4": Rounding(activation_levels=0, weight_levels=8, block=32),
}
_OPSET = 23


@dataclass(frozen=True)
class Rotate(PlanningPass):
    """Turn the residual stream into a basis that quantization likes better, exactly.

        x  <-  x Q         W_writer <- W_writer Q,  W_reader <- Q^T diag(gain) W_reader

    A few channels of a transformer's residual are much larger than the others. In another
    orthogonal basis each of them is spread over all, so that ranges of activations and blocks of
    weights have fewer outliers (QuaRot, Ashkboos et al. 2024). A normalization by the root mean
    square does not see a rotation, so Q goes, at no cost at run time, into the weights that write
    the residual (embeddings, positions, patches, last products of blocks with their layer scales)
    and into those that read it, with the gain and the offset of the normalization. The mean that
    LayerNormalization subtracts is folded into the writers; RMSNormalization takes its place
    (opset 23).

    The stream is found by following sums from each normalization, back to all that writes and
    forth to all that reads it. Where no weight takes Q up, a product with a D x D matrix does: behind
    an embedding table that is multiplied by as well (tied), before outputs of the model. Q is a
    Hadamard matrix with random signs; of `tries` the one with the least predicted rounding error is
    taken, by ranges on calibration data for `rounding=int8`, by weights else.

    Values of attention are rotated within heads, and turned back by the output projection.

    Left alone, each with its reason: networks that normalize after their blocks (BERT), whose
    residual carries a gain; streams whose mean an output of the model shows; normalizations that
    are written out in parts (`fuse` first); values in a cache; what is rotated or quantized already.
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
        **{f"num-skipped-{name}": f"streams left as they are: {why}" for name, why in REASONS.items()},
    }

    rounding: Literal["int8", "int4"] = option(
        "int8",
        "what follows: int8 with ranges of activations, or weights of 4 bits in blocks of 32",
    )
    tries: int = option(8, "rotations of which the best is taken")
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
        if not 0 <= self.max_cost <= 1:
            raise OptionError(f"max-cost is {self.max_cost}, expected 0 to 1")

    def plan(self, model: ir.Model, ctx: PassContext) -> Plan:
        shapes = ctx.analysis(SymbolicShapes, model)
        streams = find_streams(model, shapes, self._settings)
        _drop_unreachable(streams, model, ctx)
        decisions = [self._decided(stream, model, ctx) for stream in streams.found]
        if self.heads:
            decisions += [_head_decision(heads) for heads in find_heads(model.graph, shapes)]
        return Plan(
            pass_text=pass_text(self),
            decisions=tuple(decisions),
            cost_unit="products with a rotation",
            gain_unit="dB, signal to rounding noise of the products",
            notes=tuple(self._notes(streams, model, ctx, decisions)),
            counters=_skipped(streams),
        )

    def apply(self, model: ir.Model, plan: Plan, ctx: PassContext) -> PassResult:
        if not plan.decisions:
            return PassResult(False, plan.counters, plan.notes, plan=plan)
        counts = dict(plan.counters)
        for decision in plan.decisions:
            found = self._carry_out(model, decision)
            for name, number in found.items():
                counts[name] = counts.get(name, 0) + number
        return PassResult(True, counts, plan.notes, plan=plan)

    @property
    def _settings(self) -> StreamSettings:
        return StreamSettings(self.max_cost, self.tied == "copy")

    def _decided(self, stream: Stream, model: ir.Model, ctx: PassContext) -> Decision:
        rotations = [Rotation(stream.width, ctx.seed + i) for i in range(self.tries)]
        statistics = None if ctx.calibration is None else ctx.statistics
        choice = choose(stream, model, rotations, _ROUNDINGS[self.rounding], statistics)
        return _stream_decision(stream, choice)

    def _carry_out(self, model: ir.Model, decision: Decision) -> dict[str, int]:
        kind, name, seed = _read(decision)
        if kind == "heads":
            heads = find_heads(model.graph, SymbolicShapes.of(model))
            one = next((h for h in heads if h.name == name), None)
            if one is None:
                raise _misfit(name)
            rotate_heads(Editor(model, self.name), one, Rotation(one.width, seed))
            mark_rotated(one)
            return {"num-rotated-heads": 1}
        if decision.data.get("centred"):
            raise_opset(model, _OPSET)
        streams = find_streams(model, SymbolicShapes.of(model), self._settings)
        stream = next((s for s in streams.found if s.name == name), None)
        if stream is None:
            raise _misfit(name)
        counts = rotate_stream(Editor(model, self.name), stream, Rotation(stream.width, seed))
        return {"num-rotated-streams": 1, **counts}

    def _notes(
        self, streams: Streams, model: ir.Model, ctx: PassContext, decisions: list[Decision]
    ) -> Iterator[str]:
        if streams.found and self.rounding == "int8" and ctx.calibration is None:
            yield "rotations were compared by weights alone: give calibration data for int8"
        if decisions and noted_grids(model):
            yield (
                "weights lie on the grids of their checkpoint, and leave them: int4 keeps them "
                "exactly without rotate"
            )
        if not streams.found and not streams.refused:
            yield (
                "no LayerNormalization or RMSNormalization reads a residual stream; those that are "
                "written out in parts are found after `fuse`"
            )
        told = dict.fromkeys(streams.refused.values())
        reasons: dict[str, list[str]] = {}
        for refusal in told:
            reasons.setdefault(refusal.reason, []).append(refusal.where)
        for reason, places in reasons.items():
            more = f" and {counted(len(places) - 1, 'more place')}" if len(places) > 1 else ""
            yield f"stays as it is, at {places[0]}{more}: {REASONS[reason]}"


def _drop_unreachable(streams: Streams, model: ir.Model, ctx: PassContext) -> None:
    raise NotImplementedError


def _skipped(streams: Streams) -> dict[str, int]:
    counts: dict[str, int] = {}
    for refusal in streams.refused.values():
        name = f"num-skipped-{refusal.reason}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def _stream_decision(stream: Stream, choice: Choice) -> Decision:
    raise NotImplementedError


def _head_decision(heads: Heads) -> Decision:
    raise NotImplementedError


def _read(decision: Decision) -> tuple[str, str, int]:
    raise NotImplementedError


def _misfit(name: str) -> UsageError:
    raise NotImplementedError
