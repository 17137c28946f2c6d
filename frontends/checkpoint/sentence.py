"""What a folder of sentence-transformers puts after its encoder (Reimers and Gurevych 2019).

`modules.json` lists the encoder, a pooling of its last hidden states [B, S, H] over the tokens of
the mask, and layers on the pooled vector: Dense, LayerNorm, Normalize. They become part of the
model, with the one output `sentence_embedding` [B, D].
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irtools.errors import ModelError
from irtools.frontends.torch import Tensors, TorchSource, first_line, tensors_of

__all__ = ["OUTPUT", "with_sentence_embedding"]

OUTPUT = "sentence_embedding"
_LIST = "modules.json"
_HEAD = "sentence_head"
_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""In the order in which sentence-transformers joins the vectors of several modes."""
_KEYS: Mapping[str, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_ACTIVATIONS = ("torch.nn.modules.activation.", "torch.nn.modules.linear.Identity")


class _NotTakenError(Exception):
    """A module is of a kind that has no form here."""


@dataclass(frozen=True)
class _Entry:
    """One line of `modules.json`."""

    kind: str
    folder: Path
    path: str

    def config(self) -> dict[str, Any]:
        return _read_json(self.folder / "config.json") or {}


def with_sentence_embedding(source: TorchSource, folder: Path) -> TorchSource:
    """Return a source with the modules of `modules.json` after the encoder.

    Where one of them has no form here, the encoder stays alone, and a note names what is left out.

    Raises:
        ModelError: The list or a module of it is damaged.
    """
    import torch

    entries = [entry for entry in _entries(folder) if entry.kind != "Transformer"]
    if not entries:
        return source
    if "last_hidden_state" not in source.outputs or "attention_mask" not in source.axes:
        return _alone(source, entries, "the encoder has no hidden states of tokens")
    try:
        head = torch.nn.Sequential()
        for entry in entries:
            head.add_module(entry.path.replace(".", "_") or entry.kind, _module(torch, entry))
    except _NotTakenError as error:
        return _alone(source, entries, str(error))
    setattr(source.module, _HEAD, head.eval())
    place = list(source.outputs).index("last_hidden_state")
    before = source.forward

    def forward(call: Callable[..., Any], inputs: Tensors) -> list[Any]:
        found = (
            list(tensors_of(call(**inputs)).values()) if before is None else before(call, inputs)
        )
        return [getattr(source.module, _HEAD)((found[place], inputs["attention_mask"]))]

    notes = [*source.notes, *_notes(entries)]
    return replace(source, outputs=(OUTPUT,), forward=forward, notes=notes)


def _alone(source: TorchSource, entries: Sequence[_Entry], reason: str) -> TorchSource:
    names = ", ".join(f"{entry.kind} ({entry.path})" for entry in entries)
    note = f"{_LIST}: left out of the export: {names}; {reason}"
    return replace(source, notes=[*source.notes, note])


def _notes(entries: Sequence[_Entry]) -> Iterator[str]:
    for entry in entries:
        if entry.kind == "Pooling" and entry.config().get("include_prompt") is False:
            yield (
                f"{entry.path}: include_prompt is false: the tokens of a prompt count unless the "
                "attention_mask that pooling reads leaves them out, and the encoder reads the same"
            )


def _entries(folder: Path) -> list[_Entry]:
    listed = _read_json(folder / _LIST) or []
    try:
        return [
            _Entry(str(e["type"]).rpartition(".")[2], folder / e["path"], str(e["path"]))
            for e in listed
        ]
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / _LIST} is damaged: expected a list of modules with path and type"
        ) from error


def _module(torch: Any, entry: _Entry) -> Any:
    match entry.kind:
        case "Pooling":
            return _pooling(torch, _modes(entry))
        case "Dense":
            return _dense(torch, entry)
        case "LayerNorm":
            state = _state(entry)
            width = int(entry.config().get("dimension") or len(state["norm.weight"]))
            return _filled(entry, torch.nn.LayerNorm(width), state, "norm.")
        case "Normalize":
            return _normalize(torch)
        case "Dropout":
            return torch.nn.Identity()
        case _:
            raise _NotTakenError(f"{entry.kind} has no form here")


def _modes(entry: _Entry) -> tuple[str, ...]:
    config = entry.config()
    named = config.get("pooling_mode")
    if named is not None:
        # Newer versions name the modes, in one string or a list.
        listed = named.split("+") if isinstance(named, str) else list(named)
        found = tuple(str(mode) for mode in listed)
    else:
        found = tuple(mode for mode in _MODES if config.get(_KEYS[mode]))
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value]
        found += tuple(key for key in on if key not in _KEYS.values())
    foreign = [mode for mode in found if mode not in _MODES]
    if foreign or not found:
        raise _NotTakenError(f"{entry.path} pools by {', '.join(foreign) or 'no mode'}")
    return tuple(mode for mode in _MODES if mode in found)


def _pooling(torch: Any, modes: Sequence[str]) -> Any:
    class Pooling(torch.nn.Module):  # type: ignore[misc]
        def forward(self, given: tuple[Any, Any]) -> Any:
            states, mask = given
            return torch.cat([_pooled(torch, mode, states, mask) for mode in modes], dim=1)

    return Pooling()


def _pooled(torch: Any, mode: str, states: Any, mask: Any) -> Any:
    """Return one vector per text, [B, H], of states [B, S, H] and a mask [B, S]."""
    shown = mask[..., None].to(states.dtype)
    place = torch.arange(1, mask.shape[1] + 1)
    match mode:
        case "cls":
            return states[:, 0]
        case "max":
            return torch.where(shown == 0, -1e9, states).amax(1)
        case "lasttoken":
            last = (mask * place).argmax(1)
            return states[torch.arange(states.shape[0]), last]
        case "weightedmean":
            shown = shown * place[:, None].to(states.dtype)
    total, count = (states * shown).sum(1), shown.sum(1).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)


def _normalize(torch: Any) -> Any:
    class Normalize(torch.nn.Module):  # type: ignore[misc]
        def forward(self, given: Any) -> Any:
            return torch.nn.functional.normalize(given, p=2, dim=1)

    return Normalize()


def _dense(torch: Any, entry: _Entry) -> Any:
    config = entry.config()
    for key in ("module_input_name", "module_output_name"):
        if config.get(key, OUTPUT) not in (OUTPUT, None):
            raise _NotTakenError(f"{entry.path} has {key} {config[key]!r}")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = getattr(torch.nn, name.rpartition(".")[2], None)
    if not name.startswith(_ACTIVATIONS) or kind is None:
        raise _NotTakenError(f"{entry.path} has the activation {name}")
    state = _state(entry)
    weight = state["linear.weight"]
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="linear.bias" in state)
    return torch.nn.Sequential(_filled(entry, linear, state, "linear."), kind())


def _filled(entry: _Entry, layer: Any, state: Mapping[str, Any], prefix: str) -> Any:
    own = {n.removeprefix(prefix): t.float() for n, t in state.items() if n.startswith(prefix)}
    try:
        layer.load_state_dict(own)
    except RuntimeError as error:
        raise ModelError(f"{entry.folder}: weights do not fit: {first_line(error)}") from error
    return layer


def _state(entry: _Entry) -> Mapping[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safe, plain = entry.folder / "model.safetensors", entry.folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            state = load_file(safe)
        else:
            state = torch.load(plain, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, SafetensorError) as error:
        raise ModelError(f"{entry.folder}: weights cannot be read: {first_line(error)}") from error
    wanted = "norm.weight" if entry.kind == "LayerNorm" else "linear.weight"
    if wanted not in state:
        raise ModelError(f"{entry.folder}: weights lack {wanted!r}")
    return dict(state)


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
