"""Weights of a checkpoint that its network has no place for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from irtools.errors import ModelError
from irtools.words import counted

__all__ = ["check_layers", "note_on_leftovers"]

# Heads of the pretraining, which every encoder may leave behind, and buffers that older versions
# of the library saved.
_HARMLESS = re.compile(
    r"(^|\.)(cls|pooler|lm_head|\w*predictions?|seq_relationship|\w+_pooler)\."
    r"|(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|attention\.bias"
    r"|num_batches_tracked|relative_position_index|final_logits_bias|version)$"
)


def check_layers(folder: Path, module: Any, unexpected: Collection[str]) -> list[str]:
    """Refuse weights of layers that the config does not make.

    A layer of the weights has no place where the network has the same parameter in another layer
    of that list, and none of this number.

    Args:
        folder: The checkpoint.
        module: Its network.
        unexpected: Names of weights that had no place, without those that the library declares as
            such.

    Returns:
        Those that are of no such layer, nor of one that predicts further tokens.

    Raises:
        ModelError: There are some; says how many layers were found and made.
    """
    made = {_own_name(module, name) for name in module.state_dict()}
    kinds = {_kind(name) for name in made}
    places = {place for name in made for place in _places(name)}
    lost = {n: _first_outside(_own_name(module, n), places) for n in sorted(unexpected)}
    further = _further(module.config, places)
    for name, place in lost.items():
        if place is None or place in further or _kind(_own_name(module, name)) not in kinds:
            continue
        parent, layers = place[0], _indices(places, place[0])
        found = layers | _indices({p for p in lost.values() if p is not None}, parent)
        raise ModelError(
            f"{folder}: weights do not fit config.json: they hold {counted(len(found), 'layer')} "
            f"{parent}.N, and the config makes {len(layers)}{_key(module.config, len(layers))}, "
            f"{name!r} has no place; give the config that belongs to the weights"
        )
    return [name for name, place in lost.items() if place not in further]


def note_on_leftovers(
    module: Any, unexpected: Collection[str], *, as_saved: bool
) -> tuple[str, ...]:
    """Report other weights that had no place, where a user may miss them.

    Args:
        as_saved: The network is the one that the checkpoint was saved as. Another one leaves the
            head behind, as was asked for.
    """
    lost = sorted(name for name in unexpected if not _HARMLESS.search(name))
    if not as_saved:
        inside = {_own_name(module, name).partition(".")[0] for name in module.state_dict()}
        lost = [name for name in lost if _own_name(module, name).partition(".")[0] in inside]
    if not lost:
        return ()
    return (
        f"{type(module).__name__} has no place for {counted(len(lost), 'weight')} of the "
        f"checkpoint, which {'was' if len(lost) == 1 else 'were'} left out: {lost[0]!r}"
        + (" and others" if len(lost) > 1 else ""),
    )


_Place: TypeAlias = tuple[str, int]
"""A list of modules and a number in it: `encoder.layer` and 3."""


def _own_name(module: Any, name: str) -> str:
    """Return a name as the body of the network has it, without the head's prefix."""
    return name.removeprefix(f"{module.base_model_prefix}.")


def _kind(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _places(name: str) -> Iterator[_Place]:
    """Yield the places that a name goes through, the outermost first."""
    for match in re.finditer(r"\.(\d+)(?=\.|$)", name):
        yield name[: match.start()], int(match[1])


def _first_outside(name: str, places: Collection[_Place]) -> _Place | None:
    return next((place for place in _places(name) if place not in places), None)


def _indices(places: Collection[_Place], parent: str) -> set[int]:
    return {index for where, index in places if where == parent}


def _further(config: Any, places: Collection[_Place]) -> set[_Place]:
    """Places after the others for layers that predict further tokens; nothing here runs them."""
    names = ("num_mtp_layers", "num_nextn_predict_layers")
    count = max(int(getattr(config, name, None) or 0) for name in names)
    ends = {parent: max(_indices(places, parent)) for parent, _ in places} if count else {}
    return {(parent, last + n + 1) for parent, last in ends.items() for n in range(count)}


def _key(config: Any, layers: int) -> str:
    """Return where the config says so, if one entry alone does."""
    entries = config.to_dict().items()
    named = [k for k, v in entries if v == layers and type(v) is int and "layer" in k]
    return f" ({named[0]} = {layers})" if len(named) == 1 else ""
