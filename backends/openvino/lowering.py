"""Forms for OpenVINO, made last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx_ir as ir

from irtools.analysis.adapters import fix_adapter, switches_adapters
from irtools.analysis.cache_codes import CACHE_BITS, cache_blocks, codes_of
from irtools.backends.block_tables import BlockLookup
from irtools.backends.openvino.narrow import widen_codes
from irtools.backends.openvino.padding_choice import choose_by_padding
from irtools.backends.openvino.readable import make_readable
from irtools.backends.unsigned_weights import make_weights_unsigned
from irtools.editing import Editor, rewrite
from irtools.errors import UnsupportedError
from irtools.targets import Capabilities

__all__ = ["leave_rounding_to_runtime", "lower"]


def lower(model: ir.Model, capabilities: Capabilities) -> Mapping[str, int]:
    """Rewrite `model` in place; returns counts by name of the form.

    OpenVINO lowers standard operators and QDQ itself. Only lookups in tables of 4-bit blocks are
    rewritten, which it would expand when it loads the model, codes of 2 bits, which it has no
    kernels for in bf16, operators that it does not read, weights whose products would saturate,
    which it multiplies in float32 if they are unsigned, keys and values that are rounded for the
    cache, which it rounds itself, and models that compute tokens alone, which get a branch for one
    text without padding.

    Raises:
        UnsupportedError: The model has adapters as inputs.
    """
    if switches_adapters(model):
        raise UnsupportedError(
            "OpenVINO takes inputs with a default for constants, so adapters cannot be switched "
            "there: export one of them with --adapters-as constants, or merged"
        )
    counts = Counter({"adapter-constants": fix_adapter(model)})
    editor = Editor(model, "lower")
    counts.update(rewrite(editor, [BlockLookup()]).counts)
    counts["wider-codes"] += widen_codes(model)
    counts["readable"] += make_readable(model)
    if capabilities.cache_bits:
        counts["cache-bits"] += leave_rounding_to_runtime(editor, model)
    if capabilities.saturates_u8s8:
        counts["unsigned-weights"] += make_weights_unsigned(model)
    counts["padding-choice"] += choose_by_padding(model)
    return dict(+counts)


def leave_rounding_to_runtime(editor: Editor, model: ir.Model) -> int:
    """Note in how many bits a cache is to be kept, in place of rounding what joins it.

    Returns:
        How many attention blocks were rounded; none where not all are, in the same way.
    """
    blocks = cache_blocks(model)
    rounded = [[codes_of(value) for value in block.new] for block in blocks]
    bits = {tuple(0 if codes is None else codes.bits for codes in pair) for pair in rounded}
    if len(bits) != 1 or not all(chosen := bits.pop()):
        return 0
    for block, pair in zip(blocks, rounded, strict=True):
        for position, (value, codes) in enumerate(zip(block.new, pair, strict=True), start=1):
            assert codes is not None
            block.attention.replace_input_with(position, codes.plain)
            editor.drop_unread(value)
    model.metadata_props[CACHE_BITS] = " ".join(map(str, chosen))
    return len(blocks)
