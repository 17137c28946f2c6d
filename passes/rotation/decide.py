"""Decisions about streams and heads: what is decided, as data, and carried out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from irtools.analysis.orthogonal import Rotation
from irtools.analysis.provenance import module_name
from irtools.analysis.shapes import SymbolicShapes
from irtools.editing import Editor, require_array
from irtools.errors import UsageError
from irtools.model import opset_of, raise_opset
from irtools.passes.rotation.choose import Choice, candidates, choose
from irtools.passes.rotation.evidence import collect
from irtools.passes.rotation.find import StreamSettings, find_streams
from irtools.passes.rotation.fold import rotate_stream
from irtools.passes.rotation.heads import Heads, find_heads, rotate_heads
from irtools.passes.rotation.stream import Reason, Stream
from irtools.passmanager import Decision, PassContext
from irtools.scaling import Rounding
from irtools.targets import Capabilities
from irtools.words import counted

__all__ = ["carry_out", "choice_of", "head_decision", "obstacle", "stream_decision"]

_OPSET = 23
"""Introduced RMSNormalization."""


def obstacle(stream: Stream, model: ir.Model, capabilities: Capabilities) -> Reason | None:
    """Return why a stream that was found cannot be rotated in this model, for this target."""
    if not all(_is_finite(require_array(value)) for value in stream.constants):
        return "nonfinite"
    if not stream.centred:
        return None
    newest = max(_OPSET, opset_of(model))
    if newest > capabilities.max_opset or not capabilities.runs_fused("RMSNormalization"):
        return "target"
    return "opset" if raise_opset(model.clone(), _OPSET).reason else None


def _is_finite(array: np.ndarray) -> bool:
    # NaN and infinities survive as the smallest or largest element.
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def choice_of(
    stream: Stream, model: ir.Model, ctx: PassContext, tries: int, rounding: Rounding
) -> Choice | None:
    """Return the best of some rotations; None where data never reached the stream."""
    evidence = collect(stream, model, ctx.statistics)
    if evidence is None:
        return None
    rotations = candidates(evidence, stream.width, tries, ctx.seed)
    return choose(evidence, model, rotations, rounding, ctx.statistics)


def stream_decision(stream: Stream, choice: Choice) -> Decision:
    """Write down how a stream is rotated."""
    rotation = choice.rotation
    mixed = f"blocks of {rotation.block}" if rotation.block else "all"
    readers = sum(len(norm.readers) for norm in stream.norms)
    return Decision(
        subject=module_name(stream.norms[0].node),
        action=(
            f"{stream.width} channels rotated in {mixed}: {counted(len(stream.norms), 'norm')}, "
            f"{counted(readers, 'reader')}, {counted(len(stream.writers), 'writer')}"
        ),
        cost=float(stream.products),
        gain=round(choice.gain_db, 2),
        data={
            "stream": stream.name,
            "width": stream.width,
            "centred": stream.centred,
            "seed": rotation.seed,
            "block": rotation.block,
            "order": list(rotation.order),
        },
    )


def head_decision(heads: Heads) -> Decision:
    """Write down that the values of an attention block are rotated."""
    return Decision(
        subject=module_name(heads.product),
        action=f"values of {counted(heads.count, 'head')} of {heads.width} rotated",
        data={"heads": heads.name, "width": heads.width, "seed": 0},
    )


def carry_out(
    model: ir.Model, decisions: Sequence[Decision], settings: StreamSettings, rule: str
) -> Counter[str]:
    """Carry decisions out; returns counters.

    Raises:
        UsageError: One is none of this pass, or not of this model.
    """
    read = [(d, *_read(d.data)) for d in decisions]
    counts = Counter[str]()
    inside = [(name, rotation) for d, name, rotation in read if "heads" in d.data]
    _rotate_heads(model, inside, rule)
    counts["num-rotated-heads"] = len(inside)
    for decision, name, rotation in read:
        if "heads" not in decision.data:
            centred = bool(decision.data.get("centred"))
            counts.update(_rotate_stream(model, name, rotation, settings, rule, centred=centred))
    return counts


def _rotate_heads(model: ir.Model, chosen: Sequence[tuple[str, Rotation]], rule: str) -> None:
    if not chosen:
        return
    editor, shapes = Editor(model, rule), SymbolicShapes.of(model)
    found = {heads.name: heads for heads in find_heads(model.graph, shapes)[0]}
    for name, rotation in chosen:
        heads = found.get(name)
        if heads is None or heads.width != rotation.width:
            raise _misfit(name)
        rotate_heads(editor, heads, rotation)


def _rotate_stream(
    model: ir.Model,
    name: str,
    rotation: Rotation,
    settings: StreamSettings,
    rule: str,
    *,
    centred: bool,
) -> dict[str, int]:
    if centred:
        raise_opset(model, _OPSET)
    streams = find_streams(model, SymbolicShapes.of(model), settings).found
    stream = next((s for s in streams if s.name == name and s.width == rotation.width), None)
    if stream is None or stream.centred != centred:
        raise _misfit(name)
    counts = rotate_stream(Editor(model, rule), stream, rotation)
    return {"num-rotated-streams": 1, **counts}


def _read(data: Mapping[str, Any]) -> tuple[str, Rotation]:
    try:
        name, width, seed = data.get("stream") or data["heads"], data["width"], data["seed"]
        order = tuple(int(channel) for channel in data.get("order", ()))
        if order and sorted(order) != list(range(width)):
            raise ValueError("order is not a permutation")
        block = int(data.get("block", 0))
        if block and width % block:
            raise ValueError(f"no blocks of {block} in {width} channels")
        return str(name), Rotation(int(width), int(seed), block, order)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"not a decision about rotations: {error!r}") from error


def _misfit(name: str) -> UsageError:
    return UsageError(
        f"the plan does not fit the model: it has no stream or values {name!r}; make a new plan"
    )
