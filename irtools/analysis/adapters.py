"""Adapters next to the weights of a model, known by a note in its metadata.

Layers that read the same value share one A, [K, n r], which is called after all of them:
`P.q_proj.k_proj.v_proj.lora_A` for `P.q_proj.lora_B`, `P.k_proj.lora_B`, `P.v_proj.lora_B` [r, N].
Their arrays are inputs with a default, which passes do not take for weights: the weights of the
base are quantized as ever, the adapter stays as it is. `inputs`: the default adds nothing, and a
caller gives an adapter. `constants`: the default is the adapter, and `fix_adapter` makes constants
of it when the model is lowered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

__all__ = [
    "ADAPTERS",
    "adapter_inputs",
    "down_name",
    "fix_adapter",
    "modules_of",
    "switches_adapters",
    "up_name",
]

ADAPTERS = "adapters"
"""Key in the metadata: `inputs` or `constants`."""

_DOWN, _UP = ".lora_A", ".lora_B"
_SUFFIXES = (_DOWN, _UP)


def up_name(module: str) -> str:
    """Return the input with B of a layer."""
    return f"{module}{_UP}"


def down_name(modules: Sequence[str]) -> str:
    """Return the input with A of layers that read the same value."""
    parent = modules[0].rpartition(".")[0]
    leaves = (name.removeprefix(f"{parent}.") for name in modules)
    return ".".join((*([parent] if parent else []), *leaves)) + _DOWN


def modules_of(down: str, names: Collection[str]) -> tuple[str, ...]:
    """Return the layers that an A is for, in their order; empty where the name is another.

    Args:
        down: The input with A.
        names: All inputs for adapters.
    """
    if not down.endswith(_DOWN):
        return ()
    whole = down.removesuffix(_DOWN)
    for first, _ in _beginnings(whole, "", names):
        rest = _rest(_after(whole, first), first.rpartition(".")[0], names)
        if rest is not None:
            return (first, *rest)
    return ()


def _rest(text: str, parent: str, names: Collection[str]) -> tuple[str, ...] | None:
    """Return the layers whose names, without `parent`, a text joins; None where it does not."""
    if not text:
        return ()
    for prefix in dict.fromkeys((f"{parent}." if parent else "", "")):
        for leaf, module in _beginnings(text, prefix, names):
            rest = _rest(_after(text, leaf), parent, names)
            if rest is not None:
                return (module, *rest)
    return None


def _beginnings(text: str, prefix: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield beginnings of a dotted text that are a layer, the longest first, and the layer."""
    parts = text.split(".")
    for count in range(len(parts), 0, -1):
        leaf = ".".join(parts[:count])
        if up_name(prefix + leaf) in names:
            yield leaf, prefix + leaf


def _after(text: str, beginning: str) -> str:
    return text.removeprefix(beginning).removeprefix(".")


def switches_adapters(model: ir.Model) -> bool:
    """Whether a caller may give the model an adapter."""
    return model.metadata_props.get(ADAPTERS) == "inputs"


def adapter_inputs(model: ir.Model) -> tuple[ir.Value, ...]:
    """Return the inputs for factors of adapters, in order."""
    if ADAPTERS not in model.metadata_props:
        return ()
    return tuple(
        value
        for value in model.graph.inputs
        if value.is_initializer() and (value.name or "").endswith(_SUFFIXES)
    )


def fix_adapter(model: ir.Model) -> int:
    """Let the adapter of a model that holds one be constants in place; return how many."""
    if model.metadata_props.get(ADAPTERS) != "constants":
        return 0
    fixed = adapter_inputs(model)
    for value in fixed:
        model.graph.inputs.remove(value)
        assert value.const_value is not None
        value.shape = ir.Shape(value.const_value.shape.numpy())
    return len(fixed)
