"""The pass `kv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from irtools.analysis.cache_codes import (
    CACHE_BITS,
    CACHE_TYPES,
    CacheBlock,
    cache_blocks,
    codes_of,
)
from irtools.analysis.decoder import find_decoder
from irtools.editing import Editor
from irtools.errors import UnsupportedError
from irtools.passes.quantization.ranges.rotary import find_rotation, turned_rows
from irtools.passmanager import Exactness, Pass, PassContext, PassResult, option
from irtools.statistics import TurnedPeak, Want

__all__ = ["Kv"]

_BITS = {"int8": 8, "int4": 4}
_INT4_OPSET = 21
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

    OpenVINO chooses scales itself, at run time, and is only told in how many bits it is to keep its
    variables: the plug-in's default is 8. A prompt that is read at once sees itself in float32.

    Left alone, with the reason: models without a cache, the decoders of encoder-decoders, caches
    that other nodes than fused attention read (`fuse` first), and what is rounded already.
    """

    name: ClassVar[str] = "kv"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    counters: ClassVar[Mapping[str, str]] = {
        "num-quantized-caches": "attention blocks whose cache is in few bits",
        "num-skipped-quantized": "attention blocks left as they are: their cache is in few bits",
    }

    form: Literal["int8", "int4"] = option("int8", "of keys and values in the cache")

    def run(self, model: ir.Model, ctx: PassContext) -> PassResult:
        bits = _BITS[self.form]
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
        if ctx.target.capabilities.scales_cache:
            return _tell(model, blocks, bits)
        fresh = [block for block in blocks if not any(map(codes_of, block.new))]
        counters = {
            "num-quantized-caches": len(fresh),
            "num-skipped-quantized": len(blocks) - len(fresh),
        }
        if not fresh:
            return PassResult(False, counters)
        steps = _steps(model, fresh, bits, ctx)
        editor = Editor(model, self.name)
        for block in fresh:
            for position, value in enumerate(block.new, start=1):
                _round(editor, block.attention, position, steps[value], bits)
        notes = _notes(synthetic=ctx.statistics(model).synthetic)
        return PassResult(True, counters, tuple(notes))


def _tell(model: ir.Model, blocks: Sequence[CacheBlock], bits: int) -> PassResult:
    """Note the bits for a runtime that rounds its cache itself."""
    if CACHE_BITS in model.metadata_props or any(codes_of(v) for b in blocks for v in b.new):
        return PassResult(False, {"num-skipped-quantized": len(blocks)})
    model.metadata_props[CACHE_BITS] = str(bits)
    return PassResult(True, {"num-quantized-caches": len(blocks)})


def _notes(*, synthetic: bool) -> Iterator[str]:
    if synthetic:
        yield "the cache is scaled by synthetic data: give calibration texts to trust it"


def _why_none(model: ir.Model) -> str:
    decoder = find_decoder(model)
    if decoder is None:
        return "the model has no cache that grows (`irc export --with-past` makes one)"
    if not decoder.generates:
        return "the cache stays: only decoders that write text by themselves have one in few bits"
    return "the cache stays: not all of it is read by fused attention alone (`fuse` first)"


def _steps(
    model: ir.Model, blocks: Sequence[CacheBlock], bits: int, ctx: PassContext
) -> Mapping[ir.Value, np.ndarray]:
    """Return the step of each channel of new keys and values, float32 [G * D]."""
    rotations = {block: find_rotation(block) for block in blocks}
    turned = turned_rows(model, filter(None, rotations.values()), ctx)
    wants: dict[ir.Value, Want] = {}
    gains: dict[ir.Value, float] = {}
    for block in blocks:
        key, value = block.new
        wants[value] = _want(value, TurnedPeak())
        rotation = rotations[block]
        if rotation is None:
            wants[key] = _want(key, TurnedPeak())
            continue
        angles, gains[key] = turned[rotation.tables[0]]
        every = tuple(float(angle) for angle in np.tile(angles, block.heads))
        wants[key] = _want(rotation.source, TurnedPeak(rotation.pairs, every))
    found = ctx.statistics(model).collect(wants.values())
    steps = {}
    for value, want in wants.items():
        peak = np.asarray(found[want], np.float64) * gains.get(value, 1.0)
        # A peak may be nearly half a step beyond the last code; at a half, runtimes differ.
        step = peak / (2 ** (bits - 1) - 0.55)
        steps[value] = np.where(step > _SMALLEST, step, 1.0).astype(np.float32)
    return steps


def _want(value: ir.Value, reduction: TurnedPeak) -> Want:
    assert value.name is not None
    return Want(value.name, reduction)


def _round(editor: Editor, node: ir.Node, position: int, scale: np.ndarray, bits: int) -> None:
    """Round an input of attention, [B, S, G * D], to codes and back."""
    value = node.inputs[position]
    assert value is not None
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
    back = editor.before(
        node,
        "DequantizeLinear",
        [codes, steps, zeros],
        {"axis": 2},
        outputs={f"{value.name}_rounded": ir.DataType.FLOAT},
        shape=value.shape,
    )
    node.replace_input_with(position, back)
