"""Where the layers of a Transformers network are, and what its attention is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from irtools.errors import UnsupportedError

__all__ = [
    "PROJECTIONS",
    "capture_projections",
    "find_layers",
    "head_names",
    "is_language_model",
    "layer_of",
    "num_heads",
    "uniform_map",
    "unit_mask",
]

PROJECTIONS = "distillation_projections"
"""Attribute of a student that holds the learned maps to the teacher's widths in training."""

# Names that the families of Transformers give the three projections of an attention.
_ROLES: Mapping[str, frozenset[str]] = {
    "query": frozenset({"query", "q_lin", "q_proj", "query_proj", "q"}),
    "key": frozenset({"key", "k_lin", "k_proj", "key_proj", "k"}),
    "value": frozenset({"value", "v_lin", "v_proj", "value_proj", "v"}),
}


def find_layers(model: Any) -> tuple[str, nn.ModuleList]:
    """Return the list of a network's layers and its dotted name.

    Raises:
        UnsupportedError: It has no such list: its layers share weights, or it has stages.
    """
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise UnsupportedError(
        f"{type(model).__name__} has no list of {count} layers to choose from: its layers share "
        "their weights, or it is built in stages"
    )


def layer_of(parameter: str, layers: str) -> tuple[int, str] | None:
    """Split `bert.encoder.layer.3.output.dense.weight` into 3 and the rest; None outside layers."""
    if not parameter.startswith(f"{layers}."):
        return None
    number, _, rest = parameter.removeprefix(f"{layers}.").partition(".")
    return int(number), rest


def num_heads(model: Any) -> int:
    """Return the attention heads of every layer."""
    return int(model.config.num_attention_heads)


def head_names(model: Any) -> tuple[str, ...]:
    """Return the first names of the parameters that belong to the task and not to the network."""
    own = set(dict(model.base_model.named_parameters())) if _has_base(model) else set()
    prefix = f"{model.base_model_prefix}."
    names = [n for n, _ in model.named_parameters() if n.removeprefix(prefix) not in own]
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def is_language_model(kind: Any) -> bool:
    """Whether a class of networks gives scores for the token that follows each token."""
    return bool(kind.__name__.endswith(("ForCausalLM", "LMHeadModel")))


def _has_base(model: Any) -> bool:
    return model.base_model is not model


@contextmanager
def capture_projections(
    model: Any, layers: Sequence[int]
) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Collect what `query`, `key` and `value` of some layers give in the runs inside the block.

    Yields:
        (layer, role) to [N, S, H].

    Raises:
        UnsupportedError: A layer has no such projections of one width.
    """
    _, stack = find_layers(model)
    found: dict[tuple[int, str], Tensor] = {}
    handles = []
    try:
        for number in layers:
            for role, module in _projections(stack[number], number).items():
                handles.append(module.register_forward_hook(_keeper(found, (number, role))))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _keeper(found: dict[tuple[int, str], Tensor], key: tuple[int, str]) -> Any:
    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        found[key] = output.reshape(output.shape[0], -1, output.shape[-1])

    return keep


def _projections(layer: nn.Module, number: int) -> dict[str, nn.Linear]:
    found: dict[str, nn.Linear] = {}
    for name, module in layer.named_modules():
        last = name.rpartition(".")[2]
        for role, names in _ROLES.items():
            if last in names and isinstance(module, nn.Linear):
                found.setdefault(role, module)
    widths = {module.out_features for module in found.values()}
    if set(found) != set(_ROLES) or len(widths) != 1:
        raise UnsupportedError(
            f"layer {number} has no separate query, key and value projections of one width, which "
            "the losses attention and relation compare; leave them out"
        )
    return found


def uniform_map(student: int, teacher: int) -> tuple[int, ...]:
    """Return the teacher layer that each student layer learns from: g(m) = m N / M (Jiao 2020)."""
    return tuple(round((number + 1) * teacher / student) - 1 for number in range(student))


def unit_mask(inputs: Mapping[str, Tensor], tokens: int) -> Tensor:
    """Return the padding mask [N, S], of ones where the inputs have none of that length."""
    mask = inputs.get("attention_mask")
    first = next(iter(inputs.values()))
    if mask is not None and mask.ndim == 2 and mask.shape[1] == tokens:
        return mask
    return torch.ones(first.shape[0], tokens, dtype=torch.long, device=first.device)
