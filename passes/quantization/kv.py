"""The pass `kv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import (
    CACHE_BITS,
    CACHE_GROUP,
    CacheBlock,
    cache_blocks,
    codes_of,
)
from irtools.analysis.decoder import find_decoder
from irtools.editing import Editor
from irtools.errors import OptionError, UnsupportedError
from irtools.passes.quantization.block_loss import Costliest, costliest_blocks
from irtools.passes.quantization.held_out import hold_out
from irtools.passes.quantization.ranges.cache_roundings import (
    CacheRounding,
    narrow_roundings,
    wide_roundings,
)
from irtools.passes.quantization.write.cache import round_block
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option
from irtools.words import counted

__all__ = ["Kv"]

_BITS = {"int8": (8, 8), "int4": (4, 4), "int8-int4": (8, 4)}
"""Of keys and of values."""
_INT4_OPSET = 21
_LOSS = 0.007
"""Nats a token, where nothing else is asked for. On a model of 135 million parameters, which loses
more than larger ones, 1.6 % of perplexity at most (`python -m benchmarks run contexts`)."""


@dataclass(frozen=True)
class Kv(Pass):
    """Keep the keys and values of a decoder's cache in 8 or 4 bits.

        k  ->  QuantizeLinear  ->  DequantizeLinear  ->  Attention, and its cache

    Each channel of each head has a scale of its own, without a zero point. Keys are rounded after
    the rotary embedding, and their scales hold at every position that the network was trained on
    (`config.json`; at any where it does not say): each pair of channels is followed as far as it is
    turned, which ranges of channels on short texts do not show. What is written is portable ONNX,
    whose cache is fed and returned in float32; for ONNX Runtime on a CPU it becomes attention that
    keeps the codes in its buffers, with the same numbers. Calibrate on texts, `--calibrate`.

    With 4 bits keys and values are moved and turned within each head before they are rounded,
    queries against the keys, and what attention returns back:

        scores = q B^T ((k - m) T)^T        attention = weights ((v - m) T) B + m

    No score sees m, and weights add up to 1. T and the steps follow from the moments of keys,
    queries and values, and from what a calibration text loses: channels that make most of the
    scores may be rounded twice, in the place of those that make next to nothing. m lies so that the
    token that most queries look at, often the first one, is exact: its error would be the same in
    all that attention returns. It costs three products of a head's size a block: for a new key and
    value, each query, and each head of the result. `max-loss` measures on calibration texts what
    each block costs the outputs, and leaves as few as possible in 8 bits so that all others
    together cost no more: a run for each block, on some texts. By default that is 0.007 nats a
    token; small models then have many blocks in 8 bits. `max-loss=none` has 4 in all of them, which
    onnxruntime-genai opens, too; `wide-blocks` leaves a number of them in 8, those whose attention
    loses most.

    OpenVINO chooses scales itself, at run time, and is only told in how many bits it is to keep its
    variables: the plug-in's default is 8. Keys and values may differ there: 4 bits cost values far
    less than keys. A prompt that is read at once sees itself in float32.

    Left alone, with the reason: models without a cache, the decoders of encoder-decoders, caches
    that other nodes than fused attention read (`fuse` first), and what is rounded already.
    """

    name: ClassVar[str] = "kv"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    counters: ClassVar[Mapping[str, str]] = {
        "num-quantized-caches": "attention blocks whose cache is in few bits",
        "num-skipped-quantized": "attention blocks left as they are: their cache is in few bits",
    }

    form: Literal["int8", "int4", "int8-int4"] = option(
        "int8", "of keys and values in the cache; two: of keys, and of values (OpenVINO)"
    )
    group_size: int | None = option(
        None,
        "numbers of a head that share a scale, on OpenVINO; none: as the plug-in has it",
    )

    wide_blocks: int = option(
        0, "form=int4: how many attention blocks, those that lose most, have 8 bits (ONNX Runtime)"
    )
    max_loss: Literal["auto"] | float | None = option(
        "auto",
        "form=int4: nats a token (KL divergence of the outputs) that 4 bits may cost on "
        "calibration texts; as few blocks as that takes, the costliest, have 8 (ONNX Runtime); "
        "auto: 0.007, unless wide-blocks is given; none: whatever it is",
    )

    def __post_init__(self) -> None:
        if self.wide_blocks < 0 or (self.wide_blocks and self.form != "int4"):
            raise OptionError(
                f"wide-blocks is {self.wide_blocks} with form={self.form}: expected 0 or more, "
                "with form=int4"
            )
        if isinstance(self.max_loss, int | float):
            if self.max_loss <= 0 or self.form != "int4":
                raise OptionError(
                    f"max-loss is {self.max_loss:g} with form={self.form}: expected more than 0, "
                    "with form=int4"
                )
            if self.wide_blocks:
                raise OptionError("wide-blocks and max-loss both choose blocks: give one of them")
        if self.group_size is not None and self.group_size < 1:
            raise OptionError(f"group-size is {self.group_size}, expected 1 or more")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        of_keys, bits = _BITS[self.form]
        blocks = cache_blocks(model)
        if not blocks:
            return PassResult(False, {}, (_why_none(model),))
        if bits not in ctx.target.capabilities.cache_bits:
            raise UnsupportedError(
                f"target {ctx.target.name!r} keeps no cache in {bits} bits, as it is set: expected "
                "ort-cpu with shared-cache, or openvino-cpu with stateful"
            )
        if bits < 8 and model.opset_imports.get("", 0) < _INT4_OPSET:
            raise UnsupportedError(f"a cache of 4 bits needs opset {_INT4_OPSET}")
        chooses = self.wide_blocks or isinstance(self.max_loss, int | float)
        if ctx.target.capabilities.scales_cache and chooses:
            raise UnsupportedError(
                f"target {ctx.target.name!r} keeps all blocks in the same bits: leave out "
                "wide-blocks and max-loss, or give form=int8-int4"
            )
        if ctx.target.capabilities.scales_cache:
            return self._tell(model, blocks)
        if of_keys != bits or self.group_size is not None:
            raise UnsupportedError(
                f"target {ctx.target.name!r} keeps keys and values in the same bits, with a scale "
                "for each channel: expected form=int8 or int4, and no group-size"
            )
        fresh = [block for block in blocks if not any(map(codes_of, block.new))]
        counters = {
            "num-quantized-caches": len(fresh),
            "num-skipped-quantized": len(blocks) - len(fresh),
        }
        if not fresh:
            return PassResult(False, counters)
        rounded, notes = self._chosen(model, fresh, bits, ctx)
        editor = Editor(model, self.name)
        for block, one in zip(fresh, rounded, strict=True):
            round_block(editor, block, one)
        if ctx.statistics(model).synthetic:
            notes.append(
                "the cache is scaled by synthetic data: give calibration texts to trust it"
            )
        return PassResult(True, counters, tuple(notes))

    def _chosen(
        self, model: ir.Model, blocks: Sequence[CacheBlock], bits: int, ctx: PassContext
    ) -> tuple[list[CacheRounding], list[str]]:
        """Return how the cache of each block is rounded, and what is to be said about it."""
        if bits == 8:
            return list(wide_roundings(model, blocks, ctx)), []
        most = self._most
        ctx = ctx if most is None else hold_out(ctx)
        found = narrow_roundings(model, blocks, ctx)
        order = sorted(range(len(blocks)), key=lambda n: -found[n].error)
        worst, notes, costliest = tuple(order[: self.wide_blocks]), [], None
        if most is not None:
            places = {block.attention: n for n, block in enumerate(cache_blocks(model))}
            own = [places[block.attention] for block in blocks]
            costliest = costliest_blocks(model, dict(zip(own, found, strict=True)), most, ctx)
            if costliest is None and self.max_loss != "auto":
                raise UnsupportedError(
                    "max-loss needs a model that runs on calibration texts here, of at most 2 GiB: "
                    "give wide-blocks, or max-loss=none"
                )
        if costliest is not None:
            worst = tuple(own.index(place) for place in costliest.blocks)
            notes.append(_told(costliest, len(blocks)))
        wide = wide_roundings(model, [blocks[n] for n in worst], ctx) if worst else ()
        for n, one in zip(worst, wide, strict=True):
            found[n] = one
        errors = [one.error for one in found if one.bits < 8]
        if errors and costliest is None:
            notes.append(
                f"4 bits change what attention returns by up to {np.sqrt(max(errors)):.0%}, by "
                f"{np.sqrt(np.mean(errors)):.0%} on average: look at --metric perplexity on texts, "
                f"and at {'wide-blocks' if most is not None else 'max-loss'}"
            )
        return found, notes

    @property
    def _most(self) -> float | None:
        """What 4 bits may cost; None: anything."""
        if self.max_loss == "auto":
            return None if self.wide_blocks else _LOSS
        return self.max_loss

    def _tell(self, model: ir.Model, blocks: Sequence[CacheBlock]) -> PassResult:
        """Note the bits for a runtime that rounds its cache itself."""
        if CACHE_BITS in model.metadata_props or any(codes_of(v) for b in blocks for v in b.new):
            return PassResult(False, {"num-skipped-quantized": len(blocks)})
        sizes = {block.size for block in blocks}
        if self.group_size is not None and any(size % self.group_size for size in sizes):
            raise OptionError(
                f"group-size is {self.group_size}, which does not divide the size of a head, "
                f"{max(sizes)}"
            )
        model.metadata_props[CACHE_BITS] = " ".join(map(str, _BITS[self.form]))
        if self.group_size is not None:
            model.metadata_props[CACHE_GROUP] = str(self.group_size)
        return PassResult(True, {"num-quantized-caches": len(blocks)})


def _told(found: Costliest, blocks: int) -> str:
    few = (
        f", with 8 bits in {len(found.blocks)} of {counted(blocks, 'block')} (max-loss=none: in "
        "none of them)"
    )
    return (
        f"4 bits change the outputs by {found.loss:.2g} (nats a token) on "
        f"{counted(found.samples, 'sample')}{few if found.blocks else ''}"
    )


def _why_none(model: ir.Model) -> str:
    decoder = find_decoder(model)
    if decoder is None:
        return "the model has no cache that grows (`irc export --with-past` makes one)"
    if not decoder.generates:
        return "the cache stays: only decoders that write text by themselves have one in few bits"
    return "the cache stays: not all of it is read by fused attention alone (`fuse` first)"
