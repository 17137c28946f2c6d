"""The pass `kv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import (
    CACHE_BITS,
    CACHE_GROUP,
    CACHE_TYPES,
    CacheBlock,
    cache_blocks,
    codes_of,
)
from irtools.analysis.decoder import find_decoder
from irtools.editing import Editor
from irtools.errors import OptionError, UnsupportedError
from irtools.passes.quantization.ranges.attention_error import (
    AttentionSample,
    read_attention,
    rounded_keys,
    rounded_values,
)
from irtools.passes.quantization.ranges.rotary import (
    Rotation,
    Turning,
    find_rotation,
    turnings,
)
from irtools.passes.quantization.ranges.turned_keys import RECIPES, TurnedKeys, turned_keys
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option
from irtools.statistics import ChannelSquare, HeadGram, TurnedPeak, Want

__all__ = ["Kv"]

_BITS = {"int8": (8, 8), "int4": (4, 4), "int8-int4": (8, 4)}
"""Of keys and of values."""
_INT4_OPSET = 21
_VALUE_STEPS = (0.25, 0.3, 0.36, 0.44, 0.55)
"""Of the root mean square of a channel. There is a code for zero, which the values of tokens that
all queries look at are close to."""
_SMALLEST = float(np.finfo(np.float32).tiny)


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

    With 4 bits keys are turned within each head before they are rounded, and queries against them,
    which no score sees, so that scores are moved least, by the moments of both and by what a
    calibration text loses: channels that make most of the scores may be rounded twice, in the place
    of those that make next to nothing. `wide-blocks` leaves the blocks that lose most in 8 bits.

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

    def __post_init__(self) -> None:
        if self.wide_blocks < 0 or (self.wide_blocks and self.form != "int4"):
            raise OptionError(
                f"wide-blocks is {self.wide_blocks} with form={self.form}: expected 0 or more, "
                "with form=int4"
            )
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
        if ctx.target.capabilities.scales_cache and self.wide_blocks:
            raise UnsupportedError(
                f"target {ctx.target.name!r} keeps all blocks in the same bits: leave out "
                "wide-blocks, or give form=int8-int4"
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
        rounded = _roundings(model, fresh, bits, self.wide_blocks, ctx)
        editor = Editor(model, self.name)
        for block, one in zip(fresh, rounded, strict=True):
            if isinstance(one.keys, TurnedKeys):
                _round_turned(editor, block, one.keys)
            else:
                _round(editor, block.attention, 1, one.keys, one.bits)
            _round(editor, block.attention, 2, one.values, one.bits)
        notes = _notes(rounded, synthetic=ctx.statistics(model).synthetic)
        return PassResult(True, counters, tuple(notes))

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


@dataclass(frozen=True, eq=False)
class _Rounding:
    """How the cache of a block is rounded.

    Attributes:
        bits: Of keys and values.
        keys: The step of each channel, float32 [G * D], or how keys are turned, too.
        values: The step of each channel.
        error: What attention loses on a text, of its whole, squared.
    """

    bits: int
    keys: np.ndarray | TurnedKeys
    values: np.ndarray
    error: float = 0.0


def _notes(rounded: Sequence[_Rounding], *, synthetic: bool) -> Iterator[str]:
    narrow = [one.error for one in rounded if one.bits < 8]
    if narrow:
        yield (
            f"4 bits change what attention returns by up to {np.sqrt(max(narrow)):.0%}, by "
            f"{np.sqrt(np.mean(narrow)):.0%} on average: look at --metric perplexity on texts, "
            "and at wide-blocks"
        )
    if synthetic:
        yield "the cache is scaled by synthetic data: give calibration texts to trust it"


def _why_none(model: ir.Model) -> str:
    decoder = find_decoder(model)
    if decoder is None:
        return "the model has no cache that grows (`irc export --with-past` makes one)"
    if not decoder.generates:
        return "the cache stays: only decoders that write text by themselves have one in few bits"
    return "the cache stays: not all of it is read by fused attention alone (`fuse` first)"


def _roundings(
    model: ir.Model, blocks: Sequence[CacheBlock], bits: int, wide: int, ctx: PassContext
) -> list[_Rounding]:
    """Return how the cache of each block is rounded.

    Args:
        wide: How many blocks, those that lose most in 4 bits, have 8.
    """
    rotations = {b: find_rotation(b.new[0], b.heads, b.size) for b in blocks}
    known = turnings(model, filter(None, rotations.values()), ctx)
    found = {block: _Wanted.of(block, rotations[block], known, bits, wide) for block in blocks}
    answers = ctx.statistics(model).collect(want for one in found.values() for want in one.wants)
    if bits == 8:
        return [found[block].plain(answers) for block in blocks]
    samples = read_attention(model, blocks, ctx)
    narrow = {block: found[block].turned(answers, samples[block]) for block in blocks}
    worst = sorted(blocks, key=lambda block: -narrow[block].error)[:wide]
    return [found[b].plain(answers) if b in worst else narrow[b] for b in blocks]


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What must be known to round the cache of a block.

    Attributes:
        block: It.
        rotation: What turns its keys.
        turning: How far.
        values: Largest magnitudes of values.
        squares: Their mean squares; None where they are not needed.
        peaks: Those of keys, at all positions; None where they are not needed.
        moments: Of keys and of queries, before they are rotated; None where they are not needed.
    """

    block: CacheBlock
    rotation: Rotation | None
    turning: Turning | None
    values: Want
    squares: Want | None
    peaks: Want | None
    moments: tuple[Want, Want] | None

    @classmethod
    def of(
        cls,
        block: CacheBlock,
        rotation: Rotation | None,
        known: Mapping[ir.Value, Turning],
        bits: int,
        wide: int,
    ) -> _Wanted:
        (key, value), (query, heads) = block.new, block.queries
        turning = None if rotation is None else known[rotation.tables[0]]
        source = key if rotation is None else rotation.source
        squares = peaks = moments = None
        if bits == 8 or wide:
            peaks = _want(source, _peak(rotation, turning, block.heads))
        if bits < 8:
            turned = None if rotation is None else find_rotation(query, heads, block.size)
            met = query if turned is None else turned.source
            squares = _want(value, ChannelSquare())
            moments = _want(source, HeadGram(block.size)), _want(met, HeadGram(block.size))
        of_values = _want(value, TurnedPeak())
        return cls(block, rotation, turning, of_values, squares, peaks, moments)

    @property
    def wants(self) -> Iterator[Want]:
        """All of it."""
        yield from filter(None, (self.values, self.squares, self.peaks, *(self.moments or ())))

    def plain(self, answers: Mapping[Want, object]) -> _Rounding:
        """Return how to round in 8 bits."""
        assert self.peaks is not None
        gain = 1.0 if self.turning is None else self.turning.gain
        keys = _peak_step(np.asarray(answers[self.peaks]) * gain, 8)
        return _Rounding(8, keys, _peak_step(np.asarray(answers[self.values]), 8))

    def turned(self, answers: Mapping[Want, object], sample: AttentionSample) -> _Rounding:
        """Return how to round in 4 bits, as a text loses least by."""
        assert self.moments is not None
        keys, queries = (np.asarray(answers[want]) for want in self.moments)
        pairs = () if self.rotation is None else self.rotation.pairs_of(self.block.size)
        centered = not self.block.attention.attributes.get_float("softcap", 0.0)
        tried = turned_keys(keys, queries, pairs, self.turning, RECIPES, centered=centered)
        exact = sample.mixed(sample.keys, sample.values)

        def of_keys(one: TurnedKeys) -> np.ndarray:
            return rounded_keys(sample.keys, one.turn, one.scale)

        best = min(tried, key=lambda one: sample.error(exact, of_keys(one), sample.values))
        step = min(
            self._value_steps(answers),
            key=lambda step: sample.error(exact, sample.keys, rounded_values(sample.values, step)),
        )
        error = sample.error(exact, of_keys(best), rounded_values(sample.values, step))
        return _Rounding(4, best, step, error)

    def _value_steps(self, answers: Mapping[Want, object]) -> Iterator[np.ndarray]:
        """Yield steps of values in 4 bits: a few values beyond the last code may be clipped."""
        assert self.squares is not None
        widest = _peak_step(np.asarray(answers[self.values]), 4)
        yield widest
        spread = np.sqrt(np.asarray(answers[self.squares]))
        for part in _VALUE_STEPS:
            step = part * spread
            yield np.where(step > _SMALLEST, step, widest).astype(np.float32)


def _peak(rotation: Rotation | None, turning: Turning | None, heads: int) -> TurnedPeak:
    if rotation is None or turning is None:
        return TurnedPeak()
    every = tuple(float(angle) for angle in np.tile(turning.angles, heads))
    return TurnedPeak(rotation.pairs, every)


def _peak_step(peak: np.ndarray, bits: int) -> np.ndarray:
    # A peak may be nearly half a step beyond the last code; at a half, runtimes differ.
    step = np.asarray(peak, np.float64) / (2 ** (bits - 1) - 0.55)
    return np.where(step > _SMALLEST, step, 1.0).astype(np.float32)


def _want(value: ir.Value, reduction: TurnedPeak | HeadGram | ChannelSquare) -> Want:
    assert value.name is not None
    return Want(value.name, reduction)


def _round(editor: Editor, node: ir.Node, position: int, scale: np.ndarray, bits: int) -> None:
    """Round an input of attention, [B, S, G * D], to codes and back."""
    value = node.inputs[position]
    assert value is not None
    node.replace_input_with(position, _codes_and_back(editor, node, value, scale, bits))


def _codes_and_back(
    editor: Editor, node: ir.Node, value: ir.Value, scale: np.ndarray, bits: int
) -> ir.Value:
    kind = CACHE_TYPES[bits]
    steps = editor.constant(f"{value.name}_scale", scale)
    zeros = editor.constant(f"{value.name}_zero", np.zeros(len(scale), kind.numpy()))
    codes = editor.before(
        node,
        "QuantizeLinear",
        [value, steps, zeros],
        {"axis": 2},
        outputs={f"{value.name}_codes": kind},
        shape=value.shape,
    )
    return editor.before(
        node,
        "DequantizeLinear",
        [codes, steps, zeros],
        {"axis": 2},
        outputs={f"{value.name}_rounded": ir.DataType.FLOAT},
        shape=value.shape,
    )


def _round_turned(editor: Editor, block: CacheBlock, keys: TurnedKeys) -> None:
    """Turn the keys of a block, round them to codes of 4 bits and back, and turn them back."""
    node, key, turn = block.attention, block.new[0], keys.turn
    form = np.array([0, 0, block.heads, 1, block.size], np.int64)
    apart = editor.constant("heads_apart", form)
    joined = editor.constant("heads_joined", np.array([0, 0, block.heads * block.size], np.int64))
    offset = editor.constant(f"{key.name}_mean", turn.offset)

    def add(op_type: str, value: ir.Value, by: ir.Value, name: str) -> ir.Value:
        outputs = {f"{key.name}_{name}": ir.DataType.FLOAT}
        return editor.before(node, op_type, [value, by], outputs=outputs)

    def turned(value: ir.Value, matrices: np.ndarray, name: str) -> ir.Value:
        by = editor.constant("key_turn", matrices)
        made = add("MatMul", add("Reshape", value, apart, f"{name}_apart"), by, f"{name}_by_head")
        return add("Reshape", made, joined, name)

    source = turned(add("Sub", key, offset, "centered"), turn.forth, "turned")
    if turn.coarse is not None:
        coarse = _codes_and_back(editor, node, source, turn.coarse, 4)
        source = add("Sub", source, coarse, "finer")
    rounded = _codes_and_back(editor, node, source, keys.scale, 4)
    back = add("Add", turned(rounded, turn.back, "back"), offset, "restored")
    node.replace_input_with(1, back)
